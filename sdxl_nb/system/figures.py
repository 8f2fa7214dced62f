"""Pictures in rows and columns with their words, as a matplotlib figure that shows itself in a notebook.

In: PIL pictures and texts. Out: a `Sheet`, for light pages and dark ones, without pyplot. Places are counted in whole
pixels, so that the tiny base's 64 px pictures are enlarged by a whole factor: every pixel of theirs is a square.
"""

import contextlib
import functools
import io
import math
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.colors import is_color_like as is_colour_like
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from PIL import Image

DPI = 100
WIDE, NARROW, GAP = 192, 128, 8  # pixels: a picture's side with up to MANY columns and with more; space between
MANY = 4
LABEL = 170  # pixels at most for the words beside a row
LINE = 15  # pixels that a line of text takes at FONT points
FONT = 9
INK = "#777777"  # as readable on white (4.5 : 1) as on the grounds of dark themes (4.2 : 1)
PARTS = (  # of what is drawn, with the colour that it has and that on a page whose ground is not known
    *((kind, "black", INK) for kind in ("color", "edgecolor", "markeredgecolor")),
    ("facecolor", "white", "none"),
)
CHARACTER = 7.4  # pixels of an average character at FONT points
SCRIPTS = (  # fonts for what the usual one, DejaVu Sans, does not write
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Hiragino Sans"),
    *("PingFang SC", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Thai", "Noto Sans Devanagari"),
    *("Arial Unicode MS",),
)


class Sheet(Figure):
    """A Figure that a notebook displays even when no cell imported pyplot."""

    def __init__(self, *args: Any, **options: Any):
        white: dict[str, Any] = {"facecolor": "white", "dpi": DPI}
        super().__init__(*args, **white | options)

    def draw(self, renderer: "RendererBase") -> None:
        """Draw, with every font there is for words of other scripts; what none of them has is a box, without a word."""
        foreign = [text for text in self.findobj(Text) if not text.get_text().isascii()]
        if not foreign:
            return super().draw(renderer)
        for text in foreign:
            text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), *script_fonts()])))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
            return super().draw(renderer)

    def png(self) -> bytes:
        """The figure as a file to keep: black on white."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        """The figure on whatever page it stands, light or dark: without a ground, its black parts in grey."""
        buffer = io.BytesIO()
        with inked(self):
            self.savefig(buffer, format="png", facecolor="none")
        return buffer.getvalue()


@contextlib.contextmanager
def inked(figure: Figure) -> Iterator[None]:
    """Draw what is black in grey, and white grounds not at all, as long as the block lasts."""
    before = []
    for artist in figure.findobj():
        for kind, old, new in PARTS:
            colour = getattr(artist, f"get_{kind}", lambda: None)()
            if colour is not None and is_colour_like(colour) and to_rgb(colour) == to_rgb(old):
                before.append((getattr(artist, f"set_{kind}"), colour))
                before[-1][0](new)
    try:
        yield
    finally:
        for restore, colour in before:
            restore(colour)


@functools.cache
def script_fonts() -> list[str]:
    """Those of the fonts for other scripts that are on this machine."""
    from matplotlib.font_manager import get_font_names

    there = set(get_font_names())
    return [name for name in SCRIPTS if name in there]


def picture_sheet(
    rows: "Sequence[Sequence[Image.Image | str | None]]",
    *,
    above: Sequence[str] = (),
    beside: Sequence[str] = (),
    below: Sequence[Sequence[str]] = (),
    title: str | None = None,
) -> Sheet:
    """Rows of pictures (None leaves a place empty), with a text above each column, beside each row, below each one."""
    columns = max(map(len, rows))
    side = WIDE if columns <= MANY else NARROW
    above = [wrapped(text, side / CHARACTER) for text in above]
    beside = [wrapped(text, LABEL / CHARACTER) for text in beside]
    below = [[wrapped(text, side / CHARACTER) for text in texts] for texts in below]
    left = 2 * GAP + width_of(beside)
    top = GAP + (LINE * 2 if title else 0) + height(above)
    depths = [side + GAP + height(below[row] if below else ()) for row in range(len(rows))]
    width, tall = left + columns * (side + GAP), top + sum(depths)
    sheet = Sheet(figsize=(width / DPI, tall / DPI))
    for row, pictures in enumerate(rows):
        bottom = tall - top - sum(depths[:row]) - side
        for column, picture in enumerate(pictures):
            place = ((left + column * (side + GAP)) / width, bottom / tall, side / width, side / tall)
            axes = sheet.add_axes(place, xticks=[], yticks=[])
            show(axes, picture)
            if above and row == 0:
                axes.set_title(above[column], fontsize=FONT, pad=4, parse_math=False)
            if beside and column == 0:
                axes.set_ylabel(beside[row], fontsize=FONT, rotation=0, ha="right", va="center", parse_math=False)
            if below:
                axes.set_xlabel(below[row][column], fontsize=FONT, labelpad=3, parse_math=False)
    if title:
        sheet.text(0.5, 1 - GAP / tall, title, ha="center", va="top", fontsize=FONT + 3, parse_math=False)
    return sheet


def picture_in(path: Path) -> "Image.Image | str":
    """The picture in a file; where there is none that can be read, the words for that."""
    from PIL import Image

    if not path.is_file():
        return "not drawn"
    try:
        with Image.open(path) as picture:
            return picture.copy()
    except Exception:  # it was cut, or replaced by something else; Pillow has errors of many kinds for that
        return "cannot be read"


def show(axes: "Axes", picture: "Image.Image | str | None") -> None:
    """One picture without a frame: a small one pixel by pixel, a large one scaled down smoothly; a text as it is."""
    axes.spines[:].set_visible(False)
    if isinstance(picture, str):
        axes.text(0.5, 0.5, wrapped(picture, 22), ha="center", va="center", fontsize=FONT - 1, parse_math=False)
    elif picture is not None:
        picture = picture.copy()
        picture.thumbnail((2 * WIDE, 2 * WIDE))
        axes.imshow(picture, interpolation="nearest" if max(picture.size) <= NARROW else "antialiased")


def wrapped(text: str, width: float) -> str:
    """The text in lines of so many characters, five at most."""
    lines = ((line, int(width * len(line) / max(1, columns_of(line)))) for line in text.split("\n"))
    return "\n".join(textwrap.fill(line, most, max_lines=5, placeholder=" ...") for line, most in lines)


def columns_of(line: str) -> int:
    """How many characters' room a line takes: a Chinese, Japanese or Korean one has that of two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in line)


def width_of(texts: Sequence[str]) -> int:
    """Pixels that the longest line of these texts takes."""
    return math.ceil(max((CHARACTER * columns_of(line) for text in texts for line in text.split("\n")), default=0))


def height(texts: Sequence[str]) -> int:
    """Pixels that the tallest of these texts takes."""
    return max((LINE * (text.count("\n") + 1) for text in texts if text), default=0) + (4 if any(texts) else 0)
