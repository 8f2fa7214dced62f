"""What differs between two LoRAs, by block: as a table and as a picture.

In: two `LoraWeights` of one base. Out: a `LoraDifference`. A block's number is the Frobenius norm of the difference of
the changes of its layers, relative to the larger of the two LoRAs' own: 0 where they are the same, 1 where one has
nothing, up to 2 where they are opposed. No full-size change is built.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...system.errors import ModelError
from ..layers import Layer, LoraWeights
from ..names import TE1, TE2, Layout, kohya_name
from .arithmetic import plain

if TYPE_CHECKING:
    from ...system.figures import Sheet

SGM = re.compile(r"lora_unet_(input|middle|output)_blocks?_(\d+)")
WORDS = {TE1: "text encoder 1", TE2: "text encoder 2"}
SIDES = {"input": "in", "output": "out"}
BAR = "#2563a8"
ROUNDING = 1e-12  # of the larger change: what is less is no difference


@dataclass(frozen=True)
class Block:
    """One block: how many layers both have, the first alone, the second alone; the norms of the changes."""

    name: str
    both: int
    first_alone: int
    second_alone: int
    first: float
    second: float
    difference: float

    @property
    def relative(self) -> float:
        """The difference as a share of the larger change."""
        larger = max(self.first, self.second)
        return self.difference / larger if larger else 0.0


@dataclass(frozen=True)
class LoraDifference:
    """The blocks in the order of the model; prints and displays as a table, `figure()` draws it."""

    names: tuple[str, str]
    blocks: tuple[Block, ...]

    @property
    def whole(self) -> Block:
        """All blocks together."""
        counts = [sum(getattr(b, n) for b in self.blocks) for n in ("both", "first_alone", "second_alone")]
        norms = [sum(getattr(b, n) ** 2 for b in self.blocks) ** 0.5 for n in ("first", "second", "difference")]
        return Block("all", *counts, *norms)

    def _rows(self) -> list[tuple[str, ...]]:
        head = ("block", "layers", "only 1st", "only 2nd", "norm 1st", "norm 2nd", "difference", "relative")
        return [head, *(_row(block) for block in (*self.blocks, self.whole))]

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join([f"1st {self.names[0]}, 2nd {self.names[1]}", *lines])

    def _repr_html_(self) -> str:
        head, *rows = ([html.escape(cell) for cell in row] for row in self._rows())
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        caption = html.escape(f"1st {self.names[0]}, 2nd {self.names[1]}")
        top = "".join(f"<th>{cell}</th>" for cell in head)
        return f"<table><caption>{caption}</caption><tr>{top}</tr>{body}</table>"

    def figure(self) -> "Sheet":
        """One bar a block."""
        from ...system.figures import Sheet

        figure = Sheet(figsize=(1.6 + 0.45 * len(self.blocks), 3.2), layout="constrained")
        axes = figure.subplots()
        names = [block.name for block in self.blocks]
        axes.bar(range(len(names)), [block.relative for block in self.blocks], color=BAR, width=0.7)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axes.set_ylabel("relative difference")
        axes.set_title(f"{self.names[0]} and {self.names[1]}", fontsize=9, parse_math=False)
        axes.set_ylim(0, max([0.1, *(1.05 * block.relative for block in self.blocks)]))
        axes.spines[["top", "right"]].set_visible(False)
        return figure


def _row(block: Block) -> tuple[str, ...]:
    counts = (block.both, block.first_alone, block.second_alone)
    norms = (block.first, block.second, block.difference, block.relative)
    return (block.name, *map(str, counts), *(f"{number:.4g}" for number in norms))


def difference(one: LoraWeights, other: LoraWeights, names: tuple[str, str] = ("first", "second")) -> LoraDifference:
    """Compare the changes that two LoRAs of one base make, of any kind. ModelError for DoRA and for other bases."""
    if one.base.layout != other.base.layout:
        raise ModelError("These LoRAs belong to different base models and cannot be compared.")
    groups: dict[str, list[str]] = {}
    for path in sorted({**one.layers, **other.layers}, key=lambda path: _order(path, one.base.layout)):
        groups.setdefault(block_of(path, one.base.layout), []).append(path)
    return LoraDifference(names, tuple(_block(name, paths, one, other) for name, paths in groups.items()))


def block_of(path: str, layout: Layout) -> str:
    """The block of a module, by the numbers of sgm's names, as LoRA block weights count them."""
    component = path.partition(".")[0]
    if component in WORDS:
        return WORDS[component]
    match = SGM.match(kohya_name(path, layout) or "")
    if match is None:
        return "outside"
    return "mid" if match[1] == "middle" else f"{SIDES[match[1]]} {match[2]}"


def _order(path: str, layout: Layout) -> tuple[int, int, str]:
    block = block_of(path, layout)
    word, _, number = block.rpartition(" ")
    places = ("text encoder", "outside", "in", "mid", "out")
    return places.index(word or block), int(number) if number.isdigit() else 0, path


def _block(name: str, paths: Sequence[str], one: LoraWeights, other: LoraWeights) -> Block:
    squares = [0.0, 0.0, 0.0]
    for path in paths:
        plus, minus = ([_checked(path, lora)] if path in lora.layers else [] for lora in (one, other))
        for at, pair in enumerate(((plus, []), (minus, []), (plus, minus))):
            squares[at] += _norm(path, *pair) ** 2
    both = [path for path in paths if path in one.layers and path in other.layers]
    alone = [sum(path in lora.layers for path in paths) - len(both) for lora in (one, other)]
    first, second, apart = (square**0.5 for square in squares)
    same = apart <= ROUNDING * max(first, second)
    return Block(name, len(both), alone[0], alone[1], first, second, 0.0 if same else apart)


def _checked(path: str, lora: LoraWeights) -> Layer:
    if lora.layers[path].dora_scale is not None:
        raise ModelError(
            f"{path} is a DoRA layer, whose change depends on the base model: convert --plain --base makes a plain "
            "LoRA of it, which can be compared."
        )
    return plain(lora.layers[path], path, lora)


def _norm(path: str, plus: Sequence[Layer], minus: Sequence[Layer]) -> float:
    """The Frobenius norm of a sum of products of thin matrices, of those in `minus` with the other sign."""
    layers = [*((layer, 1.0) for layer in plus), *((layer, -1.0) for layer in minus)]
    if not layers:
        return 0.0
    if len({(layer.up.shape[0], layer.down[0].numel()) for layer, _ in layers}) > 1:
        raise ModelError(f"The LoRAs' layers for {path} have different widths and cannot be compared.")
    up = torch.cat([layer.up.flatten(1).double() * (layer.scale * sign) for layer, sign in layers], dim=1)
    down = torch.cat([layer.down.flatten(1).double() for layer, _ in layers])
    r_up, r_down = torch.linalg.qr(up, mode="r")[1], torch.linalg.qr(down.T, mode="r")[1]
    return float(torch.linalg.matrix_norm(r_up @ r_down.T))
