"""One captioned picture as a card: what training sees of it, its caption in tokens, and the caption to correct.

In: a picture of a data set and a TrainConfig. Out: a `Card`. The crop is that of the cached latents, the middle one:
what lies outside it is dimmed.
"""

import threading
from collections.abc import Callable
from html import escape
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageEnhance

from ...config.train_config import TrainConfig
from ...data.crops import Crop, plan_crop
from ...data.decoding import Decoded
from ...system.errors import DataError
from ..parts.pictures import thumbnail
from .card_view import CardView

SHOWN = 448  # pixels of a thumbnail's longer side at most
UNREADABLE = "It is damaged, or no picture: bring it once more, or leave it out."
SAID = 80  # characters of a long text that a card shows; the whole is in its title


class Words(NamedTuple):
    """A caption as the tokenizers see it: tokens with start and end, their limit, the text that is cut off, and the
    trigger word where training puts it in front."""

    tokens: int
    limit: int
    cut: str
    trigger: str = ""


def count_words(caption: str, tokenizers: Any, trigger: str = "", chunks: int = 1) -> Words:
    """The length of the caption, with its trigger word, for the tokenizer that cuts most of it."""
    from ...data.captions import long_captions
    from ...data.words.chunks import Chunks

    lengths = [len(tokenizer(caption, truncation=False, verbose=False)["input_ids"]) for tokenizer in tokenizers]
    cut = next(iter(long_captions([caption], tokenizers, chunks=chunks)), None)
    limit = min(Chunks(tokenizer, chunks).limit for tokenizer in tokenizers)
    return Words(max(lengths), limit, cut.cut if cut else "", trigger)


def middle_crop(config: TrainConfig, size: tuple[int, int], target: tuple[int, int]) -> Crop:
    """The crop of a picture of this (height, width) that cached training sees."""
    return plan_crop(size, target, config.center_crop, False, 0.5, 0.5, config.image_interpolation_mode)


def with_crop(picture: Image.Image, crop: Crop, side: int = SHOWN) -> Image.Image:
    """A copy of the picture, its longer side so many pixels, dimmed outside its crop, which has a thin frame."""
    scale = side / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.resize(  # a gap of 2 takes twice the time for what nobody sees
        (width, height), Image.Resampling.LANCZOS, reducing_gap=1.0
    )
    scale = side / max(crop.original_size)  # of which the picture may have half
    left, top, right, bottom = (round(place * scale) for place in crop.box)
    box = (left, top, min(right, small.width), min(bottom, small.height))
    shown = ImageEnhance.Brightness(small).enhance(0.35)
    shown.paste(small.crop(box), box[:2])
    if box != (0, 0, *small.size):
        ImageDraw.Draw(shown).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline="#f97316", width=2)
    return shown


def with_mask(picture: Image.Image, mask: Image.Image | None) -> Image.Image:
    """The picture, blue where its mask is black: what masked_loss does not train."""
    if mask is None:
        return picture
    blue = Image.blend(picture, Image.new("RGB", picture.size, "#1d4ed8"), 0.6)
    return Image.composite(picture, blue, mask.resize(picture.size))


def words_line(words: Words | None) -> str:
    """How long the caption is, and what would be cut, as HTML."""
    if words is None:
        return ""
    line = f"{words.tokens} of {words.limit} tokens" + (f" with {escape(words.trigger)}" if words.trigger else "")
    if not words.cut:
        return line
    cut = f'<s title="{escape(words.cut)}">{escape(shortened(words.cut))}</s>'
    return coloured(f"{line}; cut: {cut}")


def coloured(html: str) -> str:
    """What is wrong, as HTML in the colour of errors."""
    return f'<span style="color:var(--jp-error-color1)">{html}</span>'


def shortened(text: str, most: int = SAID) -> str:
    """The text, or its beginning."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


class Shown(NamedTuple):
    """What a card shows of a picture beside its caption: (height, width) where known, crop, tokens, a complaint."""

    size: tuple[int, int] | None = None
    crop: Crop | None = None
    words: Words | None = None
    complaint: str = ""
    harmless: bool = False  # a complaint that is not in the colour of errors


class Card(CardView):
    """A picture with its caption; the same card is shown again and again, so that nobody's cursor is lost.

    `save(name, caption)` is called when a caption was left or Ctrl+Enter pressed, `goes_on(card)` for the latter;
    neither is there where nothing can be changed. `press(name)` is called when the picture is.
    """

    def __init__(
        self,
        name: str,
        save: Callable[[str, str], object] | None,
        goes_on: Callable[["Card"], object],
        press: Callable[[str], object],
    ):
        self.caption = ""
        self._writer: int | None = None  # the thread that shows what is stored, which is not to be saved once more
        self._about: tuple[object, ...] | None = None  # what the picture was made of
        self._size: tuple[int, int] | None = None  # of the picture, None for one that cannot be read
        self._broken = ""  # why it cannot
        super().__init__(name=name, alt=name, editable=save is not None, _dom_classes=["sdxl-nb-card"])
        self.observe(lambda change: press(name), "clicks")
        if save:
            self.observe(lambda change: self._is_writing() or save(name, change["new"]), "value")
            self.observe(lambda change: goes_on(self), "next")

    def show(self, caption: str, shown: Shown, about: tuple[object, ...], draw: Callable[[], Decoded | None]) -> None:
        """Show this; what somebody types meanwhile stays. The picture is drawn anew only where `about` has changed."""
        with self.hold_sync():  # one message
            self._write(caption)
            self.alt = f"{self.name}: {shortened(caption)}" if caption else self.name
            if about != self._about:
                self._draw(draw, shown.crop)
                self._about = about
            complaint, harmless = self._broken or shown.complaint, shown.harmless and not self._broken
            if harmless and self._size is None:  # it lacks more than a caption
                complaint, harmless = UNREADABLE, False
            short = f"<b title='{escape(self.name)}'>{escape(_short(self.name))}</b>"
            lines = [short, self._sizes(shown), words_line(shown.words)]
            if complaint:
                told = f'<span title="{escape(complaint)}">{escape(shortened(complaint, 2 * SAID))}</span>'
                lines.append(told if harmless else coloured(told))
            self.text = "<br>".join(filter(None, lines))

    def _draw(self, draw: Callable[[], Decoded | None], crop: Crop | None) -> None:
        try:
            drawn, self._broken = draw(), ""
        except DataError as error:
            drawn, self._broken = None, str(error)
        self._size = None if drawn is None else drawn.size
        if drawn is None:
            self.picture = b""
        else:
            self.picture = thumbnail(drawn.picture if crop is None else with_crop(drawn.picture, crop), SHOWN)

    def _sizes(self, shown: Shown) -> str:
        if self._size is None:
            return "cannot be read"
        height, width = shown.size or self._size
        said = f"{width} × {height}"
        return said if shown.crop is None else f"{said} → {shown.crop.target_size[1]} × {shown.crop.target_size[0]}"

    def _write(self, caption: str) -> None:
        """The caption as it is stored, without saving it once more."""
        self.caption = caption
        if self.value != caption:
            self._writer = threading.get_ident()
            try:
                self.value = caption
            finally:
                self._writer = None

    def _is_writing(self) -> bool:
        """Whether it is we who change the caption; somebody may leave the field while a worker shows another one."""
        return self._writer == threading.get_ident()

    def say(self, html: str) -> None:
        """Say here what became of its caption: the widget's notice may be far up."""
        self.answer = html


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"...{name[-most + 3 :]}"
