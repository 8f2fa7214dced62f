"""LoraPlayground: draw a prompt with LoRAs at any scale, beside the same picture without them.

In: LoRA files, run folders or Runs, one or several. Out: a widget with prompt, seed, steps, guidance, a scale slider
and a weight for each LoRA. `playground.draw()` draws at once and returns the pictures, `playground.figure()` is both
as a matplotlib Figure.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets
from ipywidgets import HTML, Button, Checkbox, FloatText, HBox, IntText, Layout, Text, VBox

from ...drawing.generation import PictureGrid
from ...system.errors import ConfigError
from ..parts.children import replace
from ..parts.downloads import DownloadButton
from ..parts.pictures import BeforeAfter, thumbnail
from ..parts.theme import style_sheet
from ..parts.twin import Twin
from ..parts.watching import Notice, Worker, check_traits
from .controls import bind
from .drawing import FIRST, SECOND, Drawing, Painter, Settings, lora_of, names_of, trigger_of
from .sliders import Slider

if TYPE_CHECKING:
    from ...system.figures import Sheet

LARGE = 512  # pixels sent of a picture
NOTHING = "Nothing is drawn yet: press Draw to see the prompt without and with LoRA."


class LoraPlayground(Twin, VBox):
    """Prompt, seed, steps, guidance and scale in; the picture with and without the LoRAs out. See the module."""

    prompt = traitlets.Unicode(help="What to draw.")
    seed = traitlets.Int(0, min=0, max=2**32 - 1, help="Seed of the picture.")
    steps = traitlets.Int(20, min=1, max=1000, help="Denoising steps.")
    guidance = traitlets.Float(5.0, min=0.0, max=100.0, help="Guidance scale.")
    scale = traitlets.Float(1.0, help="Scale of all LoRAs together; 0 is the base.")
    weights = traitlets.Tuple(help="Weight of each LoRA beside the others.")
    pictures = traitlets.Instance(PictureGrid, allow_none=True, help="What was drawn last, without and with LoRAs.")

    def __init__(self, loras: Any, base: Any = None, **traits: Any):
        check_traits(type(self), traits, also=("loras", "base"))
        listed = loras if isinstance(loras, Sequence) and not isinstance(loras, str) else [loras]
        self.loras = [lora_of(lora) for lora in listed]
        self._names, self._painter = names_of(self.loras), Painter(self.loras, base)
        self._notice, self._work = Notice(), Worker()
        self._drawing: Drawing | None = None
        super().__init__()
        self.weights = (1.0,) * len(self.loras)
        self.prompt = trigger_of(self.loras)
        for name, value in traits.items():
            setattr(self, name, value)
        self._controls()
        self.observe(self._notice.guard(lambda change: self._moved()), ["scale", "weights"])

    def _controls(self) -> None:
        wide = {"description_width": "80px"}
        prompt = Text(description="Prompt", style=wide, layout=Layout(width="auto"), continuous_update=False)
        seed = IntText(description="Seed", style=wide, layout=Layout(width="160px"))
        steps = IntText(description="Steps", style={"description_width": "45px"}, layout=Layout(width="110px"))
        narrow = {"style": {"description_width": "70px"}, "layout": Layout(width="140px")}
        guidance = FloatText(description="Guidance", step=None, **narrow)
        several = len(self.loras) > 1  # then each has a weight, by a name that may be long
        room = 160 if several else 80
        scale = Slider(description="LoRA scale", room=room)
        self._weights = [Slider(description=name, min=-1, room=room) for name in self._names if several]
        self._refused = HTML()
        say = partial(self._refused.set_trait, "value")
        for control in (prompt, seed, steps, guidance):
            bind(self, control.description.lower(), control, say)
        bind(self, "scale", scale, say)
        for place, slider in enumerate(self._weights):
            bind(self, "weights", slider, say, place)
        draw = Button(description="Draw", button_style="primary", icon="paint-brush", tooltip="Draw the picture")
        draw.layout.width = "100px"
        draw.on_click(self._notice.guard(lambda _: self._start()))
        often = {"indent": False, "layout": Layout(width="auto")}
        self._auto = Checkbox(value=True, description="draw when a slider moves", **often)
        self._pair = BeforeAfter(labels=[FIRST, SECOND], side=384)
        self._downloads = [
            DownloadButton(
                "Download picture", "lora.png", lambda: self._drawn().png(), self._notice.fail, disabled=True
            ),
            DownloadButton(
                "Download settings", "lora.json", lambda: self._drawn().json(), self._notice.fail, disabled=True
            ),
        ]
        for button in self._downloads:
            button.layout.margin = "2px"  # as the other controls have it
        numbers = HBox([seed, steps, guidance, self._refused], layout=Layout(flex_flow="row wrap", grid_gap="0 6px"))
        buttons = HBox([draw, self._auto, *self._downloads], layout=Layout(flex_flow="row wrap", grid_gap="4px 8px"))
        self._left = VBox([prompt, numbers, scale, *self._weights, buttons], layout=Layout(flex="1 1 380px"))
        nothing = HTML(f'<div class="sdxl-nb-hint">{NOTHING}</div>', layout=Layout(flex="0 1 384px"))
        self._both = HBox([self._left, nothing], layout=Layout(flex_flow="row wrap", grid_gap="16px"))
        self.children = [style_sheet(), self._both, self._notice]
        self.add_class("sdxl-nb")

    @traitlets.validate("weights")
    def _one_each(self, proposal: Any) -> tuple[float, ...]:
        """A number for each LoRA."""
        given, count = proposal["value"], len(self.loras)
        if len(given) != count or not all(isinstance(w, Real) and math.isfinite(w) for w in given):
            raise traitlets.TraitError(f"weights must be one number for each LoRA, {count} in all, not {given}.")
        return tuple(map(float, given))

    def _moved(self) -> None:
        if self._auto.value:
            self._start()

    def _start(self) -> None:
        self._work.start(self._notice.guard(self.draw))

    def draw(self) -> PictureGrid:
        """Draw with the settings as they are, and show it. Raises SdxlNbError."""
        self._show(self._painter.draw(self._wanted(), self._notice.say))
        return self.pictures

    def _wanted(self) -> Settings:
        """The settings as they are now."""
        loras = dict(zip(self._names, self.weights, strict=True))
        return Settings(self.prompt, self.seed, self.steps, self.guidance, self.scale, loras)

    def _show(self, drawing: Drawing) -> None:
        self._drawing, self.pictures = drawing, drawing.pictures
        before, after = (drawing.pictures.at(0, label) for label in (FIRST, SECOND))
        self._pair.before, self._pair.after = thumbnail(before, LARGE), thumbnail(after, LARGE)
        self._pair.alt = drawing.settings.prompt
        replace(self._both, [self._left, self._pair])
        for button in self._downloads:
            button.disabled = False
        self._notice.say(f"{str(drawing.settings).capitalize()}.")

    def settings(self) -> dict[str, Any]:
        """What the picture shown was drawn with, enough to draw it again with `generate`; before that, the controls."""
        return asdict(self._drawing.settings if self._drawing else self._wanted())

    def save(self, folder: str | Path) -> Path:
        """Write the picture shown as PNG, and its settings as JSON beside it; returns the picture's path."""
        return self._drawn().save(folder)

    def _drawn(self) -> Drawing:
        """What was drawn last. Raises ConfigError when nothing was."""
        if self._drawing is None:
            raise ConfigError("There is no picture to save yet: draw one first.")
        return self._drawing

    def twin(self) -> "Sheet | None":
        """What was drawn last; nothing is drawn for it."""
        return self._drawing.figure() if self._drawing else None

    def figure(self) -> "Sheet":
        """The picture without and with the LoRAs as a matplotlib Figure; draws it if nothing is drawn yet."""
        if self._drawing is None:
            self.draw()
        return self._drawn().figure()
