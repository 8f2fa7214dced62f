"""What one configuration takes on one machine: memory, seconds, the largest micro-batch that fits.

In: a TrainConfig, its base's shapes, how many pictures an epoch sees, a Machine. Out: a Row for estimate_table.py and
limits.py. Memory is counted (counting.py): weights, LoRA state, and everything alive at the worst moment of a step, on
the meta device. Time is FLOPs through a GPU's dense rate at a stated efficiency, or operations through the time that
launching one takes, whichever is longer; on this machine it is measured where a step is small enough.
"""

from dataclasses import dataclass
from typing import Any

import torch

from ..cache.latents import at_once
from ..config.train_config import TrainConfig
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
GB = 1e9


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

    `around` are the seconds that start-up, encoding and validation pictures take in all; `start` those of them until
    the first step, but for pictures drawn before it.
    """

    machine: Machine
    peak: int
    micro_batch: int
    seconds: float | None
    steps: int | None
    note: str = ""
    measured: bool = False
    around: float = 0.0
    start: float = 0.0

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


def rented(
    instance: prices.Instance, config: TrainConfig, price: prices.Price | None = None, count: int = 1
) -> Machine:
    """So many instances of a type as one Machine, for the dtype of a configuration."""
    rate = instance.tflops(config.mixed_precision or "no")
    hourly = price.hourly * count if price else None
    spot = None if hourly is None else hourly * (1 - instance.spot_saving)
    source, memory = price.source if price else "", instance.memory_gb * GB
    return Machine(
        instance.name, instance.gpu, instance.count * count, memory, rate and rate * 1e12, hourly, spot, source
    )


class Forecast:
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
        usual = machine.rate * EFFICIENCY
        around, start = self.around(usual, machine.count), self.start(usual, machine.count)
        return Row(machine, self.peak(micro or 1), micro, seconds, steps, note, around=around, start=start)

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

    def size(self) -> int:
        """Bytes of the base's parts."""
        return self.count.frozen + self.vae[0] + self.built.text_parameters() * self.dtype.itemsize

    def start(self, rate: float, processes: int = 1) -> float:
        """Seconds of start-up and of encoding the pictures once, at this FLOP/s."""
        config = self.config
        encoded = (self.entries or 0) * pictures_each(config) * config.cached_variants if config.cache_latents else 0
        return IMPORTS + self.size() / DISK_RATE + encoded * self.vae[-2] / rate / processes

    def around(self, rate: float, processes: int = 1) -> float:
        """Seconds of start-up, of encoding the pictures once and of drawing the validation pictures, at this FLOP/s."""
        config, steps, drawing = self.config, self.steps(processes), 0.0
        if self.entries and steps:
            forward = self.count.flops / plain_passes(config) / rate
            each = (forward, self.count.operations / 3 * LAUNCH, self.vae[-1] / rate)
            drawing = looks.seconds(config, steps, self.entries, processes, *each)
        return self.start(rate, processes) + drawing / processes

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
