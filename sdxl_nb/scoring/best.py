"""Which stage is best, with the reason in words.

In: the Score of every stage and metric, and which way each is better. Out: a Choice. The bare base does not compete.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .intervals import Score, number
from .scorer import Scorer

USUALLY = ("likeness", "prompt", "heldout_loss")  # what shows learning, and what shows too much of it
ALONE = "nothing measured shows too much training: validation_split holds pictures out for that"
HONEST = 0.05  # the share of `copying` in pictures that are as new as the training pictures

Table = Mapping[int, Mapping[str, Score]]


class Choice(NamedTuple):
    """The step, None where there is no LoRA, and why."""

    step: int | None
    reason: str


def copies(table: Table) -> list[int]:
    """The steps whose share of copies is surely above what is honest, and above the bare base's."""
    found = {step: scores["copying"] for step, scores in table.items() if "copying" in scores}
    bar = max(HONEST, found[0].mean if 0 in found else 0)
    return [step for step, score in found.items() if step and (score.mean if score.low is None else score.low) > bar]


def choose(table: Table, scorers: Mapping[str, Scorer], by: Sequence[str] = ()) -> Choice:
    """The best step by these metrics; by default by a person's own scorers, else by USUALLY.

    Of several metrics, by the mean of its `gains`. Where ours decide, a stage that copies training pictures does not
    compete. Of equal ones the earliest is the best.
    """
    steps, own = sorted(step for step in table if step), [name for name, one in scorers.items() if not one.ours]
    if not steps:
        return Choice(None, "there is no LoRA yet")
    flagged = copies(table)
    chosen = [name for name in by or own or USUALLY if all(name in table[step] for step in steps)]
    competing = steps if by or own else [step for step in steps if step not in flagged] or steps
    if not chosen:
        return Choice(competing[-1], "it is the last, and nothing was measured to choose by")
    gained = [gains(name, table, competing, scorers[name]) for name in chosen]
    best = min(competing, key=lambda step: (-round(sum(each[step] for each in gained), 9), step))
    said = [_said(name, best, table, competing, scorers[name]) for name in chosen]
    alone = [ALONE] if chosen == ["likeness"] and not by and not own else []
    return Choice(best, "; ".join([*said, *_left_out(best, steps, competing, flagged), *alone]))


def gains(name: str, table: Table, steps: Sequence[int], scorer: Scorer) -> dict[int, float]:
    """What each step gains over the bare base, as a share of what the best one gains; -1 at least.

    By sizes, not by ranks: where likeness grows as the held-out loss does, ranks are equal everywhere, while likeness
    gains much at first and little later. Where none gains, or the base was not measured, the worst step counts 0.
    """
    sign = -1 if scorer.better == "lower" else 1
    values = {step: sign * table[step][name].mean for step in steps}
    most, base = max(values.values()), table.get(0, {}).get(name)
    zero = sign * base.mean if base is not None and sign * base.mean < most else min(values.values())
    return {step: max(-1.0, (value - zero) / (most - zero)) if most > zero else 1.0 for step, value in values.items()}


def _ranks(name: str, table: Table, steps: Sequence[int], scorer: Scorer) -> dict[int, int]:
    """1 for the best; equal ones have the same rank."""
    sign = -1 if scorer.better == "higher" else 1
    values = {step: sign * table[step][name].mean for step in steps}
    return {step: 1 + sum(other < value for other in values.values()) for step, value in values.items()}


def _said(name: str, best: int, table: Table, steps: Sequence[int], scorer: Scorer) -> str:
    mine, many, ranks = table[best][name], len(steps), _ranks(name, table, steps, scorer)
    if ranks[best] > 1:
        return f"{name} {number(mine.mean)} is number {ranks[best]} of {many}"
    end = "highest" if scorer.better == "higher" else "lowest"
    equal = [step for step in steps if step != best and ranks[step] == 1]
    near = [step for step in steps if step != best and step not in equal and _overlap(mine, table[step][name])]
    text = f"{name} {number(mine.mean)} is the {end} of {many}"
    text += f", as at {_steps(equal)}, and earlier" if equal else ""
    return text + (f" (by chance, perhaps: its interval overlaps that of {_steps(near)})" if near else "")


def _overlap(one: Score, other: Score) -> bool:
    if None in (one.low, one.high, other.low, other.high):
        return False
    return bool(one.low <= other.high and other.low <= one.high)  # type: ignore[operator]


def _left_out(best: int, steps: Sequence[int], competing: Sequence[int], flagged: Sequence[int]) -> list[str]:
    out = [step for step in steps if step not in competing]
    if out:
        verb = "copies" if len(out) == 1 else "copy"
        return [f"{_steps(out)} {verb} training pictures and did not compete"]
    return ["it copies training pictures: draw some, and look"] if best in flagged else []


def _steps(steps: Sequence[int]) -> str:
    few = ", ".join(map(str, steps[:3])) + (f" and {len(steps) - 3} more" if len(steps) > 3 else "")
    return f"step{'s' * (len(steps) > 1)} {few}"
