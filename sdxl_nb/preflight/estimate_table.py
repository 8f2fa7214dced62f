"""What a run will take, said before it starts: GPU memory, seconds, hours, dollars and disk.

In: a TrainConfig, and names of SageMaker instances. Out: an Estimate, a table for notebook and terminal, whose rows
forecast.py counts. All of it is an estimate.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ..config.train_config import TrainConfig
from ..lora.starting.going_on import taken_over
from ..models import architectures
from ..system.errors import ConfigError
from ..training import disk
from ..training.epochs import steps_per_epoch
from . import prices
from .counting import Count
from .forecast import CONTEXT, EFFICIENCY, GB, LAUNCH, SPARE, Forecast, Row, rented
from .limits import allowance, words

DEFAULT_INSTANCES = ("ml.g5.2xlarge", "ml.g6.2xlarge", "ml.g6e.2xlarge", "ml.p4d.24xlarge")
LINE = "border:1px solid rgba(127,127,127,.4);padding:4px 8px;text-align:left"


@dataclass
class Estimate:
    """A table of Rows, the disk, what would make it fit, and remarks. Prints and displays itself."""

    rows: list[Row]
    need: disk.Need
    advice: list[tuple[str, int]] = field(default_factory=list)  # what to change, and the bytes it then takes
    notes: list[str] = field(default_factory=list)
    count: Count | None = None

    def as_dicts(self) -> list[dict[str, Any]]:
        """The rows as JSON has them."""
        return [row.as_dict() for row in self.rows]

    def max_run(self, machine: str) -> int:
        """Seconds to allow a job on one of these machines: twice the estimate and half an hour, in whole ten minutes.

        48 hours where the steps are not known. Raises ConfigError for a machine that is not among the rows.
        """
        row = next((row for row in self.rows if row.machine.name == machine), None)
        if row is None:
            raise ConfigError(f"there is no estimate for {machine}: name it in instances")
        return allowance(row.hours)

    def _cells(self, row: Row) -> list[str]:
        machine = row.machine
        name = machine.name if machine.count == 1 else f"{machine.name} ({machine.count} × {machine.device})"
        memory = "–" if machine.memory is None else f"{machine.memory / GB:.1f} GB"
        fits = "no" if not row.fits else "yes" if not row.note else f"yes: {row.note}"
        if not row.fits and row.note:
            fits = f"no: {row.note}"
        about = "" if row.measured else "≈ "
        seconds = "–" if row.seconds is None else about + _said(row.seconds)
        hours = "–" if row.hours is None else words(3600 * row.hours)
        return [
            name,
            machine.device,
            f"{row.peak / GB:.2f} of {memory}",
            fits,
            seconds,
            hours,
            _dollars(row.cost(machine.hourly)),
            _dollars(row.cost(machine.spot)),
        ]

    HEADS = ("machine", "device", "memory, GB", "fits", "a step", "all", "price", "spot, about")

    def __str__(self) -> str:
        table = [list(self.HEADS), *(self._cells(row) for row in self.rows)]
        widths = [max(len(row[column]) for row in table) for column in range(len(self.HEADS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        return "\n".join([*lines, *self._lines()])

    __repr__ = __str__

    def _lines(self) -> list[str]:
        lines = [str(self.need)]
        lines += [f"To make it smaller: {what}: {size / GB:.2f} GB." for what, size in self.advice]
        sources = sorted({row.machine.price_source for row in self.rows if row.machine.price_source})
        if sources:
            lines.append(f"Prices: {', '.join(sources)}; spot is a usual saving, not a promise.")
        lines.append(
            f"Times marked ≈ assume {EFFICIENCY:.0%} of the dense rate and {LAUNCH * 1e6:g} µs an operation; memory "
            f"counts {SPARE - 1:.0%} for gaps and, on GPUs, {CONTEXT / GB:g} GB for CUDA itself; all is with start-up, "
            "encoding and validation pictures, and without a first download."
        )
        return lines + self.notes

    def _repr_html_(self) -> str:
        def row(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f'<{tag} style="{LINE}">{escape(cell)}</{tag}>' for cell in cells) + "</tr>"

        body = row(self.HEADS, "th") + "".join(row(self._cells(one), "td") for one in self.rows)
        said = "".join(f"<li>{escape(line)}</li>" for line in self._lines())
        return f'<div><table style="color:inherit;background:none">{body}</table><ul>{said}</ul></div>'


def _dollars(amount: float | None) -> str:
    return "–" if amount is None else f"${prices.cents(amount):,.2f}"


def _said(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else words(seconds)


def estimate(
    config: TrainConfig,
    instances: str | Iterable[str] = DEFAULT_INSTANCES,
    *,
    region: str = prices.HOME,
    pictures: int | None = None,
    here: bool = True,
) -> Estimate:
    """Memory, time, price and disk of a run on this machine (`here`) and on SageMaker instances, as one table.

    Opens the data set for the number of its pictures, decoding none; `pictures` says it instead. Where a GPU is here,
    or a step is small, one step with random weights is really taken. Where some machine cannot take the whole batch at
    once, there is advice. Raises ConfigError for an unknown instance.
    """
    chosen = [prices.instance(name) for name in ([instances] if isinstance(instances, str) else instances)]
    config, built = taken_over(config), architectures.of(config)
    need, notes = disk.needed(config, built, pictures)
    notes = ([built.note] if built.note else []) + notes
    if config.lora_weights:
        notes.append(f"Counted with rank {config.rank} of lora_weights on {config.target_modules}, whatever it holds.")
    known = {one.name: prices.find(one.name, region) for one in chosen}
    if lacking := [name for name, price in known.items() if price is None]:
        notes.append(f"Of the prices: {prices.unknown(' and '.join(lacking), region)}.")
    job = Forecast(need.costliest or config, built, need.entries)
    rows = [job.row_here()] if here else []
    rows += [job.row(rented(instance, config, known[instance.name])) for instance in chosen]
    an_epoch = steps_per_epoch(config, need.entries) if need.entries else None
    steps = rows[0].steps if rows else config.max_train_steps
    need = disk.with_checkpoints(need, config, job.count.trained, steps, an_epoch)
    tight = any(row.micro_batch < config.train_batch_size for row in rows)
    return Estimate(rows, need, job.advice() if tight else [], notes, job.count)
