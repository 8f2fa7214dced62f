"""One optimizer step: pictures in, new LoRA weights out, and a few numbers to read when they are there.

In: the Studio's batches and predictions. Out: the flat weights, moved. Nothing in here waits for the device: loss and
norm are on their way to the host while the next step is launched (`Numbers`).
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from ..config.train_config import TrainConfig
from ..data.sampling import Choices, Stream, share, strata
from ..lora.acceleration import rooms, take_the_short_way
from ..lora.cuda_graphs import Graphs
from ..lora.dropout import keyed
from ..lora.timestep_ranks import TimestepRanks
from ..system.memory import TOO_LARGE, TooLittleMemory, give_back, is_out_of_memory
from . import objective
from .noise.further import offset_noise, perturbation, pyramid
from .noise.noising import Noising
from .noise.timesteps import spread, stratified
from .optimizing.groups import groups, last_step_of_encoders, rates
from .optimizing.norms import LargestNorms
from .optimizing.optimizers import evaluates_apart, evaluating, found_sizes, make_optimizer, without
from .optimizing.schedules import learning_rates
from .processes import Processes
from .setup import Batch, Studio
from .state.parameters import Average, FlatParameters
from .teachers import pairs, prior, slider


class Numbers:
    """What a step says of itself: `read` waits for these numbers alone, not for what was launched after them."""

    def __init__(
        self,
        values: torch.Tensor,
        rate: float,
        begun: float,
        rates: Mapping[str, float] | None = None,
        found: Sequence[float] = (),
    ):
        self.rate, self.begun, self.values = rate, begun, values
        self.rates, self.found = dict(rates or {}), list(found)  # of each group; step sizes that it found itself
        self.scaled: int | None = None  # from `read` on: how many layers scale_weight_norms scaled down
        self.copied: torch.cuda.Event | None = None
        if values.is_cuda:
            self.values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self.copied = torch.cuda.Event()
            self.copied.record()

    def read(self) -> tuple[float, float, bool, bool]:
        """Loss, norm of the gradient, whether any process was asked to stop, and whether any failed."""
        if self.copied:
            self.copied.synchronize()
        loss, norm, stop, failed, *scaled = self.values.tolist()
        self.scaled = int(scaled[0]) if scaled else None
        return loss, norm, stop > 0, failed > 0


class Noised(NamedTuple):
    """What the loss of a micro-batch is computed of: `seen` is the noise of its input, where that is another."""

    batch: Batch
    choices: list[Choices]
    noise: torch.Tensor
    seen: torch.Tensor | None
    weight: torch.Tensor | None
    c: torch.Tensor | None


class Counted(NamedTuple):
    """The tensors of `Noised`, with a mask (N, 1, h, w) of what each place counts and what each picture does, (N,)."""

    batch: Batch
    noise: torch.Tensor
    seen: torch.Tensor | None
    weight: torch.Tensor | None
    c: torch.Tensor | None
    mask: torch.Tensor | None
    counts: torch.Tensor | None


class Step:
    """The weights that learn, their optimizer, and what one step does with a batch."""

    def __init__(
        self,
        config: TrainConfig,
        studio: Studio,
        processes: Processes,
        stream: Stream,
        steps: int,
        warn: Callable[[str], None],
        debug: Callable[[dict[str, float]], None],
    ):
        self.config, self.studio, self.processes, self.stream = config, studio, processes, stream
        self.warn, self.debug = warn, debug
        self.flat = FlatParameters(studio.trained)
        self.dropout = keyed(studio.trained, config.rank_dropout, config.module_dropout)
        largest = config.scale_weight_norms
        self.norms = None if largest is None else LargestNorms(studio.trained, largest)
        take_the_short_way(studio.unet, self.flat, config)
        self.average = Average(self.flat, config.ema_decay) if config.use_ema else None
        self.rate = learning_rates(config, steps, processes.count)
        self.groups = groups(config, self.flat)
        self.last_of_encoders = last_step_of_encoders(config, steps)
        self.optimizer = make_optimizer(config, self.flat, self.groups, studio.remarks)
        self.scaler = torch.amp.GradScaler(studio.device.type, enabled=studio.dtype == torch.float16)
        self.kind = studio.objective.prediction
        self.noising = Noising.of(studio.objective, studio.device)
        self.alpha_bar = self.noising.alpha_bar
        self.ranks = TimestepRanks(studio.unet, config, len(self.noising)) if config.tlora_min_rank else None
        studio.remarks += objective.check(config, studio.objective, len(self.noising))
        self.spread = spread(config, len(self.noising))
        shared = partial(rooms, studio.unet)
        self.graphs = Graphs(self._learned, self.flat.gradient, shared) if config.cuda_graphs else None
        self.micro_batch = config.train_batch_size
        self.failure: Exception | None = None

    step: int  # the one that `take` is at
    still: list[bool]  # which groups learn no more
    scaled: torch.Tensor | None = None  # how many layers scale_weight_norms scaled at this step

    def take(self, step: int, asked_to_stop: bool = False) -> Numbers:
        """Forward and backward over the pictures of `step` (from 0) in micro-batches, then one update."""
        begun, self.step = time.monotonic(), step
        now = self._set_rates(step)
        positions = self.stream.positions(step)
        mine = share(positions, self.processes.index, self.processes.count)
        total = self._gradients(mine, len(positions))
        votes = [torch.full_like(total, float(vote)) for vote in (asked_to_stop, self.failure is not None)]
        told = torch.stack([total, *votes])
        self.processes.add_up(told, self.flat.gradient)
        norm = self._move(told[2])
        several = {group.name: rate for group, rate in zip(self.groups, now, strict=True)} if len(now) > 1 else {}
        parts = [told[:1], norm.reshape(1), told[1:]]
        if self.scaled is not None:
            parts.append(self.scaled.reshape(1).to(told))
        return Numbers(torch.cat(parts), now[0], begun, several, found_sizes(self.optimizer))

    @torch.no_grad()
    def probed(self, steps: Sequence[int]) -> float:
        """The mean loss of the pictures and noise of these steps, as the weights are; nothing is learned from it."""
        losses, count = [], 0
        for self.step in steps:
            positions = self.stream.positions(self.step)
            count += len(positions)
            for some, pictures in self._micro_batches(positions):
                losses += [float(loss) for loss in self._losses(some, pictures)]
        return sum(losses) / count

    def _set_rates(self, step: int) -> list[float]:
        """Tell the optimizer the rate of each group at this step, 0 for text encoders that have learned enough."""
        now = rates(self.groups, self.config, self.rate, step)
        over = self.last_of_encoders is not None and step >= self.last_of_encoders
        self.still = [over and group.stops for group in self.groups]
        now = [0.0 if still else rate for rate, still in zip(now, self.still, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, now, strict=True):
            group["lr"] = rate
        if over:
            for name, model in self.studio.trained.items():
                if name != "unet":
                    model.requires_grad_(False)
        return now

    def evaluated(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the models have the weights that are drawn, measured and kept as files: averaged ones, if any."""
        if self.average:
            return self.average.in_place()
        return evaluating(self.optimizer, self.flat) if evaluates_apart(self.optimizer) else contextlib.nullcontext()

    def _move(self, failures: torch.Tensor) -> torch.Tensor:
        """One update of the weights and their average; the gradient's norm before it was clipped.

        Nothing moves where the part of a process is missing. Fused AdamW and the average read that on the device; for
        other optimizers, and for fp16's scaler, the host of one of several processes waits for it.
        """
        failed = None
        if self.processes.count > 1:
            failed = failures.clamp(max=1.0)
            if self.scaler.is_enabled() or not getattr(self.optimizer, "_step_supports_amp_scaling", False):
                if failed.item():
                    return torch.zeros_like(failed)
            else:
                self.optimizer.found_inf = failed  # type: ignore[attr-defined]  # as GradScaler tells it to skip a step
        self.scaler.unscale_(self.optimizer)
        norm = self.flat.clip(self.config.max_grad_norm)
        with without(self.optimizer, self.still):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scaled = self.norms() if self.norms else None
        if self.average:
            self.average.update(self.step + 1, failed)
        return norm

    def _gradients(self, mine: range, count: int) -> torch.Tensor:
        """Leave the summed gradient of `mine` in the flat buffer; the loss's share of this process.

        One of several processes that fails goes on with a gradient of zero, so that the others hear of it; none of
        them then takes this step, nor a later one.
        """
        try:
            if self.failure:
                raise self.failure
            while (total := self._attempt(mine, count)) is None:
                self.halve()
            return total
        except Exception as problem:
            if self.processes.count == 1:
                raise
            self.failure = problem
            self.flat.zero_grad()
            return torch.zeros((), device=self.studio.device)

    def _attempt(self, mine: range, count: int) -> torch.Tensor | None:
        """The summed loss over `count`, gradients left in the buffer; None when memory ran out."""
        self.flat.zero_grad()
        total = torch.zeros((), device=self.studio.device)
        try:
            for positions, pictures in self._micro_batches(mine):
                if self.graphs:
                    noised = self._noised(positions, pictures)
                    total += self.graphs(self._counted(pictures, noised), torch.full_like(total, count))
                    continue
                with contextlib.closing(self._losses(positions, pictures)) as losses:
                    for loss in losses:
                        self.scaler.scale(loss / count).backward()
                        total += loss.detach() / count
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None  # halve outside: the exception's traceback holds the tensors that do not fit
        return total

    def _micro_batches(self, mine: range) -> Iterator[tuple[range, list[int]]]:
        """The positions and pictures to compute at once: as many as fit into memory, all of one shape."""
        pictures = self.stream.pictures(mine)
        first = 0
        for last in range(1, len(pictures) + 1):
            full = last - first == self.micro_batch or last == len(pictures)
            if full or self.studio.shape(pictures[last]) != self.studio.shape(pictures[first]):
                yield mine[first:last], pictures[first:last]
                first = last

    def _losses(self, positions: range, pictures: list[int]) -> Generator[torch.Tensor, None, None]:
        """The summed loss of these pictures at these positions, then that of keeping what the base makes of others.

        Of a slider's pairs the half of each picture's, at its strength, which holds until the next is asked for.
        """
        if opposites := self.studio.opposites(pictures):
            for factor, seen in ((self.config.slider_strength, pictures), (-self.config.slider_strength, opposites)):
                with pairs.strength(self.studio.trained, factor):
                    for loss in self._of(self._noised(positions, seen), pictures):
                        yield loss / 2
        else:
            yield from self._of(self._noised(positions, pictures), pictures)

    def _of(self, noised: Noised, pictures: list[int]) -> Iterator[torch.Tensor]:
        """The losses of what is noised; `pictures` say what each counts."""
        yield self._loss(pictures, noised)
        if self.config.prior_without_pictures:
            yield self._kept(noised)

    def _noised(self, positions: range, pictures: list[int]) -> Noised:
        """These pictures with the noise, and all other random choices, of these positions."""
        config = self.config
        timesteps, empty = len(self.alpha_bar), self.studio.empty_share
        choices = [
            Choices.at(config.seed, position, timesteps=timesteps, empty_share=empty(picture))
            for position, picture in zip(positions, pictures, strict=True)
        ]
        if self.dropout:
            self.dropout.set([each.dropout_key() for each in choices], self.studio.device)
        choices = self._at_timesteps(choices, positions)
        if self.ranks:
            self.ranks.set([each.timestep for each in choices], self.studio.device)
        batch = self.studio.batch(pictures, choices)
        noise, seen = self._noise(batch, choices)
        c = None
        if config.loss_type in ("huber", "smooth_l1"):
            c = objective.huber_c(config.huber_schedule, config.huber_c, batch.timesteps, self.alpha_bar)
        weight = objective.weight(config, self.kind, batch.timesteps, self.alpha_bar)
        return Noised(batch, choices, noise, seen, weight, c)

    def _loss(self, pictures: list[int], noised: Noised) -> torch.Tensor:
        """The summed loss of these pictures."""
        config = self.config
        if config.slider_positive is not None:
            predicted, wanted = slider.pair(config, self.studio, *self._told(noised))
            each = objective.losses(predicted, wanted, noised.weight, config.loss_type, noised.c)
            counts = self.studio.weights(pictures)
            each = each if counts is None else each * counts
        else:
            each = self._each(self._counted(pictures, noised))
        if config.debug_loss:
            self.debug(dict(zip(noised.batch.names, each.tolist(), strict=True)))
        return each.sum()

    def _counted(self, pictures: list[int], noised: Noised) -> Counted:
        """What is noised, without choices, and what every place and picture of it counts."""
        batch, choices, noise, seen, weight, c = noised
        mask, counts = self.studio.mask(pictures, choices), self.studio.weights(pictures)
        return Counted(batch, noise, seen, weight, c, mask, counts)

    def _each(self, one: Counted) -> torch.Tensor:
        """The loss of each picture, (N,)."""
        each = self.errors(one.batch, one.noise, one.weight, self.config.loss_type, one.c, one.mask, one.seen)
        return each if one.counts is None else each * one.counts

    def _learned(self, one: Counted, count: torch.Tensor) -> torch.Tensor:
        """The loss over `count`, (), of a micro-batch whose gradient is added: all that a CUDA graph records."""
        loss = self._each(one).sum() / count
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _kept(self, noised: Noised) -> torch.Tensor:
        """The summed loss between what is predicted for plain prompts and what the base itself predicts for them."""
        config, studio, texts = self.config, self.studio, prior.chosen(self.config, noised.choices)
        noisy, told = self._told(noised)
        with prior.without_lora(studio.trained):
            wanted = studio.predict(noisy, told._replace(prompt=studio.embedded(texts)))
        # text encoders that learn make another embedding with their LoRA on
        predicted = studio.predict(noisy, told._replace(prompt=studio.embedded(texts)))
        each = objective.losses(predicted, wanted, noised.weight, config.loss_type, noised.c)
        return config.prior_loss_weight * each.sum()

    def _told(self, noised: Noised) -> tuple[torch.Tensor, Batch]:
        """The noisy latents, and the batch with the times that the U-Net is told."""
        batch, seen = noised.batch, noised.noise if noised.seen is None else noised.seen
        noisy = self.noising.noisy(batch.latents, seen, batch.timesteps)
        return noisy, batch._replace(timesteps=self.noising.times(batch.timesteps))

    def _at_timesteps(self, choices: list[Choices], positions: range) -> list[Choices]:
        """The choices at the timesteps that the distribution asked for makes of theirs."""
        if self.config.timestep_distribution == "stratified":
            whole, count = self.stream.positions(self.step), len(self.noising)
            parts = strata(whole, self.config.seed)
            choices = [
                replace(c, timestep=stratified(c.timestep, parts[position - whole[0]], len(whole), count))
                for c, position in zip(choices, positions, strict=True)
            ]
        if self.spread is None:
            return choices
        return [replace(c, timestep=int(self.spread[c.timestep])) for c in choices]

    def _noise(self, batch: Batch, choices: list[Choices]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The noise that is to be predicted, and another one that the U-Net sees, if it is to be disturbed."""
        config, noise = self.config, batch.noise
        if config.noise_offset or config.adaptive_noise_scale:
            noise = offset_noise(noise, batch.offset, config.noise_offset, config.adaptive_noise_scale, batch.latents)
        if not (config.input_perturbation or config.multires_noise_iterations):
            return noise, None
        generators = [choice.further() for choice in choices]
        disturbed = perturbation(noise, generators) if config.input_perturbation else None
        if config.multires_noise_iterations:
            noise = pyramid(noise, generators, config.multires_noise_iterations, config.multires_noise_discount)
        return noise, None if disturbed is None else noise + config.input_perturbation * disturbed

    def errors(
        self,
        batch: Batch,
        noise: torch.Tensor,
        weight: torch.Tensor | None = None,
        kind: str = "l2",
        c: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        seen: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of each picture of a batch with this noise, (N,); the options of objective.losses.

        `seen` is the noise of the input, where that is another one.
        """
        noisy = self.noising.noisy(batch.latents, noise if seen is None else seen, batch.timesteps)
        wanted = self.noising.target(batch.latents, noise, batch.timesteps)
        told = batch._replace(timesteps=self.noising.times(batch.timesteps))
        return objective.losses(self.studio.predict(noisy, told), wanted, weight, kind, c, mask)

    def halve(self) -> None:
        """Compute half as many pictures at once from now on, because so many do not fit; TooLittleMemory after one."""
        if self.micro_batch == 1:
            raise TooLittleMemory(TOO_LARGE)
        self.micro_batch = -(-self.micro_batch // 2)
        if self.graphs:
            self.graphs.clear()
        give_back(self.studio.device)
        self.warn(f"A batch does not fit into memory: from now on {self.micro_batch} at a time, with the same result.")
