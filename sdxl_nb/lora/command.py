"""The command line of LoRA files: check, info, convert, merge, resize, fuse. In: argv; out: text and files, 0 or 2.

Exit status 2, one sentence and no traceback for whatever is wrong with what was asked; `check` also ends with 2 when
some key is unknown, or a number not finite.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..system.errors import ModelError, SdxlNbError

if TYPE_CHECKING:
    from .arithmetic import Reduced
    from .layers import LoraWeights

# Headers that describe the file they were in, not the one that is written.
STALE = ("lora_adapter_metadata", "format", "sshs_", "modelspec.hash", "ss_new_", "ss_network_")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        return status
    except (SdxlNbError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sdxl_nb.lora", description="Look at, convert and combine LoRAs.")
    commands = parser.add_subparsers(required=True, metavar="{check,info,convert,merge,resize,fuse}")
    for name, run, text in (("check", _check, "which keys each reader knows"), ("info", _info, "what the file holds")):
        command = commands.add_parser(name, help=text)
        command.add_argument("file")
        command.set_defaults(run=run)
    convert = commands.add_parser("convert", help="write under other names")
    convert.add_argument("file")
    convert.add_argument("goal")
    convert.add_argument("--to", choices=("kohya", "diffusers"), default="kohya")
    convert.add_argument("--fold_alpha", action="store_true", help="alpha is the rank: for readers that ignore it")
    convert.set_defaults(run=_convert)
    merge = commands.add_parser("merge", help="weighted sum of LoRAs")
    merge.add_argument("files", nargs="+", metavar="FILE[=WEIGHT]")
    merge.add_argument("--output", required=True, metavar="GOAL")
    merge.set_defaults(run=_merge)
    resize = commands.add_parser("resize", help="lower the rank")
    resize.add_argument("file")
    resize.add_argument("goal")
    resize.set_defaults(run=_resize)
    fuse = commands.add_parser("fuse", help="write a base model with the LoRA inside, as a folder or as one file")
    fuse.add_argument("base", help="embedded:tiny-sdxl, a hub id, a folder or a checkpoint")
    fuse.add_argument("file")
    fuse.add_argument("goal", help="a new folder; of a checkpoint also a new .safetensors file")
    fuse.add_argument("--scale", type=float, default=1.0)
    fuse.set_defaults(run=_fuse)
    for command in (merge, resize):
        command.add_argument("--rank", type=int, required=True)
    for command in (convert, merge, resize, fuse):
        usual = None if command is fuse else "float32"  # of a checkpoint file its own
        command.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default=usual)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    from .files.file import LoraFile

    table = LoraFile(arguments.file).check()
    print(table)
    return 2 if table.unknown or table.faults else 0


def _info(arguments: argparse.Namespace) -> int:
    from .files.file import LoraFile

    print(LoraFile(arguments.file).info())
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from .arithmetic import fold_alpha
    from .files.reader import read_lora

    weights = read_lora(arguments.file)
    return _save(fold_alpha(weights) if arguments.fold_alpha else weights, arguments.goal, arguments, arguments.to)


def _resize(arguments: argparse.Namespace) -> int:
    from .arithmetic import resize
    from .files.reader import read_lora

    reduced = resize(read_lora(arguments.file), arguments.rank)
    print(f"kept {reduced.kept:.2%} of the energy; least in {_worst(reduced)}")
    return _save(reduced.weights, arguments.goal, arguments)


def _merge(arguments: argparse.Namespace) -> int:
    from .arithmetic import merge
    from .files.reader import read_lora

    pairs = [_weighted(text) for text in arguments.files]
    reduced = merge([(read_lora(path), weight) for path, weight in pairs], arguments.rank)
    print(f"kept {reduced.kept:.2%} of the energy; least in {_worst(reduced)}")
    return _save(reduced.weights, arguments.output, arguments)


def _fuse(arguments: argparse.Namespace) -> int:
    import torch

    from .fusing import fuse

    if not math.isfinite(arguments.scale):
        raise ModelError(f"--scale must be a finite number, not {arguments.scale}.")
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
    path = fuse(arguments.base, arguments.file, arguments.goal, arguments.scale, dtype)
    print(f"wrote {path.name}: {arguments.base} with the LoRA at strength {arguments.scale:g}")
    return 0


def _weighted(text: str) -> tuple[str, float]:
    path, _, weight = text.rpartition("=")
    try:
        found = (path, float(weight)) if path else (text, 1.0)
    except ValueError:
        return text, 1.0  # an equals sign of the file's own name
    if not math.isfinite(found[1]):
        raise ModelError(f"{text}: the weight of a LoRA must be a finite number, not {weight}.")
    return found


def _worst(reduced: "Reduced") -> str:
    path, kept = min(reduced.kept_by_module.items(), key=lambda item: item[1])
    return f"{path} ({kept:.2%})"


def _save(weights: "LoraWeights", goal: str, arguments: argparse.Namespace, naming: str = "kohya") -> int:
    import torch

    from .files.writer import save_one

    header = {key: value for key, value in weights.metadata.items() if not key.startswith(STALE)}
    path = save_one(weights, goal, naming, header, getattr(torch, arguments.dtype))
    print(f"wrote {path.name}: {len(weights.layers)} modules under {naming} names")
    return 0
