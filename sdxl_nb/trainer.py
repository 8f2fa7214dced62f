"""Fine-tune a LoRA: the parts put together (`fine_tune`), and the loop (`Trainer.train`), one screen.

In: a TrainConfig. Out: a run folder, and the Run that reads it. Training knows no widget, no plot and no AWS: it
writes the folder and calls one callback with plain events.
"""

import math
import time
from typing import Any

import torch

from . import checkpoint, objective
from .endings import TOO_LARGE, ending, explained
from .errors import ConfigError, SdxlNbError
from .events import Callback, EventLog
from .folder import RunFolder
from .lora import LoraFile, build_metadata, collect, save_lora
from .lora.readers import DORA
from .machine import check_machine
from .parameters import FlatParameters, learning_rates, make_optimizer
from .run import Run
from .sampling import Choices, Stream, share
from .signals import StopRequest
from .studio import Studio, join_processes, prepare
from .trackers import Trackers


def fine_tune(config: Any, callback: Callback | None = None, *, progress: bool = True) -> Run:
    """Train as `config` says, in this process; returns the Run when it is over (completed, or stopped by request).

    `callback` gets every event as a dict. Ctrl-C, SIGTERM, `Run.stop()` or a file named `stop` in the run folder end
    it after the current step, with a checkpoint and the LoRA saved; before the first step a signal interrupts at once
    (KeyboardInterrupt). Raises SdxlNbError with one sentence.
    """
    check_machine(config)
    config, first = join_processes(config)
    folder = RunFolder(config, writes=first)
    try:
        folder.refuse_foreign(config)
        with StopRequest(folder.stop_file) as stop:
            _run(config, folder, callback, progress and first, stop)
    finally:
        folder.release()
    return Run(folder.path)


def _run(config: Any, folder: RunFolder, callback: Callback | None, progress: bool, stop: StopRequest) -> None:
    """Everything between taking the folder and giving it back."""
    begun = time.monotonic()
    with explained(folder.path):
        studio = prepare(config, folder, progress)  # raises before anything is written
        found = checkpoint.find(folder.path, config.resume_from_checkpoint)
        resumed = checkpoint.load(found) if found else None
        trainer = Trainer(config, studio, folder, stop)
        if resumed:
            checkpoint.check_resumable(resumed[0], trainer.progress(), found.name)
            trainer.restore(*resumed)
        folder.begin(config, resumed_from=found)
        log = EventLog(folder.path, [callback] if callback else [], writes=folder.writes, quiet=not progress)
    with ending(log, begun) as outcome, explained(folder.path):
        trackers = Trackers(config, studio.accelerator, folder.path, log.warn)
        log.listeners.insert(0, trackers)
        try:
            outcome["status"] = trainer.run(log, resumed_from=trainer.step if found else None)
        finally:
            trackers.close()


