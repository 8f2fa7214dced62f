"""Long lists of numbered names, written short: `lora_te1_text_model_encoder_layers_[0-11]_mlp_fc1`.

In: names; out: patterns in which `[...]` holds a set of numbers, and from these the names again.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

Numbers = tuple[frozenset[int], ...]  # of a name: the numbers at each of its places


def fold(names: Iterable[str]) -> list[str]:
    """The shortest patterns this simple method finds; `unfold` of them gives exactly these names."""
    shapes: defaultdict[tuple[str, ...], set[Numbers]] = defaultdict(set)
    for name in names:
        pieces = re.split(r"(\d+)", name)
        shapes[tuple(pieces[::2])].add(tuple(frozenset([int(number)]) for number in pieces[1::2]))
    patterns = []
    for texts, numbers in shapes.items():
        for position in reversed(range(len(texts) - 1)):
            numbers = _join(numbers, position)
        for sets in numbers:
            holes = [*(f"[{_ranges(s)}]" if len(s) > 1 else str(min(s)) for s in sets), ""]
            patterns.append("".join(itertools.chain(*zip(texts, holes, strict=True))))
    return sorted(patterns)


def _join(numbers: set[Numbers], position: int) -> set[Numbers]:
    """Make one of all rows that differ only in the set at this position."""
    rows: defaultdict[tuple[Numbers, Numbers], frozenset[int]] = defaultdict(frozenset)
    for row in numbers:
        rows[row[:position], row[position + 1 :]] |= row[position]
    return {(*before, joined, *after) for (before, after), joined in rows.items()}


def _ranges(numbers: frozenset[int]) -> str:
    """{0, 1, 2, 5} -> "0-2,5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def unfold(patterns: Iterable[str]) -> Iterator[str]:
    """Every name that the patterns stand for."""
    for pattern in patterns:
        pieces = re.split(r"\[([\d,-]+)\]", pattern)
        for numbers in itertools.product(*map(_numbers, pieces[1::2])):
            yield "".join(itertools.chain(*zip(pieces[::2], [*map(str, numbers), ""], strict=True)))


def _numbers(text: str) -> list[int]:
    ends = [part.split("-") for part in text.split(",")]
    return [number for pair in ends for number in range(int(pair[0]), int(pair[-1]) + 1)]
