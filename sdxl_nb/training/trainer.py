"""Fine-tune a LoRA: the parts put together (`fine_tune`), and the loop (`Trainer.train`), one screen.

In: a TrainConfig. Out: a run folder, and the Run that reads it. Training knows no widget, no plot and no AWS: it
writes the folder and calls one callback with plain events.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..config.layout import DRAW, SAVE, checkpoints
from ..config.machine import check_machine
from ..config.train_config import TrainConfig
from ..lora.starting.going_on import remarks, taken_over
from ..runs.checkpoints import find
from ..runs.events import Callback, EventLog
from ..runs.folder import RunFolder
from ..runs.run import Run
from ..system.errors import SdxlNbError, Stopped
from ..system.memory import NO_MEMORY_TO_DRAW, TooLittleMemory, give_back, in_memory, mapped
from . import disk, heldout, saving
from .epochs import looked_at_every, measured_every
from .optimizing.schedules import learning_rates
from .outcome import ending, explained
from .processes import Processes
from .reports import reporting
from .reports.trackers import Trackers
from .setup import Studio, prepare
from .signals import StopRequest, taken
from .state import checkpoint, resuming
from .step import Numbers, Step
from .validation import write_pictures

LISTENS = 10  # steps after which several processes agree on what was asked for; one looks at every step
MOST_OVERFLOWS = 20  # fp16 steps in a row: by then GradScaler has gone from 65,536 to a sixteenth


def fine_tune(config: TrainConfig, callback: Callback | None = None, *, progress: bool = True) -> Run:
    """Train as `config` says, in this process; returns the Run when it is over (completed, or stopped by request).

    `callback` gets every event as a dict. Ctrl-C, SIGTERM, `Run.stop()` or a file named `stop` in the run folder end
    it after the current step, with a checkpoint and the LoRA saved. Before the first step there is no LoRA to save, but
    what is encoded is kept, and a signal interrupts at once (KeyboardInterrupt). Raises SdxlNbError with one sentence.
    """
    check_machine(config)
    processes = Processes.join()
    with processes.sharing_failures():
        given = config.replace(seed=processes.from_first(lambda: config.seed))
        config = taken_over(given)
        folder = RunFolder(config, writes=processes.first)
        try:
            folder.refuse_foreign(config)
            with StopRequest(folder.stop_file) as stop:
                _run(config, folder, processes, callback, progress and processes.first, stop, remarks(given, config))
        finally:
            folder.release()
            if torch.accelerator.is_available():  # memory that a notebook's next cell may want
                give_back()
    return Run(folder.path)


def _run(
    config: TrainConfig,
    folder: RunFolder,
    processes: Processes,
    callback: Callback | None,
    progress: bool,
    stop: StopRequest,
    told: list[str],
) -> None:
    """Everything between taking the folder and giving it back."""
    begun = time.monotonic()
    with processes.sharing_failures(), explained(folder.path):
        studio = prepare(config, folder, progress)  # raises before anything is written
        found = processes.from_first(lambda: _found(config, folder))
        trainer = Trainer(config, studio, folder, stop, processes)
        saving.check_alike(trainer)
        if found:
            path, kept, tensors = found
            resuming.check_resumable(kept, saving.progress(trainer), path.name)
            longer = resuming.remark(
                kept, config, trainer.steps, trainer.stream.steps_per_epoch, path.name, learning_rates
            )
            told = [longer] if longer else []
            saving.restore(trainer, kept, tensors)
        studio.remarks += told
        if folder.writes and not found:
            weights, an_epoch = trainer.updates.flat.weights.numel(), trainer.stream.steps_per_epoch
            disk.refuse_full_run(config, weights, trainer.steps, an_epoch)
        studio.remarks += folder.begin(config, resumed_from=found[0] if found else None)
        log = EventLog(folder.path, [callback] if callback else [], writes=folder.writes, quiet=not progress)
    with ending(log, begun) as outcome, explained(folder.path):
        trackers = Trackers(config, studio.accelerator, folder.path, log.warn)
        log.listeners.insert(0, trackers)
        try:
            with processes.sharing_failures(), explained(folder.path), mapped(_weights_on_cpu(studio)):
                outcome.update(trainer.run(log, resumed_from=trainer.step if found else None))
        finally:
            trackers.close(outcome["status"])


def _weights_on_cpu(studio: Studio) -> int:
    """Bytes of the U-Net where it is computed on the CPU, though it may not be read yet."""
    every = (*studio.unet.parameters(), *studio.unet.buffers()) if studio.device.type == "cpu" else ()
    return sum(tensor.nbytes for tensor in every)


def _found(config: TrainConfig, folder: RunFolder) -> tuple[Path, checkpoint.Progress, checkpoint.Tensors] | None:
    """The checkpoint to resume from and what is in it, if there is one."""
    found = find(folder.path, config.resume_from_checkpoint)
    return (found, *checkpoint.load(found)) if found else None


class Trainer:
    """A run between two checkpoints: the parts, the steps, and what is done once in a while."""

    log: EventLog  # from `run` on
    bar: Any  # tqdm's, from `train` on

    def __init__(self, config: TrainConfig, studio: Studio, folder: RunFolder, stop: StopRequest, processes: Processes):
        self.config, self.studio, self.folder, self.stop, self.processes = config, studio, folder, stop, processes
        batch = config.train_batch_size * config.gradient_accumulation_steps * processes.count
        self.stream = studio.stream(batch)
        self.steps = config.max_train_steps or config.num_train_epochs * self.stream.steps_per_epoch
        self.every = looked_at_every(config, self.steps, self.stream.steps_per_epoch)
        self.measured_every = measured_every(config, self.steps, self.stream.steps_per_epoch)
        self.updates = Step(config, studio, processes, self.stream, self.steps, self._warn, self._debug)
        self.lag = int(studio.device.type == "cuda")  # steps launched before one is read; only CUDA computes meanwhile
        self.step = 0
        self.saved: int | None = None
        self.waiting: list[tuple[int, Numbers]] = []
        self.overflows = 0  # of the last steps in a row
        self.stopping = False
        self.recent: list[float] = []
        self.reported = 0.0  # when the last step was, on the monotonic clock
        self.record = heldout.Record()
        self.superseded: int | None = None  # a checkpoint that was kept only for being the best

    def run(self, log: EventLog, resumed_from: int | None) -> dict[str, str]:
        """Everything between start and end; returns the status, completed or stopped, and the reason if early."""
        self.log, log.step = log, self.step
        reporting.announce(self, resumed_from)
        if not self._prepare():
            why = f"Stopped before step {self.step + 1} of {self.steps}: what is encoded is kept for the next run."
            log.say(why)
            return {"status": "stopped", "reason": why}
        self.stop.defer()
        finished = self.train()
        reason = self._reason() if finished else None
        if not finished:
            log.say(f"Stopped after step {self.step} of {self.steps}; --resume_from_checkpoint latest goes on.")
        if reason:
            log.say(reason)
        with self.processes.together():
            if self.folder.writes:
                saving.finish(self, finished)
        return {"status": "completed" if finished else "stopped"} | ({"reason": reason} if reason else {})

    def _prepare(self) -> bool:
        """Encode, then measure and draw what is due before the first step; False when asked to stop before that."""
        try:
            self.studio.encode(self.log, self.stop.asked)
        except SdxlNbError as error:
            if getattr(error, "kind", type(error)) is not Stopped:  # this process's own, or another's
                raise
            return False
        if self._is_to_stop():
            return False
        if self._measures() and self._measure():  # before the first step, or what a stop or a kill left out
            saving.save(self)
        if self._shows() and not self._is_to_stop():
            self._validate()
        return not self._is_to_stop()

    def _is_to_stop(self) -> bool:
        """Whether any process was asked to stop; all call it."""
        return any(self.processes.gather(self.stop.asked()))

    def train(self) -> bool:
        """Take optimizer steps until the last; False when asked to stop before."""
        with reporting.bar(self) as self.bar:
            while self.step < self.steps and not self._enough():
                self._take()
                wished = self._wished()
                occasion = self._is_over() or self._saves() or self._measures() or self._draws() or bool(wished)
                stop = self._settle(self.step if occasion else self.step - self.lag) and not self._is_over()
                if stop:
                    self._settle(self.step)
                best = not stop and self._measures() and self._measure()
                saves = stop or best or self._is_over() or self._saves() or SAVE in wished
                if saves:
                    saving.save(self)
                if stop:
                    return False
                if self._shows(asked=DRAW in wished):
                    self._validate()
        return True

    def _wished(self) -> set[str]:
        """What the first process finds that somebody has asked for; all call it."""
        if self.processes.count > 1 and self.step % LISTENS:
            return set()
        wished: set[str] = self.processes.from_first(lambda: taken(self.folder.path))
        if DRAW in wished and not self.config.drawings():
            self.log.say("There is no validation_prompt to draw, and no sample_prompts.")
        return wished

    def _take(self) -> None:
        """Launch the next step."""
        with self._rescuing():
            numbers = self.updates.take(self.step, self.stop.asked())
        self.step += 1
        self.waiting.append((self.step, numbers))

    def _settle(self, upto: int) -> bool:
        """Read and report the steps launched so far, up to this one; whether to stop now."""
        while self.waiting and self.waiting[0][0] <= upto:
            step, numbers = self.waiting.pop(0)
            loss, norm, asked, failed = numbers.read()
            if failed:
                self._end_together(step - 1)
            self._check_finite(step, loss, norm)
            self.recent = [*self.recent[-49:], loss]
            reporting.report(self, step, loss, numbers)
            self.stopping |= asked
        return self.stopping or (self.processes.count == 1 and self.stop.asked())

    def _end_together(self, step: int) -> None:
        """Raise what one of several processes failed with, in all of them; none has taken a step after this one."""
        self.step, self.waiting = step, []
        with contextlib.suppress(Exception):  # the failure is what gets told
            if step and self.saved != step:
                saving.save(self)
        failure = self.updates.failure
        self.processes.fail(failure and self._whole(failure))

    def _check_finite(self, step: int, loss: float, norm: float) -> None:
        """SdxlNbError when loss or the gradient's norm is no number, before a checkpoint can keep that.

        Under fp16 a gradient may overflow: GradScaler skips that step and halves its scale, which ends soon or never.
        """
        self.overflows = 0 if math.isfinite(norm) else self.overflows + 1
        allowed = MOST_OVERFLOWS if self.updates.scaler.is_enabled() else 0
        if math.isfinite(loss) and self.overflows <= allowed:
            return
        what = "gradient" if math.isfinite(loss) else "loss"
        raise SdxlNbError(
            f"The {what} at step {step} is not a finite number: lower --learning_rate, try "
            f"--mixed_precision bf16 (or no), or check the VAE{self._kept('is still good')}."
        )

    def _whole(self, problem: Exception) -> Exception:
        """The problem; where memory is the reason, with the checkpoint that is there."""
        if not isinstance(problem, TooLittleMemory):
            return problem
        return TooLittleMemory(f"{str(problem).removesuffix('.')}{self._kept('is saved')}.")

    def _kept(self, how: str) -> str:
        newest = next(reversed(checkpoints(self.folder.path)), None)
        return f"; {newest.name} {how}" if newest else ""

    # What is due.

    def _is_over(self) -> bool:
        return self.step == self.steps or self._enough()

    def _enough(self) -> bool:
        """Whether early stopping ends the run."""
        patience = self.config.early_stopping_patience
        return patience is not None and self.record.waited >= patience

    def _reason(self) -> str | None:
        record = self.record
        if not self._enough():
            return None
        best = f"the best was {record.best_loss:.4f} at step {record.best_step}" if record.best_step else "none was one"
        return (
            f"Early stopping after step {self.step} of {self.steps}: {record.waited} held-out losses in a row were no "
            f"new best; {best}."
        )

    def _saves(self) -> bool:
        return self.step % self.config.checkpointing_steps == 0

    def _ends_epoch(self) -> bool:
        """Whether this step (0 counts) ends an epoch that is looked at, or has a checkpoint, where those are."""
        return self.step % self.every == 0 or self._is_over()

    def _measures(self) -> bool:
        """Whether the held-out loss of this step is due and not known yet."""
        due = self.step % self.measured_every == 0 or self._is_over()
        return due and len(self.studio.heldout) > 0 and self.record.step != self.step

    def _draws(self) -> bool:
        """Whether pictures are due at this step."""
        return self._ends_epoch() and bool(self.config.drawings())

    def _shows(self, asked: bool = False) -> bool:
        """Whether pictures are due at this step, or asked for, and not all there yet."""
        if not (self._draws() or (asked and self.config.drawings())):
            return False
        wanted = len(self.config.drawings())
        drawn = f"validation/step-{self.step}/*.png"
        return self.processes.from_first(lambda: len(list(self.folder.path.glob(drawn))) < wanted)

    # What is done then.

    def _measure(self) -> bool:
        """Report the held-out loss; whether it is the best so far."""
        with self._rescuing(), saving.averaged(self):
            loss = heldout.measure(self.updates)
        former = self.record.best_step
        best = self.record.take(self.step, loss, self.config.early_stopping_threshold)
        self.superseded = former if best and former and former % self.config.checkpointing_steps else None
        single = {"losses": loss.pictures} if isinstance(loss, heldout.Measured) and loss.pictures else {}
        self.log.emit("heldout", loss=float(loss), best=best, pictures=len(self.studio.heldout), **single)
        return best

    def _validate(self) -> None:
        """Draw and report the pictures, divided between the processes; the first one writes them."""
        with self._rescuing(), saving.averaged(self):
            with self.processes.together(), in_memory(NO_MEMORY_TO_DRAW):
                mine = self.studio.validate(self.step)
            pictures = sorted(picture for part in self.processes.gather(mine) for picture in part)
            paths = write_pictures(self.folder.path, self.step, pictures) if pictures and self.folder.writes else []
        if paths:
            relative = [str(path.relative_to(self.folder.path)) for path in paths]
            self.log.emit("validation", pictures=relative, prompts=self.config.drawn_prompts())

    @contextlib.contextmanager
    def _rescuing(self) -> Iterator[None]:
        """When the block fails, steps that no checkpoint has are saved first."""
        try:
            yield
        except Exception as problem:
            self._rescue()
            if (whole := self._whole(problem)) is not problem:
                raise whole from problem
            raise

    def _rescue(self) -> None:
        """Save what no checkpoint has, where the failure has left that possible; the failure is what gets told."""
        with contextlib.suppress(Exception):
            self._settle(self.step)
            if self.step and self.saved != self.step and not self.updates.failure:
                saving.write_checkpoint(self)

    def _warn(self, line: str) -> None:
        self.log.warn(line)

    def _debug(self, losses: dict[str, float]) -> None:
        self.log.emit("debug", losses=losses)