class Trainer:
    """A run between two checkpoints: the parts, the flat weights, the optimizer and the step."""

    def __init__(self, config: Any, studio: Studio, folder: RunFolder, stop: StopRequest):
        self.config, self.studio, self.folder, self.stop = config, studio, folder, stop
        processes = studio.accelerator.num_processes
        self.stream = Stream(
            len(studio.pictures),
            config.train_batch_size * config.gradient_accumulation_steps * processes,
            config.seed,
        )
        self.steps = config.max_train_steps or config.num_train_epochs * self.stream.steps_per_epoch
        self.flat = FlatParameters(studio.trained)
        self.rate = learning_rates(config, self.steps, processes)
        self.optimizer = make_optimizer(config, [self.flat.weights], self.rate(0))
        self.scaler = torch.amp.GradScaler(studio.device.type, enabled=studio.dtype == torch.float16)
        self.kind = config.prediction_type or studio.scheduler.config.prediction_type
        self.alpha_bar = objective.alpha_bar(
            studio.scheduler.config, rescale_zero_snr=config.rescale_betas_zero_snr, device=studio.device
        )
        self._check_objective()
        self.step = 0
        self.micro_batch = config.train_batch_size
        self.recent: list[float] = []

    def run(self, log: EventLog, resumed_from: int | None) -> str:
        """Everything between start and end; returns the status, completed or stopped."""
        self.log, log.step = log, self.step
        self._announce(resumed_from)
        self.studio.encode(log)
        if self._ends_validation_epoch():
            self._validate()  # before the first step, or what a stop or a kill left out
        self.stop.defer()
        finished = self.train()
        if not finished:
            log.say(f"Stopped after step {self.step} of {self.steps}; --resume_from_checkpoint latest goes on.")
        if self.folder.writes:
            self._finish(finished)
        return "completed" if finished else "stopped"

    def train(self) -> bool:
        """Take optimizer steps until the last; False when asked to stop before."""
        with self._bar() as bar:
            while self.step < self.steps:
                begun = time.monotonic()
                loss = self._optimizer_step()
                self.step += 1
                self._report(loss, time.monotonic() - begun, bar)
                last = self.step == self.steps
                stop = self.studio.agree(self.stop.asked()) and not last
                saves = stop or last or self.step % self.config.checkpointing_steps == 0
                if saves:
                    self._checkpoint()
                if stop:
                    return False
                if self._ends_validation_epoch():
                    self._validate(saved=saves)
        return True

    def _optimizer_step(self) -> float:
        """Forward and backward over this step's pictures in micro-batches, then one update of the flat weights."""
        rate = self.rate(self.step)
        self.optimizer.param_groups[0]["lr"] = rate
        positions = self.stream.positions(self.step)
        mine = share(positions, self.studio.accelerator.process_index, self.studio.accelerator.num_processes)
        total = self._gradients(mine, len(positions))
        self.scaler.unscale_(self.optimizer)
        norm = self.flat.clip(self.config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self._finite(*torch.stack([total, norm]).tolist())

    def _gradients(self, mine: range, count: int) -> torch.Tensor:
        """Leave the summed gradient of `mine` in the flat buffer; a micro-batch too large for memory is halved."""
        while (total := self._attempt(mine, count)) is None:
            self._halve()
        return self.studio.add_up(total, self.flat.weights.grad)

    def _attempt(self, mine: range, count: int) -> torch.Tensor | None:
        """The summed loss over `count`, gradients left in the buffer; None when memory ran out."""
        self.flat.zero_grad()
        total = torch.zeros((), device=self.studio.device)
        try:
            for first in range(0, len(mine), self.micro_batch):
                loss = self._loss(mine[first : first + self.micro_batch]) / count
                self.scaler.scale(loss).backward()
                total += loss.detach()
        except torch.OutOfMemoryError:
            return None  # halve outside: the exception's traceback holds the tensors that do not fit
        return total

    def _loss(self, positions: range) -> torch.Tensor:
        """The summed loss of the pictures at these positions."""
        config, studio = self.config, self.studio
        timesteps = len(self.alpha_bar)
        choices = [
            Choices.at(config.seed, p, timesteps=timesteps, empty_share=config.proportion_empty_prompts)
            for p in positions
        ]
        if config.lora_dropout:  # it repeats on resume, in the text encoders too
            torch.manual_seed(config.seed * 1_000_003 + positions[0])
        batch = studio.batch(self.stream.pictures(positions), choices)
        noise = batch.noise
        if config.noise_offset:  # https://www.crosslabs.org/blog/diffusion-with-offset-noise
            noise = noise + config.noise_offset * batch.offset
        noisy = objective.add_noise(batch.latents, noise, batch.timesteps, self.alpha_bar)
        wanted = objective.target(self.kind, batch.latents, noise, batch.timesteps, self.alpha_bar)
        weight = objective.min_snr_weight(self.kind, batch.timesteps, self.alpha_bar, config.snr_gamma)
        each = objective.losses(studio.predict(noisy, batch), wanted, weight)
        if config.debug_loss:
            self.log.emit("debug", losses=dict(zip(batch.names, each.tolist(), strict=True)))
        return each.sum()

    def _halve(self) -> None:
        if self.micro_batch == 1:
            raise SdxlNbError(TOO_LARGE)
        self.micro_batch = -(-self.micro_batch // 2)
        torch.cuda.empty_cache()
        same = "the same result" + (" but for other random choices of lora_dropout" if self.config.lora_dropout else "")
        self.log.warn(f"A batch does not fit into memory: from now on {self.micro_batch} at a time, with {same}.")

    def _finite(self, loss: float, norm: float) -> float:
        """The loss; SdxlNbError when it or the gradient's norm is no number, before a checkpoint can keep that."""
        if math.isfinite(loss) and (math.isfinite(norm) or self.scaler.is_enabled()):
            return loss  # GradScaler looks for gradients that overflow in fp16, and skips their step
        what = "gradient" if math.isfinite(loss) else "loss"
        newest = next(reversed(checkpoint.checkpoints(self.folder.path)), None)
        kept = f"; {newest.name} is still good" if newest else ""
        raise SdxlNbError(
            f"The {what} at step {self.step + 1} is not a finite number: lower --learning_rate, try "
            f"--mixed_precision bf16 (or no), or check the VAE{kept}."
        )

    def _check_objective(self) -> None:
        config = self.config
        if config.snr_gamma and config.rescale_betas_zero_snr and self.kind == "epsilon":
            raise ConfigError(
                "snr_gamma with rescale_betas_zero_snr needs --prediction_type v_prediction: "
                "with epsilon the weight at the last timestep is 0 / 0"
            )

    # What a run says and keeps.

    def _announce(self, resumed_from: int | None) -> None:
        config, studio = self.config, self.studio
        self.log.emit(
            "start",
            steps=self.steps,
            epochs=math.ceil(self.steps / self.stream.steps_per_epoch),
            pictures=len(studio.pictures),
            parameters=self.flat.weights.numel(),
            batch=self.stream.batch,
            processes=studio.accelerator.num_processes,
            device=str(studio.device),
            resumed_from=resumed_from,
            fingerprint=config.fingerprint(),
        )
        if resumed_from is not None:
            self.log.say(f"Resuming at step {resumed_from}.")
        elif config.resume_from_checkpoint:
            self.log.warn("There is no checkpoint to resume from yet: starting from the first step.")
        self.log.say(
            f"{len(studio.pictures)} pictures, {self.flat.weights.numel():,} trainable parameters, "
            f"{self.steps} steps of {min(self.stream.batch, self.stream.count)} on {studio.device.type}."
        )
        for line in [*studio.remarks, *self._remarks()]:
            self.log.warn(line)

    def _remarks(self) -> list[str]:
        config, remarks = self.config, [DORA] if self.config.use_dora else []
        if config.lr_scheduler != "constant" and config.lr_warmup_steps >= self.steps:
            remarks.append(
                f"lr_warmup_steps {config.lr_warmup_steps} is no less than the {self.steps} steps of this run, so the "
                "learning rate never reaches learning_rate: lower it."
            )
        return remarks

    def _bar(self) -> Any:
        from .progress import progress_bar

        return progress_bar(total=self.steps, initial=self.step, unit="step", disable=self.log.quiet)

    def _report(self, loss: float, seconds: float, bar: Any) -> None:
        self.recent = [*self.recent[-49:], loss]
        self.log.step = self.step
        rate = self.optimizer.param_groups[0]["lr"]
        self.log.emit("step", train_loss=loss, lr=rate, seconds=round(seconds, 4))
        bar.update()
        bar.set_postfix(loss=f"{self._recent_loss():.4f}", lr=f"{rate:.1e}", refresh=False)

    def _ends_validation_epoch(self) -> bool:
        """Whether pictures are due at this step (0 counts) and not all there yet."""
        config = self.config
        every = self.stream.steps_per_epoch * config.validation_epochs
        if not config.validation_prompt or (self.step % every and self.step != self.steps):
            return False
        drawn = len(list(self.folder.path.glob(f"validation/step-{self.step}/*.png")))
        return drawn < len(config.validation_prompt) * config.num_validation_images

    def _validate(self, saved: bool = True) -> None:
        """Draw and report the pictures; when that fails, steps that no checkpoint has are saved first."""
        try:
            paths = self.studio.validate(self.step)
        except Exception:
            if not saved:
                self._checkpoint()
            raise
        if paths:
            relative = [str(path.relative_to(self.folder.path)) for path in paths]
            self.log.emit("validation", pictures=relative, prompts=self.config.validation_prompt)

    def progress(self) -> checkpoint.Progress:
        """What a checkpoint of this moment says of itself."""
        return checkpoint.Progress(
            step=self.step,
            identity=self.config.identity(),
            pictures=len(self.studio.pictures),
            data_fingerprint=self.studio.data_fingerprint,
            processes=self.studio.accelerator.num_processes,
            precision=str(self.studio.dtype).removeprefix("torch."),
            parameters={n: list(p.shape) for n, p in zip(self.flat.names, self.flat.parameters, strict=True)},
            scaler=self.scaler.state_dict() or None,
            recent_losses=self.recent,
            micro_batch=self.micro_batch,
        )

    def _checkpoint(self) -> None:
        if not self.folder.writes:
            return
        tensors = {"weights": self.flat.weights.data, **checkpoint.optimizer_tensors(self.optimizer)}
        path = checkpoint.save(self.folder.path, self.progress(), tensors, self._write_lora)
        self.log.emit("checkpoint", path=path.name)
        checkpoint.prune(self.folder.path, self.config.checkpoints_total_limit)

    def restore(self, progress: checkpoint.Progress, tensors: dict[str, torch.Tensor]) -> None:
        """Go back to what `_checkpoint` saved."""
        self.flat.weights.data.copy_(tensors["weights"])
        checkpoint.restore_optimizer(self.optimizer, tensors)
        if progress.scaler:
            self.scaler.load_state_dict(progress.scaler)
        self.step, self.recent = progress.step, list(progress.recent_losses)
        self.micro_batch = min(self.micro_batch, progress.micro_batch or self.micro_batch)

    def _recent_loss(self) -> float | None:
        return sum(self.recent) / len(self.recent) if self.recent else None

    def _write_lora(self, folder: Any) -> tuple[Any, Any]:
        config = self.config
        metadata = build_metadata(
            config,
            output_name=config.lora_name(),
            steps=self.step,
            epochs=math.ceil(self.step / self.stream.steps_per_epoch),
            num_train_images=len(self.studio.pictures),
            data_fingerprint=self.studio.data_fingerprint,
            loss={"train": self._recent_loss()} if self.recent else None,
            trigger_words=[config.trigger_word] if config.trigger_word else [],
            prediction_type=self.kind,
        )
        return save_lora(collect(**self.studio.models), folder, config.lora_name(), metadata)

    def _finish(self, finished: bool) -> None:
        from .card import write_card

        files = self._write_lora(self.folder.path)
        self.log.emit("lora", files=[{"file": f.name, "readers": LoraFile(f).check().as_dicts()} for f in files])
        pictures, loss = len(self.studio.pictures), self._recent_loss()
        write_card(self.config, self.folder.path, steps=self.step, pictures=pictures, loss=loss)
        if self.config.push_to_hub and finished:
            from .hub import publish

            publish(self.config, self.folder.path, self.log)
