"""LoraPlayground: draw a prompt with LoRAs at any scale, beside the same picture without them.

In: LoRA files, run folders or Runs, one or several. Out: a widget with prompt, seed, steps, guidance, a scale slider
and a weight for each LoRA. `playground.draw()` draws at once and returns the pictures, `playground.figure()` is both
as a matplotlib Figure.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import traitlets
from ipywidgets import Button, Checkbox, FloatSlider, FloatText, HBox, IntText, Layout, Text, VBox

from ..config import TrainConfig
from ..errors import ConfigError
from ..generation import EMBEDDED_BASE, Cell, PictureGrid, compare, generate, load_base
from ..lora import LoraFile
from ..sources import Source
from .downloads import DownloadButton
from .pictures import BeforeAfter, thumbnail
from .theme import style_sheet
from .twin import Twin
from .watching import Notice, Worker, check_traits

LARGE = 512  # pixels sent of a picture
FIRST, SECOND = "without LoRA", "with LoRA"


class LoraPlayground(Twin, VBox):
    """Prompt, seed, steps, guidance and scale in; the picture with and without the LoRAs out. See the module."""

    prompt = traitlets.Unicode(help="What to draw.")
    seed = traitlets.Int(0, help="Seed of the picture.")
    steps = traitlets.Int(20, min=1, max=1000, help="Denoising steps.")
    guidance = traitlets.Float(5.0, min=0.0, max=100.0, help="Guidance scale.")
    scale = traitlets.Float(1.0, help="Scale of all LoRAs together; 0 is the base.")
    weights = traitlets.Tuple(help="Weight of each LoRA beside the others.")
    pictures = traitlets.Instance(PictureGrid, allow_none=True, help="What was drawn last, without and with LoRAs.")

    def __init__(self, loras: Any, base: Any = None, **traits: Any):
        check_traits(type(self), traits, also=("loras", "base"))
        listed = loras if isinstance(loras, Sequence) and not isinstance(loras, str) else [loras]
        self.loras = [LoraFile(getattr(lora, "folder", getattr(lora, "path", lora))) for lora in listed]
        self._base, self._notice, self._work, self._plain = base or base_of(self.loras), Notice(), Worker(), {}
        super().__init__()
        self.weights = (1.0,) * len(self.loras)
        self.prompt = trigger_of(self.loras)
        self.set_trait("seed", 0)
        for name, value in traits.items():
            setattr(self, name, value)
        self._controls()
        self.observe(self._notice.guard(lambda change: self._redraw()), ["scale", "weights"])

    def _controls(self) -> None:
        wide = {"description_width": "80px"}
        prompt = Text(description="Prompt", style=wide, layout=Layout(width="100%"), continuous_update=False)
        seed = IntText(description="Seed", style=wide, layout=Layout(width="170px"))
        steps = IntText(description="Steps", style={"description_width": "50px"}, layout=Layout(width="130px"))
        guidance = FloatText(description="Guidance", step=None, style=wide, layout=Layout(width="170px"))
        scale = FloatSlider(min=0, max=2, step=0.05, description="LoRA scale", style=wide, continuous_update=False)
        for control, name in ((prompt, "prompt"), (seed, "seed"), (steps, "steps"), (guidance, "guidance")):
            traitlets.link((self, name), (control, "value"))
        traitlets.link((self, "scale"), (scale, "value"))
        self._weights = [self._weight(number) for number in range(len(self.loras))] if len(self.loras) > 1 else []
        draw = Button(description="Draw", button_style="primary", icon="paint-brush", tooltip="Draw the picture")
        draw.on_click(self._notice.guard(lambda _: self._redraw()))
        self._auto = Checkbox(value=True, description="draw when a slider moves", indent=False)
        self._pair = BeforeAfter(labels=[FIRST, SECOND], side=384)
        self._downloads = [
            DownloadButton("Picture", "lora.png", self._png, self._notice.fail, disabled=True),
            DownloadButton("Settings", "lora.json", self._json, self._notice.fail, disabled=True),
        ]
        numbers = HBox([seed, steps, guidance], layout=Layout(flex_flow="row wrap"))
        left = VBox([prompt, numbers, scale, *self._weights, HBox([draw, self._auto, *self._downloads])])
        left.layout.flex = "1 1 380px"
        both = HBox([left, self._pair], layout=Layout(flex_flow="row wrap", grid_gap="16px"))
        self.children = [style_sheet(), both, self._notice]
        self.add_class("sdxl-nb")

    def _weight(self, number: int) -> FloatSlider:
        name = name_of(self.loras[number])
        slider = FloatSlider(
            value=1.0,
            min=-1,
            max=2,
            step=0.05,
            description=name,
            tooltip=f"Weight of {name}",
            style={"description_width": "160px"},
            continuous_update=False,
        )

        def changed(change: Any) -> None:
            self.weights = tuple(w.value for w in self._weights)

        slider.observe(self._notice.guard(changed), "value")
        return slider

    def _redraw(self) -> None:
        if self._auto.value or self.pictures is None:
            self._work.start(self._notice.guard(self.draw))

    def draw(self) -> PictureGrid:
        """Draw with the settings as they are, and show it; the picture without LoRA is drawn once for a prompt."""
        if not self.prompt.strip():
            raise ConfigError("There is no prompt: say what to draw.")
        self._notice.say("Drawing ..." if not isinstance(self._base, str | Source) else "Loading the base model ...")
        self._base = load_base(self._base)
        settings = (self.prompt, self.seed, self.steps, self.guidance)
        if settings not in self._plain:
            self._plain = {settings: self._generate(None, 1.0)}
        loras = dict(zip(self.loras, self.weights, strict=True))
        self.pictures = compare(self._plain[settings], self._generate(loras, self.scale), (FIRST, SECOND))
        self._show()
        self._notice.say(f"Seed {self.seed}, scale {self.scale:g}.")
        return self.pictures

    def _generate(self, loras: Any, scale: float) -> PictureGrid:
        numbers = {"num_inference_steps": self.steps, "guidance_scale": self.guidance, "progress": False}
        drawn = generate(self._base, loras, [self.prompt], scales=(scale,), seeds=(self.seed,), **numbers)
        return PictureGrid({Cell(cell.prompt, "", cell.seed): picture for cell, picture in drawn.pictures.items()})

    def _show(self) -> None:
        self._pair.before, self._pair.after = (thumbnail(self.pictures.at(0, label), LARGE) for label in (0, 1))
        for button in self._downloads:
            button.disabled = False

    def _png(self) -> bytes:
        buffer = io.BytesIO()
        self.pictures.at(0, 1).save(buffer, "PNG", pnginfo=self._stamp())
        return buffer.getvalue()

    def _json(self) -> bytes:
        return json.dumps(self.settings(), indent=1, ensure_ascii=False).encode()

    def settings(self) -> dict[str, Any]:
        """What the picture shown was drawn with: enough to draw it again with `generate`."""
        loras = {name_of(lora): weight for lora, weight in zip(self.loras, self.weights, strict=True)}
        names = ("prompt", "seed", "steps", "guidance", "scale")
        return {name: getattr(self, name) for name in names} | {"loras": loras}

    def _stamp(self) -> Any:
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("sdxl_nb", json.dumps(self.settings(), ensure_ascii=False))
        return info

    def save(self, folder: str | Path) -> Path:
        """Write the picture shown as PNG, and its settings as JSON beside it; returns the picture's path."""
        if self.pictures is None:
            raise ConfigError("There is no picture to save yet: draw one first.")
        path = Path(folder) / f"{name_of(self.loras[0])}-{self.seed}-{self.scale:g}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._png())
        path.with_suffix(".json").write_bytes(self._json())
        return path

    def twin(self) -> Any:
        """What was drawn last; nothing is drawn for it."""
        return self.pictures and self.figure()

    def figure(self) -> Any:
        """The picture without and with the LoRAs as a matplotlib Figure; draws it if nothing is drawn yet."""
        return (self.pictures or self.draw()).figure(f"{self.prompt} (seed {self.seed}, scale {self.scale:g})")


def base_of(loras: Sequence[LoraFile]) -> Any:
    """The base model of the first LoRA: that of the run it lies in, else what its header names, else the embedded one.

    A header holds no path of the machine that trained it, so only the run itself knows a base in a local folder.
    """
    for folder in loras[0].path.resolve().parents[:2] if loras else ():
        if (folder / "config.json").is_file():
            return Source.of(TrainConfig.load(folder / "config.json"))
    config = loras[0].info().config if loras else None
    return (config or {}).get("pretrained_model_name_or_path") or EMBEDDED_BASE


def trigger_of(loras: Sequence[LoraFile]) -> str:
    """A first prompt: the trigger words that the LoRAs' headers name."""
    return ", ".join(words for lora in loras if (words := lora.info().trigger_words))


def name_of(lora: LoraFile) -> str:
    """What to call a LoRA: its file, or its folder where the file has the name that all have."""
    return lora.path.parent.name if lora.path.stem == "pytorch_lora_weights" else lora.path.stem
