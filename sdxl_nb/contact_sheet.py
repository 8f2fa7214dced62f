"""Pictures with their captions to look at: an HTML table for the notebook, and a matplotlib figure of a grid.

In: captioned pictures. Out: escaped HTML text, or a Figure that shows itself in a notebook without pyplot.
"""

import base64
import io
import math
import textwrap
from html import escape

from matplotlib.figure import Figure
from PIL import Image

from .pictures import PictureError

THUMBNAIL = 128  # the longest side in pixels
CELL = 2.4  # inches


class Sheet(Figure):
    """A Figure that a notebook displays even when no cell imported pyplot."""

    def _repr_png_(self):
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def html_table(pictures, count=8):
    """The first `count` pictures as a small HTML table: picture, name, size, caption; everything escaped."""
    rows = "".join(html_row(pictures, index) for index in range(min(count, len(pictures))))
    head = "<tr><th></th><th>name</th><th>height x width</th><th>caption</th></tr>"
    return f"<div><p>{escape(repr(pictures))}</p><table>{head}{rows}</table></div>"


def html_row(pictures, index):
    name, caption = escape(pictures.names[index]), escape(pictures.captions[index])
    try:
        sample = pictures[index]
    except PictureError as error:
        return f'<tr><td></td><td>{name}</td><td colspan="2">{escape(str(error))}</td></tr>'
    image = f'<img src="{data_uri(sample.picture)}" alt="">'
    size = "{} x {}".format(*sample.original_size)
    return f"<tr><td>{image}</td><td>{name}</td><td>{size}</td><td>{caption}</td></tr>"


def data_uri(picture):
    """A thumbnail as a data: URI; tiny pictures are enlarged pixel by pixel."""
    thumbnail = enlarge(picture)
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def enlarge(picture):
    """A copy, enlarged by a whole factor so that a 64 px picture fills its place with square pixels."""
    factor = max(1, THUMBNAIL // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def figure(pictures, count=8, columns=4):
    """A Sheet of the first `count` pictures, captions wrapped below them."""
    count = min(count, len(pictures))
    columns = max(1, min(columns, count))
    rows = max(1, math.ceil(count / columns))
    sheet = Sheet(figsize=(columns * CELL, rows * (CELL + 0.6)), dpi=100, layout="constrained")
    for index, axes in enumerate(sheet.subplots(rows, columns, squeeze=False).flat):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if index < count:
            draw(axes, pictures, index)
    return sheet


def draw(axes, pictures, index):
    try:
        picture = pictures[index].picture
    except PictureError as error:
        axes.text(0.5, 0.5, textwrap.fill(str(error), 26), ha="center", va="center", fontsize=8, parse_math=False)
        return
    picture.thumbnail((512, 512))
    axes.imshow(picture, interpolation="nearest" if max(picture.size) <= 256 else "antialiased")
    caption = textwrap.shorten(pictures.captions[index], 100, placeholder=" ...")
    axes.set_xlabel(textwrap.fill(caption, 30), fontsize=8, parse_math=False)
