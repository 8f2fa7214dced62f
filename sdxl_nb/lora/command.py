"""The command line of LoRA files, from check to extract. In: argv; out: text and files, 0 or 2.

Exit status 2, one sentence and no traceback for whatever is wrong with what was asked; `check` also ends with 2 when
some key is unknown, or a number not finite.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..models.sources import Source
from ..system.errors import ModelError, SdxlNbError
from ..system.remarks import on_stderr, remark

if TYPE_CHECKING:
    from .changes.cutting import Reduced
    from .layers import LoraWeights

Command: TypeAlias = Callable[[argparse.Namespace], int]

# Headers that describe the file they were in, not the one that is written.
STALE = ("lora_adapter_metadata", "format", "sshs_", "modelspec.hash", "ss_new_", "ss_network_")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        with on_stderr():
            status: int = arguments.run(arguments)
        return status
    except (SdxlNbError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sdxl_nb.lora", description="Look at, convert and combine LoRAs.")
    commands = parser.add_subparsers(required=True, metavar="{check,info,diff,convert,merge,resize,fuse,extract}")

    def command(name: str, run: Command, text: str, *places: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        made.set_defaults(run=run)
        for place in places:
            made.add_argument(place)
        return made

    command("check", _check, "which keys each reader knows", "file")
    command("info", _info, "what the file holds", "file")
    diff = command("diff", _diff, "what differs between two LoRAs, by block", "file", "other")
    diff.add_argument("--picture", metavar="PNG", help="the same as a picture, one bar a block")
    convert = command("convert", _convert, "write under other names, or as plain LoRA", "file", "goal")
    convert.add_argument("--to", choices=("kohya", "diffusers"), default="kohya")
    convert.add_argument("--fold_alpha", action="store_true", help="alpha is the rank: for readers that ignore it")
    convert.add_argument("--plain", action="store_true", help="LoHa, LoKr and DoRA as LoRA; a DoRA wants --base")
    convert.add_argument("--base", help="of a DoRA: the model that it was trained on")
    merge = command("merge", _merge, "weighted sum of LoRAs, or TIES and DARE")
    merge.add_argument("files", nargs="+", metavar="FILE[=WEIGHT]")
    merge.add_argument("--output", required=True, metavar="GOAL")
    merge.add_argument("--method", default="sum", help="sum, ties, dare_linear, dare_ties or magnitude_prune")
    merge.add_argument("--density", type=float, default=0.5, help="the share of numbers that those keep")
    merge.add_argument("--seed", type=int, default=0, help="of DARE's random masks")
    resize = command("resize", _resize, "lower the rank", "file", "goal")
    fuse = command("fuse", _fuse, "write a base model with the LoRA inside, as a folder or as one file")
    fuse.add_argument("base", help="embedded:tiny-sdxl, a hub id, a folder or a checkpoint")
    fuse.add_argument("file")
    fuse.add_argument("goal", help="a new folder; of a checkpoint also a new .safetensors file")
    fuse.add_argument("--scale", type=float, default=1.0)
    extract = command("extract", _extract, "a LoRA of what one model changes in another")
    extract.add_argument("--base", required=True, help="a hub id, a folder or a checkpoint")
    extract.add_argument("--tuned", required=True, help="a model that was made from it, likewise")
    extract.add_argument("--output", required=True, metavar="GOAL")
    for each in (convert, merge, resize, extract):
        each.add_argument("--rank", type=int, help="the rank, or with --energy the most that it may be")
        each.add_argument("--energy", type=float, help="the share of the change's energy to keep, for example 0.95")
        each.add_argument("--per_layer", action="store_true", help="each layer keeps that share, by a rank of its own")
    for each in (convert, merge, resize, fuse, extract):
        usual = None if each is fuse else "float32"  # of a checkpoint file its own
        each.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default=usual)
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


def _diff(arguments: argparse.Namespace) -> int:
    from .changes.difference import difference
    from .files.reader import read_lora

    paths = (arguments.file, arguments.other)
    one, other = (read_lora(path) for path in paths)
    found = difference(one, other, (Path(paths[0]).name, Path(paths[1]).name))
    print(found)
    if arguments.picture:
        found.figure().savefig(arguments.picture)
        print(f"wrote {Path(arguments.picture).name}")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from .changes.arithmetic import fold_alpha
    from .changes.conversion import to_lora
    from .changes.cutting import Cut
    from .files.reader import read_lora

    weights, cut = read_lora(arguments.file), Cut(arguments.rank, arguments.energy, arguments.per_layer)
    if arguments.plain:
        reduced = to_lora(weights, Source(arguments.base) if arguments.base else None, cut)
        _say(reduced)
        weights = reduced.weights
    elif arguments.base or cut != Cut():
        raise ModelError("--base, --rank and --energy are of convert --plain; resize lowers the rank of a LoRA.")
    return _save(fold_alpha(weights) if arguments.fold_alpha else weights, arguments.goal, arguments, arguments.to)


def _resize(arguments: argparse.Namespace) -> int:
    from .changes.arithmetic import resize
    from .files.reader import read_lora

    reduced = resize(read_lora(arguments.file), **_cut(arguments))
    _say(reduced)
    return _save(reduced.weights, arguments.goal, arguments)


def _merge(arguments: argparse.Namespace) -> int:
    from .changes.arithmetic import merge
    from .changes.pruning import Method
    from .files.reader import read_lora

    pairs = [_weighted(text) for text in arguments.files]
    method = Method(arguments.method, arguments.density, arguments.seed)
    reduced = merge([(read_lora(path), weight) for path, weight in pairs], method=method, **_cut(arguments))
    _say(reduced)
    return _save(reduced.weights, arguments.output, arguments)


def _extract(arguments: argparse.Namespace) -> int:
    from .changes.extraction import extract

    if not arguments.output.endswith(".safetensors"):  # said before minutes of work
        raise ModelError(f"{arguments.output} must end in .safetensors.")
    found = extract(arguments.base, arguments.tuned, progress=True, **_cut(arguments))
    _say(found)
    for line in found.remarks:
        print(line)
    return _save(found.weights, arguments.output, arguments)


def _cut(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("rank", "energy", "per_layer")}


def _say(reduced: "Reduced") -> None:
    """What was kept, where least, and the ranks."""
    path, kept = min(reduced.kept_by_module.items(), key=lambda item: item[1])
    ranks = sorted(layer.rank for layer in reduced.weights.layers.values())
    said = f"rank {ranks[0]}" if ranks[0] == ranks[-1] else f"ranks {ranks[0]} to {ranks[-1]}"
    print(f"kept {reduced.kept:.2%} of the energy at {said}; least in {path} ({kept:.2%})")


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


def _save(weights: "LoraWeights", goal: str, arguments: argparse.Namespace, naming: str = "kohya") -> int:
    import torch

    from .files.writer import said_lost, save_one

    header = {key: value for key, value in weights.metadata.items() if not key.startswith(STALE)}
    dtype = getattr(torch, arguments.dtype)
    path = save_one(weights, goal, naming, header, dtype)
    if lost := said_lost(weights, dtype, path.name):
        remark(lost)
    print(f"wrote {path.name}: {len(weights.layers)} modules under {naming} names")
    return 0
