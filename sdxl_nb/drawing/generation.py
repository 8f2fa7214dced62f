"""Pictures from a base model and LoRAs: prompts x scales x seeds, shown as one grid.

In: the name of a base (or a ready pipeline), LoRA files, prompts. Out: a `PictureGrid`, which Jupyter displays, whose
`.figure()` is a matplotlib figure and whose pictures are ordinary PIL images. Every picture has its own generator on
the CPU, so it depends on its prompt, scale and seed alone: not on batching, nor on what was drawn before.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config.precedence import DEFAULT_BASE, DEFAULT_VAE
from ..data.words.syntax import said_syntax
from ..system.errors import ConfigError, ModelError
from ..system.memory import give_back
from ..system.remarks import remark

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..lora.files.file import LoraFile
    from ..lora.layers import LoraWeights
    from ..models.objective.base_objective import BaseObjective
    from ..models.sources import Source
    from ..system.figures import Sheet

    Lora = str | os.PathLike[str] | LoraFile | LoraWeights

EMBEDDED_BASE = "embedded:tiny-sdxl"
MOST_ACROSS = 6  # prompts side by side in a figure
MOST_AT_ONCE = 8  # pictures
DRAWING = 3 * 2**30  # bytes that drawing takes on a GPU beside the weights: one picture of 1024 px, and its decoding


class Cell(NamedTuple):
    """The place of one picture: prompt, label of the column (such as a scale), seed."""

    prompt: str
    label: str
    seed: int


@dataclass(frozen=True)
class PictureGrid:
    """Pictures by prompt (rows), label (columns) and seed; `pictures` maps Cell -> PIL image, in order."""

    pictures: "dict[Cell, Image]"

    @property
    def prompts(self) -> list[str]:
        return list(dict.fromkeys(cell.prompt for cell in self.pictures))

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(cell.label for cell in self.pictures))

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(cell.seed for cell in self.pictures))

    def __repr__(self) -> str:
        sizes = f"{len(self.prompts)} prompts x {len(self.labels)} columns x {len(self.seeds)} seeds"
        return f"PictureGrid({len(self.pictures)} pictures: {sizes})"

    def at(self, prompt: str | int = 0, label: str | int = 0, seed: int | None = None) -> "Image":
        """One picture, by value or (prompt, label) by number; the first seed unless given."""
        prompt = self.prompts[prompt] if isinstance(prompt, int) else prompt
        label = self.labels[label] if isinstance(label, int) else label
        return self.pictures[Cell(prompt, label, self.seeds[0] if seed is None else seed)]

    def figure(self, title: str | None = None) -> "Sheet":
        """A matplotlib Figure: a row per prompt, its seeds side by side, or a column per prompt where that is wider."""
        from ..system.figures import picture_sheet

        columns = [(label, seed) for label in self.labels for seed in self.seeds]
        rows = [[self.pictures.get(Cell(prompt, *column)) for column in columns] for prompt in self.prompts]
        names = [label if len(self.seeds) == 1 else f"{label}\nseed {seed}" for label, seed in columns]
        if len(columns) < len(rows) <= MOST_ACROSS:
            turned = [list(row) for row in zip(*rows, strict=True)]
            return picture_sheet(turned, above=self.prompts, beside=names, title=title)
        return picture_sheet(rows, above=names, beside=self.prompts, title=title)

    def _repr_png_(self) -> bytes:
        return self.figure()._repr_png_()

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write every picture as PP-LL-SEED.png (numbers of prompt and label), and pictures.json that names them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = {}
        for cell, picture in self.pictures.items():
            name = f"{self.prompts.index(cell.prompt):02d}-{self.labels.index(cell.label):02d}-{cell.seed}.png"
            picture.save(folder / name)
            names[name] = cell._asdict()
        (folder / "pictures.json").write_text(json.dumps(names, indent=1), encoding="utf-8")
        return [folder / name for name in names]


def compare(before: PictureGrid, after: PictureGrid, labels: Sequence[str] = ("before", "after")) -> PictureGrid:
    """Two grids side by side, matched by prompt and seed."""
    if len(labels) != 2 or labels[0] == labels[1]:
        raise ConfigError("compare needs two different labels, such as ('before', 'after').")
    pictures = {}
    for grid, label in zip((before, after), labels, strict=True):
        for cell, picture in grid.pictures.items():
            inner = label if len(grid.labels) == 1 else f"{label} {cell.label}"
            pictures[Cell(cell.prompt, inner, cell.seed)] = picture
    return PictureGrid(pictures)


def generate(
    base: Any = EMBEDDED_BASE,
    lora: "Lora | Sequence[Lora | tuple[Lora, float]] | Mapping[Any, float] | None" = None,
    prompts: str | Iterable[str] = (),
    scales: Iterable[float] = (1.0,),
    seeds: int | Iterable[int] = (0,),
    *,
    num_inference_steps: int = 25,
    guidance_scale: float = 5.0,
    height: int | None = None,
    width: int | None = None,
    negative_prompt: str | None = None,
    clip_skip: int | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> PictureGrid:
    """Draw every prompt at every LoRA scale with every seed.

    `base`: embedded:tiny-sdxl, a hub id, a folder, a checkpoint, or a ready StableDiffusionXLPipeline (left as it
    came). `lora`: a file, run folder or LoraFile; a list or {lora: weight} of several, each multiplied by the scale.
    Pictures are drawn by the base's own scheduler; a LoRA whose header says that it was trained for another objective
    is drawn for that, and prompts are read at the layer of the text encoders that it says (`clip_skip`, counted as the
    setting), unless one is given. Scale 0 gives the base's pictures exactly. `batch_size` pictures are drawn at once,
    by default eight small ones or one from 512 x 512 pixels on. ConfigError for empty or repeated lists, ModelError for
    the files.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    scales = [float(scale) for scale in scales] if lora is not None else [0.0]
    seeds = [] if isinstance(seeds, str) else [int(seed) for seed in ((seeds,) if isinstance(seeds, int) else seeds)]
    for name, values in (("prompts", prompts), ("scales", scales), ("seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise ConfigError(f"generate: {name} must be a list of different values, and not empty.")
    if num_inference_steps < 1 or (batch_size is not None and batch_size < 1):
        raise ConfigError("generate: batch_size and num_inference_steps must be 1 or more.")
    if any(side is not None and (side < 8 or side % 8) for side in (height, width)):
        raise ConfigError(f"generate: height and width must be multiples of 8, not {height} and {width}.")
    if not 0 <= guidance_scale < float("inf") or not all(-(2**63) <= seed < 2**63 for seed in seeds):
        raise ConfigError("generate: guidance_scale must be 0 or more, and seeds below 2 to the power of 63.")
    if clip_skip is not None and clip_skip < 1:
        raise ConfigError("generate: clip_skip must be 1 or more, counted from the last layer; 2 is SDXL's own.")
    if said := said_syntax([*prompts, negative_prompt], "generate"):
        remark(said)
    settings: dict[str, Any] = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
    settings |= {"height": height, "width": width}
    pipeline = load_base(base)
    batch_size = batch_size or at_once(*_size(pipeline, height, width))
    with _attached(pipeline, lora, clip_skip) as attached:
        return _draw_all(pipeline, attached, prompts, scales, seeds, settings, negative_prompt, batch_size, progress)


def load_base(base: Any, objective: "BaseObjective | None" = None, clip_skip: int = 2) -> Any:
    """A pipeline that is ready to draw: fp16 on a CUDA GPU, fp32 on the CPU; a ready one is given back.

    It draws as `objective` says, by default as the base says of itself, and `generate` reads prompts at `clip_skip`.
    Where the GPU has no room for the whole base, its models come there one after the other.
    """
    import torch

    from ..models.loading import load_pipeline
    from ..models.sources import Source

    if not isinstance(base, str | os.PathLike | Source):
        return base
    source = base if isinstance(base, Source) else source_of(str(base))
    on_gpu = torch.cuda.is_available()
    pipeline = _with_loras(load_pipeline(source, torch.float16 if on_gpu else torch.float32, objective), source)
    pipeline.reads_at = clip_skip
    if not on_gpu:
        return pipeline
    pipeline.vae.enable_slicing()  # decodes one by one
    give_back()
    if fits(_bytes_of(pipeline), torch.cuda.mem_get_info()[0]):
        return pipeline.to("cuda")
    pipeline.enable_model_cpu_offload(torch.cuda.current_device())
    return pipeline


def _with_loras(pipeline: Any, source: "Source") -> Any:
    """The pipeline with the frozen LoRAs of its base in its weights."""
    from ..lora.fusing import add_to_weights

    for file, scale in source.loras:
        add_to_weights(pipeline, file, scale)
    pipeline.frozen_loras = len(source.loras)
    return pipeline


def _say_what_lacks(pipeline: Any, headers: Sequence[Mapping[str, str]]) -> None:
    """Warn where LoRAs were trained on top of frozen ones that this pipeline's base does not have."""
    from ..config.header import config_from_header

    with contextlib.suppress(ModelError):  # of others, whose headers say nothing of the kind
        below = [each for header in headers for each in config_from_header(header).get("base_lora") or ()]
        if below and not getattr(pipeline, "frozen_loras", 0):
            warnings.warn(
                f"The LoRA was trained on top of {', '.join(map(str, below))}, which the base that draws does not "
                "have: give those LoRAs too, at their scales.",
                stacklevel=4,
            )


def source_of(name: str) -> "Source":
    """The source of a base given by name alone: the default base has the VAE that training gives it, safe in fp16."""
    from ..models.sources import Source

    return Source(name, DEFAULT_VAE if name == DEFAULT_BASE else None)


def fits(weights: int, free: int) -> bool:
    """Whether a GPU with so many bytes free has room for these weights and for drawing with them."""
    return weights + DRAWING <= free


def at_once(height: int, width: int) -> int:
    """How many pictures surely fit beside each other: eight small ones, one from 512 x 512 pixels on."""
    return min(MOST_AT_ONCE, max(1, 512**2 // (height * width)))


def _bytes_of(pipeline: Any) -> int:
    models = (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
    return sum(p.numel() * p.element_size() for model in models for p in model.parameters())


def _size(pipeline: Any, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width of the pictures: those asked for, else the base's own."""
    usual = pipeline.default_sample_size * pipeline.vae_scale_factor
    return height or usual, width or usual


class _attached:
    """Within the block the pipeline carries the LoRAs; after it, the pipeline is as it came."""

    def __init__(self, pipeline: Any, lora: Any, clip_skip: int | None):
        self.pipeline, self.loras = pipeline, _weighted(lora)
        self.own = self.scheduler = pipeline.scheduler  # that of the pipeline, and that which the LoRAs want
        self.asked = clip_skip
        # where prompts are read, as well
        self.own_layer: int = getattr(pipeline, "reads_at", 2) if clip_skip is None else clip_skip
        self.layer = self.own_layer

    def __enter__(self) -> "_attached":
        from ..lora.base import Base
        from ..lora.files.file import LoraFile
        from ..lora.files.reader import read_lora
        from ..lora.layers import LoraWeights
        from .loras import put_on
        from .scheduler import scheduler_for

        self.adapters: dict[str, float] = {}
        headers: list[Mapping[str, str]] = []
        base = Base.of(self.pipeline.unet, self.pipeline.text_encoder, self.pipeline.text_encoder_2)
        try:
            read: dict[str, LoraWeights] = {}
            for number, (lora, weight) in enumerate(self.loras):
                given = lora.path if isinstance(lora, LoraFile) else lora
                name = f"generate_{number}"
                read[name] = given if isinstance(given, LoraWeights) else read_lora(given, base)
                self.adapters[name] = weight
            put_on(read, self.pipeline)
            headers += [weights.metadata for weights in read.values()]
            self.scheduler = scheduler_for(headers, self.pipeline.scheduler)
            if self.asked is None and headers:
                self.layer = _layer_for(headers, self.own_layer)
            _say_what_lacks(self.pipeline, headers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        from ..lora.layers import detach

        self.pipeline.scheduler = self.own
        for name in self.adapters:
            detach(self.pipeline, name)


def _layer_for(headers: Sequence[Mapping[str, str]], own: int) -> int:
    """Where prompts are read for these LoRAs. ConfigError where they learned from captions read at different layers."""
    from ..config.header import clip_skip_of

    layers = list(map(clip_skip_of, headers))
    others = sorted(set(layers) - {2})
    if len(others) > 1:
        each = " and ".join(map(str, others))
        raise ConfigError(f"generate: these LoRAs were trained with clip_skip {each}: say which one with clip_skip.")
    if others and 2 in layers:
        warnings.warn(
            f"One LoRA was trained with clip_skip {others[0]}, another with SDXL's own: all are drawn with "
            f"{others[0]}; give clip_skip for another.",
            stacklevel=4,
        )
    return others[0] if others else own


def _weighted(lora: Any) -> "list[tuple[Lora, float]]":
    if lora is None:
        return []
    if isinstance(lora, Mapping):
        return [(one, float(weight)) for one, weight in lora.items()]
    if isinstance(lora, list | tuple):
        return [(one[0], float(one[1])) if isinstance(one, tuple) else (one, 1.0) for one in lora]
    return [(lora, 1.0)]


def _draw_all(
    pipeline: Any,
    attached: _attached,
    prompts: Sequence[str],
    scales: Sequence[float],
    seeds: Sequence[int],
    settings: dict[str, Any],
    negative_prompt: str | None,
    batch_size: int,
    progress: bool,
) -> PictureGrid:
    from ..lora.layers import set_scale
    from ..system.progress import progress_bar
    from .denoiser import denoising

    adapters, own = attached.adapters, pipeline.scheduler
    jobs = [(prompt, seed) for prompt in prompts for seed in seeds]
    found: dict[Cell, Image] = {}
    with progress_bar(total=len(jobs) * len(scales), unit="picture", disable=not progress, leave=False) as bar:
        for scale in scales:
            changed = scale and adapters
            pipeline.scheduler = attached.scheduler if changed else own
            layer = attached.layer if changed else attached.own_layer
            if adapters:
                set_scale(pipeline, {name: scale * weight for name, weight in adapters.items()})
            label = f"scale {scale:g}" if adapters else "base"
            with denoising(pipeline.unet):
                for start in range(0, len(jobs), batch_size):
                    batch = jobs[start : start + batch_size]
                    pictures = _draw_batch(pipeline, batch, settings, negative_prompt, layer)
                    found |= {Cell(p, label, seed): picture for (p, seed), picture in zip(batch, pictures, strict=True)}
                    bar.update(len(batch))
    labels = list(dict.fromkeys(cell.label for cell in found))
    return PictureGrid(
        {Cell(p, label, s): found[Cell(p, label, s)] for p in prompts for label in labels for s in seeds}
    )


def _draw_batch(
    pipeline: Any, batch: list[tuple[str, int]], settings: dict[str, Any], negative_prompt: str | None, layer: int
) -> "list[Image]":
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for _, seed in batch]
    negative = None if negative_prompt is None else [negative_prompt] * len(batch)
    prompts = [prompt for prompt, _ in batch]
    words: dict[str, Any] = {"prompt": prompts, "negative_prompt": negative}
    chunks = _chunks(pipeline, [*prompts, negative_prompt or ""])
    if chunks > 1 or layer != 2:  # the pipeline's own clip_skip would leave the negative prompt out
        guided = settings["guidance_scale"] > 1
        words = _embedded(pipeline, prompts, negative or [""] * len(batch), chunks, layer, guided)
    images: list[Image] = pipeline(**words, generator=generators, **settings).images
    return images


def _chunks(pipeline: Any, prompts: Sequence[str]) -> int:
    """How many chunks the longest prompt takes, as A1111 and ComfyUI cut it."""
    from ..data.words.chunks import Chunks

    every = Chunks(pipeline.tokenizer, 100)
    return max(len(every.cut(tokens)[0]) for tokens in every.tokens(prompts))


def _embedded(
    pipeline: Any, prompts: Sequence[str], negative: Sequence[str], chunks: int, layer: int, guided: bool
) -> dict[str, Any]:
    """Prompts of several chunks, or read at another layer, as what the pipeline takes in their place."""
    import torch

    from ..cache.embeddings import TextEncoders

    zeros = bool(pipeline.config.force_zeros_for_empty_prompt)
    parts = (pipeline.tokenizer, pipeline.tokenizer_2), (pipeline.text_encoder, pipeline.text_encoder_2)
    encode = TextEncoders(*parts, zeros_for_empty=zeros, chunks=chunks, clip_skip=layer).encode
    with torch.no_grad():
        found = dict(zip(("prompt_embeds", "pooled_prompt_embeds"), encode(prompts), strict=True))
        if guided:
            found |= zip(("negative_prompt_embeds", "negative_pooled_prompt_embeds"), encode(negative), strict=True)
    return found
