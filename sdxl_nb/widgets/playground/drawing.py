"""A picture with LoRAs beside the same one without, and the settings that both were drawn with.

In: a base model, LoRA files and `Settings`. Out: a `Drawing`: the two pictures, and the PNG and JSON that are saved of
them. What is typed or moved while it is drawn, or later, changes none of that.
"""

import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.train_config import TrainConfig
from ...drawing.generation import EMBEDDED_BASE, Cell, PictureGrid, compare, generate, load_base
from ...lora.files.file import LoraFile
from ...models.sources import Source
from ...runs.run import Run
from ...system.errors import ConfigError

if TYPE_CHECKING:
    from ...system.figures import Sheet

FIRST, SECOND = "without LoRA", "with LoRA"


@dataclass(frozen=True)
class Settings:
    """Everything that a drawing depends on beside the base; `loras` are the names of the LoRAs with their weights."""

    prompt: str
    seed: int
    steps: int
    guidance: float
    scale: float
    loras: dict[str, float]

    def __str__(self) -> str:
        return f"seed {self.seed}, scale {self.scale:g}"


@dataclass(frozen=True)
class Drawing:
    """Two pictures and what they were drawn with."""

    settings: Settings
    pictures: PictureGrid

    def png(self) -> bytes:
        """The picture with LoRAs as PNG, its settings in a text named sdxl_nb."""
        from PIL.PngImagePlugin import PngInfo

        told, buffer = PngInfo(), io.BytesIO()
        told.add_itxt("sdxl_nb", json.dumps(asdict(self.settings), ensure_ascii=False))
        self.pictures.at(0, SECOND).save(buffer, "PNG", pnginfo=told)
        return buffer.getvalue()

    def json(self) -> bytes:
        """The settings as JSON."""
        return json.dumps(asdict(self.settings), indent=1, ensure_ascii=False).encode()

    def save(self, folder: str | Path) -> Path:
        """Write the PNG, and the JSON beside it; returns the path of the PNG."""
        settings = self.settings
        path = Path(folder) / f"{next(iter(settings.loras))}-{settings.seed}-{settings.scale:g}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.png())
        path.with_suffix(".json").write_bytes(self.json())
        return path

    def figure(self) -> "Sheet":
        """Both pictures as a matplotlib Figure."""
        return self.pictures.figure(f"{self.settings.prompt} ({self.settings})")


class Painter:
    """Draws with some LoRAs; the base is loaded once, and the picture without LoRA drawn once for a prompt."""

    def __init__(self, loras: Sequence[LoraFile], base: Any = None):
        self.loras, self.base = loras, base or base_of(loras)
        self._plain: dict[tuple[str, int, int, float], PictureGrid] = {}
        self._lock = threading.Lock()  # a button and a cell may both ask

    def draw(self, settings: Settings, say: Callable[[str], object]) -> Drawing:
        """The Drawing of these settings; `say` hears what takes long. Raises SdxlNbError."""
        if not settings.prompt.strip():
            raise ConfigError("There is no prompt: say what to draw.")
        with self._lock:
            say("Drawing ..." if not isinstance(self.base, str | Source) else "Loading the base model ...")
            self.base = load_base(self.base)
            common = (settings.prompt, settings.seed, settings.steps, settings.guidance)
            if common not in self._plain:
                self._plain = {common: self._generate(settings, None)}
            loras = dict(zip(self.loras, settings.loras.values(), strict=True))
            with_loras = self._generate(settings, loras)
        return Drawing(settings, compare(self._plain[common], with_loras, (FIRST, SECOND)))

    def _generate(self, settings: Settings, loras: Mapping[LoraFile, float] | None) -> PictureGrid:
        numbers: dict[str, Any] = {
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance,
            "progress": False,
        }
        scales, seeds = (settings.scale,), (settings.seed,)
        drawn = generate(self.base, loras, [settings.prompt], scales=scales, seeds=seeds, **numbers)
        return PictureGrid({Cell(cell.prompt, "", cell.seed): picture for cell, picture in drawn.pictures.items()})


def lora_of(given: Run | LoraFile | str | Path) -> LoraFile:
    """The LoRA of a run (its newest checkpoint's while none is finished), a file or a folder. Raises SdxlNbError."""
    if isinstance(given, LoraFile):
        return given
    if not isinstance(given, Run) and (Path(given) / "run.json").is_file():
        given = Run.open(given)
    return given.lora if isinstance(given, Run) else LoraFile(given)


def base_of(loras: Sequence[LoraFile]) -> Source | str:
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


def names_of(loras: Sequence[LoraFile]) -> list[str]:
    """What to call LoRAs: by the file, or the folder of a file named as all are; numbered where two are alike."""
    names: list[str] = []
    for lora in loras:
        name = lora.path.parent.name if lora.path.stem == "pytorch_lora_weights" else lora.path.stem
        names.append(f"{name} {len(names) + 1}" if name in names else name)
    return names
