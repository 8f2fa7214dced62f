"""A random base as large as SDXL, written tensor by tensor: as a diffusers folder, and as one checkpoint file.

In: a folder. Out: 7 GB in fp16 that need 200 MB of memory to make, where architectures.make_base holds a whole
pipeline. Values are as torch draws a layer's first ones; no network is used.

    python -m benchmarks.full_size FOLDER [--size full] [--single FILE.safetensors]
"""

import argparse
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sdxl_nb.models.checkpoint_names import Place, place
from sdxl_nb.models.lock import ALONE
from sdxl_nb.models.sources import WEIGHTS

from .architectures import SIZES, make_models, make_scheduler, make_tokenizer

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
Shape = tuple[int, ...]


def write(path: Path, shapes: Mapping[str, Shape], make: Callable[[str], torch.Tensor], dtype: torch.dtype) -> None:
    """A safetensors file of tensors that `make` gives one at a time, each dropped before the next."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in shapes:
            file.write(make(name).to(dtype).contiguous().view(torch.uint8).numpy().tobytes())


def make_folder(folder: Path, size: str = "full", dtype: torch.dtype = torch.float16) -> None:
    """A diffusers folder of random weights; the same one every time."""
    with ALONE, torch.device("meta"):
        models = make_models(SIZES[size])
    for part, model in models.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        if part.startswith("text"):
            model.config.architectures = [type(model).__name__]  # as save_pretrained does; diffusers' script asks it
            model.config.to_json_file(folder / part / "config.json")
        else:
            model.save_config(folder / part)
        norms = {name for name, module in model.named_modules() if "Norm" in type(module).__name__}
        generator = torch.Generator().manual_seed(len(part))
        shapes = {_stored(part, name): tuple(tensor.shape) for name, tensor in model.named_parameters()}
        ones = {_stored(part, f"{name}.weight") for name in norms}

        def make(name: str, shapes: Any = shapes, ones: Any = ones, generator: Any = generator) -> torch.Tensor:
            return _first(shapes[name], name in ones, generator)

        write(folder / part / f"{WEIGHTS[part]}.safetensors", shapes, make, dtype)
    _small_parts(folder)


def _stored(part: str, name: str) -> str:
    """How files name it: with the `text_model.` that transformers 5 leaves out of one encoder's names."""
    if not part.startswith("text") or name.startswith(("text_model.", "text_projection")):
        return name
    return f"text_model.{name}"


def _first(shape: Shape, is_norm: bool, generator: torch.Generator) -> torch.Tensor:
    """A tensor as torch's layers begin."""
    if len(shape) < 2:
        return torch.ones(shape) if is_norm else torch.zeros(shape)
    bound = torch.Size(shape[1:]).numel() ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _small_parts(folder: Path) -> None:
    tokenizer = make_tokenizer()
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer.save_pretrained(folder / name)
    make_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))


def make_single(folder: Path, path: Path, *, move: bool = False) -> None:
    """One checkpoint file in sgm's names of a folder's tensors; with `move` each part leaves the folder once read.

    A moved part is gone only when the file is whole, so the two need the disk of both for that long.
    """
    from safetensors import safe_open

    pieces: dict[str, list[tuple[str, str, Place]]] = {}
    shapes: dict[str, Shape] = {}
    dtype = torch.float16
    for part, stem in WEIGHTS.items():
        config = json.loads((folder / part / "config.json").read_text())
        with safe_open(folder / part / f"{stem}.safetensors", framework="pt") as file:
            for name in sorted(file.keys()):
                where = place(part, name, config)
                shape, dtype = tuple(file.get_slice(name).get_shape()), file.get_tensor(name).dtype
                pieces.setdefault(where.key, []).append((part, name, where))
                shapes[where.key] = _outer(shapes.get(where.key), shape, where)

    def make(key: str) -> torch.Tensor:
        parts = sorted(pieces[key], key=lambda piece: piece[2].third or 0)
        return _joined([_read(folder, part, name) for part, name, _ in parts], parts[0][2], shapes[key])

    write(path, shapes, make, dtype)
    for part, stem in WEIGHTS.items() if move else ():
        (folder / part / f"{stem}.safetensors").unlink()


def _read(folder: Path, part: str, name: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(folder / part / f"{WEIGHTS[part]}.safetensors", framework="pt") as file:
        return file.get_tensor(name).clone()


def _outer(known: Shape | None, shape: Shape, where: Place) -> Shape:
    """The shape of a checkpoint's tensor, of one part of it."""
    if where.third is not None:
        return (3 * shape[0], *shape[1:])
    if where.convolution:
        return (*shape, 1, 1)
    return shape[::-1] if where.transposed else shape


def _joined(tensors: Iterable[torch.Tensor], where: Place, shape: Shape) -> torch.Tensor:
    whole = torch.cat(list(tensors))
    return whole.T.contiguous() if where.transposed else whole.reshape(shape)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("benchmarks.full_size", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the diffusers folder; made unless it is there")
    parser.add_argument("--size", default="full", choices=tuple(SIZES))
    parser.add_argument("--single", type=Path, help="put its weights into this one file instead")
    given = parser.parse_args(arguments)
    if not (given.folder / "model_index.json").is_file():
        make_folder(given.folder, given.size)
    if given.single:
        make_single(given.folder, given.single, move=True)


if __name__ == "__main__":
    main()
