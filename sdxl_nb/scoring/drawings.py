"""The pictures that scores look at, drawn once and kept: of each stage, for each prompt and seed.

In: the stages of a run. Out: PNG files in scores/step-N/, each named by a key of all that decides how it looks; what
lacks is drawn, what is there is read.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.identity import combined, contents
from ..cache.latents import cache_folder
from ..config.layout import LORA, SCORES
from ..data.file_facts import Memo
from ..drawing.generation import at_once, generate
from ..models.objective.base_objective import of_config
from ..models.sources import Source
from ..runs.stages import Stages, loaded
from ..system.errors import SdxlNbError
from ..system.keys import key_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..config.train_config import TrainConfig

Wanted = tuple[int, str, int]  # step, prompt, seed


class Drawings:
    """Pictures of a run's stages; step 0 is the bare base."""

    def __init__(self, stages: Stages, memo: Memo):
        self.stages, self.config, self._memo = stages, stages.run.config, memo
        size = {"height": self.config.resolution, "width": self.config.resolution}
        self.settings: dict[str, Any] = {
            "num_inference_steps": self.config.validation_inference_steps,
            "guidance_scale": self.config.validation_guidance_scale,
            **size,
        }
        self.base = base_identity(self.config, memo)
        self._loras: dict[int, str] = {}

    def identity(self, step: int) -> str:
        """What decides how a stage draws: the base, the LoRA, and the settings."""
        if step not in self._loras:
            self._loras[step] = self._memo.file_digest(self._folder(step) / LORA).hex() if step else "base"
        return combined(self.base, self._loras[step], json.dumps(self.settings))

    def _folder(self, step: int) -> Path:
        folder = self.stages.lora_folder(step)
        if folder is None:
            raise SdxlNbError(f"The LoRA of step {step} is not there any more.")
        return folder

    def path(self, wanted: Wanted) -> Path:
        """Where a picture lies, or will."""
        step, prompt, seed = wanted
        name = key_of(self.identity(step), prompt, seed).hex()
        return self.stages.run.folder / SCORES / f"step-{step}" / f"{name}.png"

    def missing(self, wanted: Iterable[Wanted]) -> list[Wanted]:
        """Those that are not drawn yet."""
        return [one for one in dict.fromkeys(wanted) if not self.path(one).is_file()]

    def draw(self, wanted: Sequence[Wanted], told: Callable[[int, int], None]) -> None:
        """Draw what is missing of these, a few at a time, each kept at once; `told` of (done, total)."""
        missing, done = self.missing(wanted), 0
        pipeline = loaded(self.config) if missing else None
        together = at_once(self.settings["height"], self.settings["width"])
        for step, prompts, seeds in portions(missing, together):
            lora = self._folder(step) if step else None
            grid = generate(pipeline, lora, prompts, seeds=seeds, progress=False, **self.settings)
            for prompt in prompts:
                for seed in seeds:
                    _write(grid.at(prompt, 0, seed), self.path((step, prompt, seed)))
            done += len(prompts) * len(seeds)
            told(done, len(missing))

    def rows(self, step: int, prompts: Sequence[str], seeds: Sequence[int]) -> "list[list[Image]]":
        """The pictures [prompt][seed] of a stage."""
        return [[_read(self.path((step, prompt, seed))) for seed in seeds] for prompt in prompts]


def portions(wanted: Sequence[Wanted], together: int) -> list[tuple[int, list[str], list[int]]]:
    """Steps with prompts × seeds to draw in one go, about so many pictures each."""
    rows: dict[tuple[int, str], list[int]] = {}
    for step, prompt, seed in wanted:
        rows.setdefault((step, prompt), []).append(seed)
    found: list[tuple[int, list[str], list[int]]] = []
    for (step, prompt), seeds in rows.items():
        last = found[-1] if found else (step, [], [])
        if last[0] == step and last[2] == seeds and (len(last[1]) + 1) * len(seeds) <= together:
            last[1].append(prompt)
        else:
            found.append((step, [prompt], seeds))
    return found


def base_identity(config: "TrainConfig", memo: Memo) -> str:
    """A digest of the base: of its files where they are here, else of its name and revision."""
    source = Source.of(config)
    about: list[object] = [config.prediction_type, config.rescale_betas_zero_snr, config.flow_shift]
    about += [f"clip skip {config.clip_skip}"] if config.clip_skip != 2 else []
    if Path(source.location).exists():
        about += sorted(contents(source, of_config(config), memo).items())
    else:
        about += [source.name, source.revision, source.vae]
    about += [(memo.file_digest(Path(file)).hex() if Path(file).is_file() else file, s) for file, s in source.loras]
    return hashlib.sha256(repr(about).encode()).hexdigest()


def memo_of(config: "TrainConfig") -> Memo:
    """What is known of files, beside the run's caches."""
    return Memo(cache_folder(config))


def _read(path: Path) -> "Image":
    from PIL import Image

    with Image.open(path) as picture:
        return picture.convert("RGB")


def _write(picture: "Image", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    picture.save(draft, format="PNG")
    draft.replace(path)
