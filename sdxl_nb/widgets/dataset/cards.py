"""One captioned picture as a card: what training sees of it, its caption in tokens, and the caption to correct.

In: a picture of a data set and a TrainConfig. Out: a widget. The crop is that of the cached latents, the middle one:
what lies outside it is dimmed.
"""

from collections.abc import Callable
from html import escape
from typing import Any, NamedTuple

from ipywidgets import HTML, Button, HBox, Layout, Textarea, VBox
from PIL import Image, ImageDraw, ImageEnhance

from ...config.train_config import TrainConfig
from ...data.crops import Crop, plan_crop
from ..parts.pictures import PictureButton, thumbnail

WIDTH = 216  # CSS pixels of a card
SHOWN = 448  # pixels of a thumbnail's longer side at most
TEXT = "line-height:1.35;overflow-wrap:anywhere"  # how what a card says is set
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


def with_crop(picture: Image.Image, crop: Crop) -> Image.Image:
    """A small copy of the picture, dimmed outside its crop, which has a thin frame."""
    scale = SHOWN / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.resize(
        (width, height), Image.Resampling.LANCZOS, reducing_gap=2.0
    )  # a fifth of the time for a camera's
    scale = SHOWN / max(crop.original_size)  # of which the picture may have half
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


def card(
    name: str,
    caption: str,
    picture: Image.Image | None,
    crop: Crop | None,
    words: Words | None,
    save: Callable[[str], object] | None,
    complaint: str = "",
    harmless: bool = False,
) -> VBox:
    """The card; `picture` is None where it cannot be read, `save` where the caption cannot be changed.

    A `harmless` complaint is not in the colour of errors. `answer` of the card is what is said of its caption.
    """
    shown = picture if picture is None or crop is None else with_crop(picture, crop)
    alt = f"{name}: {shortened(caption)}"
    image = PictureButton(value=b"" if shown is None else thumbnail(shown, SHOWN), alt=alt, side=WIDTH)
    about = "cannot be read" if picture is None else f"{picture.width} × {picture.height}"
    if crop is not None:
        about += f" → {crop.target_size[1]} × {crop.target_size[0]}"
    lines = [f"<b title='{escape(name)}'>{escape(_short(name))}</b>", about, words_line(words)]
    if complaint:
        told = f'<span title="{escape(complaint)}">{escape(shortened(complaint, 2 * SAID))}</span>'
        lines.append(told if harmless else coloured(told))
    text = HTML(f"<div style='{TEXT}'>{'<br>'.join(filter(None, lines))}</div>")
    answer = HTML()
    editor = _editor(name, caption, save, answer)
    whole = VBox([image, text, *editor], layout=Layout(width=f"{WIDTH + 8}px", margin="0 0 10px 0"))
    whole.name, whole.caption, whole.editor, whole.answer = name, caption, editor[0], answer
    return whole


def answer(card: VBox, html: str) -> None:
    """Say on the card itself what became of its caption: the widget's notice may be far up."""
    card.answer.value = f"<div style='{TEXT}'>{html}</div>"


def keep(old: VBox, new: VBox) -> None:
    """What was typed and not saved, and what was said of it: a card is built again under somebody's hands."""
    if old.editor.value != old.caption:
        new.editor.value = old.editor.value
    new.answer.value = old.answer.value


def _editor(name: str, caption: str, save: Callable[[str], object] | None, answer: HTML) -> list[Any]:
    wide = Layout(width=f"{WIDTH}px", height="64px")
    box = Textarea(value=caption, disabled=save is None, layout=wide, tooltip=f"Caption of {name}")
    if save is None:
        return [box]
    button = Button(description="Save caption", disabled=True, layout=Layout(width="110px"))

    def typed(change: Any) -> None:
        button.disabled, answer.value = box.value == caption, ""

    box.observe(typed, "value")
    button.on_click(lambda _: save(box.value))
    return [box, HBox([button]), answer]


def _short(name: str, most: int = 30) -> str:
    return name if len(name) <= most else f"...{name[-most + 3 :]}"
