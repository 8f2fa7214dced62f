"""Pictures with their captions to look at: an HTML table for the notebook, and a figure of a grid.

In: captioned pictures. Out: escaped HTML text, or a Sheet that shows itself in a notebook without pyplot.
"""

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from .decoding import PictureError

if TYPE_CHECKING:
    from ..system.figures import Sheet
    from .dataset import CaptionedPictures

THUMBNAIL = 128  # the longest side in pixels


def html_table(pictures: "CaptionedPictures", count: int = 8) -> str:
    """The first `count` pictures as a small HTML table: picture, name, size, caption; everything escaped."""
    rows = "".join(html_row(pictures, index) for index in range(min(count, len(pictures))))
    head = "<tr><th></th><th>name</th><th>height x width</th><th>caption</th></tr>"
    return f"<div><p>{escape(repr(pictures))}</p><table>{head}{rows}</table></div>"


def html_row(pictures: "CaptionedPictures", index: int) -> str:
    name, caption = escape(pictures.names[index]), escape(pictures.captions[index])
    try:
        sample = pictures[index]
    except PictureError as error:
        return f'<tr><td></td><td>{name}</td><td colspan="2">{escape(str(error))}</td></tr>'
    image = f'<img src="{data_uri(sample.picture)}" alt="">'
    size = "{} x {}".format(*sample.original_size)
    return f"<tr><td>{image}</td><td>{name}</td><td>{size}</td><td>{caption}</td></tr>"


def data_uri(picture: Image.Image) -> str:
    """A thumbnail as a data: URI; tiny pictures are enlarged pixel by pixel."""
    thumbnail = enlarge(picture)
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def enlarge(picture: Image.Image) -> Image.Image:
    """A copy, enlarged by a whole factor so that a 64 px picture fills its place with square pixels."""
    factor = max(1, THUMBNAIL // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def figure(pictures: "CaptionedPictures", count: int = 8, columns: int = 4) -> "Sheet":
    """A Sheet of the first `count` pictures, captions wrapped below them; one that cannot be read says why."""
    from ..system.figures import picture_sheet

    count = min(count, len(pictures))
    starts = range(0, max(count, 1), columns)
    rows = [[shown(pictures, index) for index in range(start, min(start + columns, count))] for start in starts]
    captions = [pictures.captions[start : min(start + columns, count)] for start in starts]
    return picture_sheet(rows, below=captions)


def shown(pictures: "CaptionedPictures", index: int) -> Image.Image | str:
    """The picture, or the sentence that says why there is none."""
    try:
        return pictures[index].picture
    except PictureError as error:
        return str(error)
