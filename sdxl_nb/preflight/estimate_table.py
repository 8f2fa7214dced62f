"""What a run will take, said before it starts: GPU memory, seconds, hours, dollars and disk.

In: a TrainConfig, and names of SageMaker instances. Out: an Estimate, a table for notebook and terminal. Memory is
counted (counting.py): weights, LoRA state, and everything alive at the worst moment of a step, on the meta device.
Time is FLOPs through a GPU's dense rate at a stated efficiency, or operations through the time that launching one
takes, whichever is longer; on this machine it is measured where a step is small enough. All of it is an estimate.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

import torch

from ..cache.latents import at_once
from ..config.train_config import TrainConfig
from ..lora.starting.going_on import taken_over
from ..models import architectures
from ..models.inpainting import inpaints
from ..system.errors import ConfigError
from ..training import disk
from ..training.epochs import passes, pictures_each, plain_passes, steps_per_epoch
from . import counting, looks, prices
from .counting import Count

EFFICIENCY = 0.4  # of the dense rate: what eager training of U-Nets reaches
LAUNCH = 7e-6  # seconds that launching one operation takes on the host
SPARE = 1.05  # what an allocator's gaps add
CONTEXT = 0.7e9  # bytes of a CUDA context with its libraries' workspaces
IMPORTS, DISK_RATE = 8.0, 0.5e9  # seconds before a model is loaded, and bytes a second that it is loaded at
REAL_STEP = 4e11  # FLOPs of a step that is done for real on this machine, to be timed
DEFAULT_INSTANCES = ("ml.g5.2xlarge", "ml.g6.2xlarge", "ml.g6e.2xlarge", "ml.p4d.24xlarge")
LINE = "border:1px solid rgba(127,127,127,.4);padding:4px 8px;text-align:left"
GB = 1e9
LONGEST = 48 * 3600  # seconds that a job may take where nothing else is said


@dataclass(frozen=True)
class Machine:
    """Where it would run: GPUs (None of memory on a CPU), and what an hour costs."""

    name: str
    device: str
    count: int
    memory: float | None
    rate: float | None  # FLOP/s of one device at this precision; None where it lacks the dtype
    hourly: float | None = None
    spot: float | None = None
    price_source: str = ""


@dataclass(frozen=True)
class Row:
    """One machine's line. Memory in bytes for each device; micro_batch is the largest that fits, 0 when none does.

    `around` are the seconds that start-up, encoding and validation pictures take in all.
    """

    machine: Machine
    peak: int
    micro_batch: int
    seconds: float | None
    steps: int | None
    note: str = ""
    measured: bool = False
    around: float = 0.0

    @property
    def fits(self) -> bool:
        return self.micro_batch > 0

    @property
    def hours(self) -> float | None:
        return None if self.seconds is None or self.steps is None else (self.seconds * self.steps + self.around) / 3600

    def cost(self, hourly: float | None) -> float | None:
        return None if hourly is None or self.hours is None else self.hours * hourly

    def as_dict(self) -> dict[str, Any]:
        machine = self.machine
        return {
            "machine": machine.name,
            "device": machine.device,
            "devices": machine.count,
            "memory_gb": machine.memory and round(machine.memory / GB, 2),
            "peak_gb": round(self.peak / GB, 3),
            "fits": self.fits,
            "micro_batch": self.micro_batch,
            "seconds_a_step": self.seconds and round(self.seconds, 4),
            "steps": self.steps,
            "seconds_around": round(self.around, 1),
            "hours": self.hours and round(self.hours, 3),
            "price": _rounded(self.cost(machine.hourly)),
            "spot_price": _rounded(self.cost(machine.spot)),
            "price_source": machine.price_source,
            "measured": self.measured,
            "note": self.note,
        }


def _rounded(dollars: float | None) -> float | None:
    return None if dollars is None else prices.cents(dollars)


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
        return LONGEST if row.hours is None else min(LONGEST, math.ceil((2 * row.hours * 3600 + 1800) / 600) * 600)

    def _cells(self, row: Row) -> list[str]:
        machine = row.machine
        name = machine.name if machine.count == 1 else f"{machine.name} ({machine.count} × {machine.device})"
        memory = "–" if machine.memory is None else f"{machine.memory / GB:.1f} GB"
        fits = "no" if not row.fits else "yes" if not row.note else f"yes: {row.note}"
        if not row.fits and row.note:
            fits = f"no: {row.note}"
        about = "" if row.measured else "≈ "
        seconds = "–" if row.seconds is None else about + _said(row.seconds)
        hours = "–" if row.hours is None else _duration(row.hours)
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


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def _said(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else _duration(seconds / 3600)


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
    job = _Job(need.costliest or config, built, need.entries)
    rows = [job.row_here()] if here else []
    rows += [job.row(_machine(instance, config, region)) for instance in chosen]
    an_epoch = steps_per_epoch(config, need.entries) if need.entries else None
    steps = rows[0].steps if rows else config.max_train_steps
    need = disk.with_checkpoints(need, config, job.count.trained, steps, an_epoch)
    tight = any(row.micro_batch < config.train_batch_size for row in rows)
    return Estimate(rows, need, job.advice() if tight else [], notes, job.count)


def _machine(instance: prices.Instance, config: TrainConfig, region: str) -> Machine:
    rate, price = instance.tflops(config.mixed_precision or "no"), prices.find(instance.name, region)
    hourly = price.hourly if price else None
    spot = None if hourly is None else hourly * (1 - instance.spot_saving)
    source = price.source if price else f"no price known for {region}"
    memory = instance.memory_gb * GB
    return Machine(instance.name, instance.gpu, instance.count, memory, rate and rate * 1e12, hourly, spot, source)


class _Job:
    """One configuration: what is counted of it, and its row on a machine."""

    def __init__(self, config: TrainConfig, built: architectures.Architecture, entries: int | None):
        self.config, self.built, self.entries, self.more = config, built, entries, passes(config) / plain_passes(config)
        self.count = self._count(config, cuda=True)
        self.dtype = counting.DTYPES[config.mixed_precision or "no"]
        drawn = looks.largest(config)
        self.vae = counting.count_vae(built.vae, config.resolution, drawn, self._vae_dtype(), config.vae_tiling)

    def _vae_dtype(self) -> torch.dtype:
        return counting.DTYPES["no"] if self.built.vae.get("force_upcast", True) else self.dtype

    def _count(self, config: TrainConfig, cuda: bool) -> Count:
        built = self.built
        return counting.count_step(config, built.unet, built.scale, built.tokens, pictures=1, cuda=cuda)

    def peak(self, pictures: int, config: TrainConfig | None = None, cuda: bool = True) -> int:
        """Bytes that one device needs at the worst moment of a run, so many pictures at once."""
        config = config or self.config
        count = self._count(config, cuda).at(pictures)
        weights, encoding, decoding, *_ = self.vae
        encoding *= min(pictures, at_once(config.resolution, torch.device("cuda" if cuda else "cpu")))
        training = count.peak + self._others(config, pictures)
        if self.live_latents(config):
            training += weights + max(0, encoding - (count.peak - count.resident))
        held = count.peak if config.cuda_graphs else count.resident  # graphs keep what a step takes
        drawing = held + weights + looks.memory(config, self.built, decoding, cuda)
        worst = max(training, weights + encoding, drawing if config.drawings() else 0)
        return round(worst * SPARE + (CONTEXT if cuda else 0))

    def live_latents(self, config: TrainConfig) -> int:
        """How often the VAE encodes each picture at each step: inpainting bases want what is around a hole too."""
        return 2 if inpaints(self.built.unet) else 0 if config.cache_latents else 1

    def _others(self, config: TrainConfig, pictures: int) -> int:
        """The text encoders while they stay: for live captions, or because they learn."""
        if config.caches_text_embeddings():
            return 0
        size = counting.DTYPES[config.mixed_precision or "no"].itemsize
        if not config.train_text_encoder:
            return self.built.text_parameters() * size
        size = 4 if config.mixed_precision == "fp16" else size
        layers = sum(text["num_hidden_layers"] * 8 * text["hidden_size"] for text in self.built.text)
        return self.built.text_parameters() * size + layers * config.rank * 16 + self.built.text_kept(pictures, size)

    def row(self, machine: Machine) -> Row:
        """The Row of a machine: the largest micro-batch that fits, as the trainer would halve to it."""
        asked = micro = self.config.train_batch_size
        if machine.rate is None:
            note = f"{machine.device} has no bf16: use --mixed_precision fp16"
            return Row(machine, self.peak(asked), 0, None, self.steps(machine.count), note)
        while micro and machine.memory is not None and self.peak(micro) > machine.memory:
            micro = -(-micro // 2) if micro > 1 else 0
        note = f"{micro} at a time" if 0 < micro < asked else ""
        steps, seconds = self.steps(machine.count), self.seconds(machine.rate, micro) if micro else None
        around = self.around(machine.rate * EFFICIENCY, machine.count)
        return Row(machine, self.peak(micro or 1), micro, seconds, steps, note, around=around)

    def row_here(self) -> Row:
        """The Row of this machine: one GPU of it, or its CPU, timed where a step is small enough."""
        import torch

        if torch.cuda.is_available():
            return self._row_gpu()
        asked = self.config.train_batch_size
        memory = disk.free_memory()
        peak = self.peak(asked, cuda=False)
        rate = counting.cpu_rate()
        machine = Machine("this machine", "CPU", 1, memory, rate)
        micro = asked if memory is None or peak < memory else 0
        if self.count.flops * asked > REAL_STEP:
            return Row(
                machine, peak, micro, self.seconds(rate / EFFICIENCY, asked), self.steps(1), around=self.around(rate)
            )
        took = self._timed("cpu", asked).seconds
        around = self.around(self.count.flops * asked / took)
        took *= self.config.gradient_accumulation_steps * self.more
        return Row(machine, peak, micro, took, self.steps(1), measured=True, around=around)

    def _row_gpu(self) -> Row:
        import torch

        about = torch.cuda.get_device_properties(0)
        machine = Machine("this machine", about.name, torch.cuda.device_count(), about.total_memory, 1.0)
        row = self.row(machine)
        if not row.micro_batch:
            return Row(machine, row.peak, 0, None, row.steps)
        try:
            timing = self._timed("cuda", row.micro_batch)
        except (RuntimeError, torch.OutOfMemoryError):  # somebody else has the memory
            return Row(machine, row.peak, row.micro_batch, None, row.steps, "the GPU is busy, nothing was measured")
        portions = -(-self.config.train_batch_size // row.micro_batch) * self.config.gradient_accumulation_steps
        peak = max(round((timing.peak or 0) + self.count.state - 8 * self.count.trained + CONTEXT), 1)
        around = self.around(self.count.flops * row.micro_batch / timing.seconds)
        took = timing.seconds * portions * self.more
        return Row(machine, peak, row.micro_batch, took, row.steps, row.note, measured=True, around=around)

    def _timed(self, device: str, pictures: int) -> counting.Timing:
        built = self.built
        return counting.time_step(self.config, built.unet, built.scale, built.tokens, pictures, device)

    def seconds(self, rate: float, micro: int) -> float:
        """Seconds of an optimizer step at this dense rate, in micro-batches of so many pictures."""
        config = self.config
        each = config.train_batch_size * config.gradient_accumulation_steps
        flops = self.count.flops + self.live_latents(config) * self.vae[3]
        if not config.caches_text_embeddings():
            flops += 2 * self.built.text_parameters() * self.built.tokens * (3 if config.train_text_encoder else 1)
        launches = self.count.operations * -(-config.train_batch_size // micro) * config.gradient_accumulation_steps
        return self.more * max(flops * each / (rate * EFFICIENCY), launches * LAUNCH)

    def around(self, rate: float, processes: int = 1) -> float:
        """Seconds of start-up, of encoding the pictures once and of drawing the validation pictures, at this FLOP/s."""
        config, steps = self.config, self.steps(processes)
        weights, *_, encoding, decoding = self.vae
        size = self.count.frozen + weights + self.built.text_parameters() * self.dtype.itemsize
        forward = self.count.flops / plain_passes(config)
        drawing, launching = 0.0, self.count.operations / 3 * LAUNCH
        if self.entries and steps:
            each = (forward / rate, launching, decoding / rate)
            drawing = looks.seconds(config, steps, self.entries, processes, *each)
        encoded = (self.entries or 0) * pictures_each(config) * config.cached_variants if config.cache_latents else 0
        return IMPORTS + size / DISK_RATE + (encoded * encoding / rate + drawing) / processes

    def steps(self, processes: int) -> int | None:
        """Optimizer steps of the run on so many processes, as the trainer counts them."""
        config = self.config
        if config.max_train_steps:
            return config.max_train_steps
        if self.entries is None:
            return None
        return config.num_train_epochs * steps_per_epoch(config, self.entries, processes)

    def advice(self) -> list[tuple[str, int]]:
        """Changes that take memory away, in the order to try them, each alone, with the peak that it leads to."""
        config, found = self.config, []
        now = self.peak(config.train_batch_size)
        changes: list[tuple[bool, str, dict[str, Any], int]] = [
            (config.train_batch_size > 1, "--train_batch_size 1", {}, 1),
            (not config.gradient_checkpointing, "--gradient_checkpointing", {"gradient_checkpointing": True}, 0),
            (config.mixed_precision in (None, "no"), "--mixed_precision bf16", {"mixed_precision": "bf16"}, 0),
            (config.optimizer_name() != "adamw8bit", "--optimizer adamw8bit", {"optimizer": "adamw8bit"}, 0),
            (not config.cache_latents, "--cache_latents", {"cache_latents": True}, 0),
            (not config.cache_text_embeddings, "--cache_text_embeddings", {"cache_text_embeddings": True}, 0),
            (config.train_text_encoder, "--no_train_text_encoder", {"train_text_encoder": False}, 0),
        ]
        for possible, flag, change, batch in changes:
            if possible:
                size = self.peak(batch or config.train_batch_size, self._changed(change))
                if size < now:
                    found.append((flag, size))
        return found

    def _changed(self, change: dict[str, Any]) -> TrainConfig:
        """The configuration with a change; what excludes it is taken back."""
        try:
            return self.config.replace(**change)
        except ConfigError:
            return self.config
