"""Every stage of a run and the bare base, scored: what is known is read, what lacks is drawn and measured.

    scores = score_run("output/mine")      # a table; scores.best is the starred step

In: a run, prompts, seeds, encoders, scorers. Out: Scores. Each picture and each number is kept in the run folder as
soon as it is there, so that an interrupted scoring goes on where it stopped.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.identity import combined
from ..runs.run import Run
from ..runs.stages import Stages
from ..system.memory import give_back
from ..system.progress import progress_bar
from .asked import Asked, ask, told
from .drawings import Drawings, Wanted, memo_of
from .encoders import PIXELS, AestheticHead, Encoder, files_of, open_encoder
from .evidence import Evidence, Training
from .gate import Gate, read_gate
from .kept import Kept, Store
from .scorer import Scorer
from .scores import Scores
from .training_pictures import TrainingPictures

if TYPE_CHECKING:
    from ..data.file_facts import Memo

DRAWN = {"pictures", "image", "text", "training", "two training", "two seeds", "aesthetic"}  # what asks for pictures


def score_run(
    run: Run | str | os.PathLike[str],
    *,
    prompts: str | Iterable[str] | None = None,
    plain: Iterable[str] | None = None,
    seeds: Iterable[int] = (0, 1, 2, 3),
    image_encoder: str | None = None,
    text_encoder: str | None = None,
    aesthetic: str | None = None,
    scorers: Iterable[Any] = (),
    metrics: Iterable[str] | None = None,
    by: str | Iterable[str] | None = None,
    gate: "Gate | str | os.PathLike[str] | None" = None,
    progress: bool = True,
    say: Callable[[str], object] = print,
) -> Scores:
    """Scores of every stage of a run that has a LoRA, beside those of the bare base; the best starred, with the reason.

    `prompts` are by default the run's own, `plain` some that have nothing to do with the training. `image_encoder`
    (likeness, diversity, copying) and `text_encoder` (prompt) are hub ids or local folders; `pixels` needs no model.
    `aesthetic` is a .safetensors file of linear layers on the text encoder's embeddings. `scorers` are functions of an
    Evidence, or MODULE:FUNCTION; they choose the best where there are any, unless `by` names metrics. `gate` is a file
    of thresholds (gate.py): `scores.shortfalls` then says what the LoRA misses. Raises ConfigError for what is
    misspelt, ModelError for an encoder that cannot be had, before anything is drawn.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    work = Work(run, {"prompts": prompts, "plain": plain, "seeds": seeds, "image_encoder": image_encoder,
                      "text_encoder": text_encoder, "aesthetic": aesthetic, "scorers": scorers, "metrics": metrics,
                      "by": by})  # fmt: skip
    thresholds = gate if gate is None or isinstance(gate, Gate) else read_gate(gate)
    if thresholds:
        thresholds.check(work.asked, work.steps)
    if work.missing():
        with work.store.taken():
            work.do(progress, say)
    scores = work.scores()
    scores.shortfalls = thresholds.shortfalls(scores) if thresholds else []
    return scores


class Work:
    """One scoring: what is asked, what is known, what is missing."""

    def __init__(self, run: Run, given: dict[str, Any]):
        self.run, self.stages, config = run, Stages(run), run.config
        self.training = TrainingPictures(config)
        self.losses = heldout_losses(run)
        self.asked: Asked = ask(config, self.training, bool(self.losses), **given)
        self.memo: Memo = memo_of(config)
        self.store, self.drawings = Store(run.folder), Drawings(self.stages, self.memo)
        self.steps = [0, *self.stages.steps_with_lora()]
        self.encoders: dict[str, Encoder] = {}

    # What is known.

    def missing(self) -> list[tuple[int, Scorer]]:
        """The steps and scorers without values that still hold."""
        return [
            (step, one)
            for step in self.steps
            for one in self.asked.scorers.values()
            if self._applies(step, one) and self.store.get(step, one.name, self._key(step, one)) is None
        ]

    def _applies(self, step: int, one: Scorer) -> bool:
        """Whether there is anything to measure: the held-out loss of some steps only is known."""
        return "heldout" not in one.needs or step in self.losses

    def _key(self, step: int, one: Scorer) -> str:
        """Changes with all that decides the values of a scorer at a step."""
        asked = self.asked
        about: list[Any] = [one.name, one.code(), asked.seeds]
        for need in one.needs:
            if need == "heldout":
                about.append(self.losses.get(step))
            elif need == "plain":
                about += [asked.plain, self.drawings.identity(0), self.drawings.identity(step)]
            elif need in ("training", "two training"):
                about.append(self.training.identity)
            elif need in ("image", "text", "aesthetic"):
                about.append(self._encoder_identity(getattr(asked, need)))
            if need in DRAWN:
                about += [asked.prompts, self.drawings.identity(step)]
        return combined(json.dumps(about))

    def _encoder_identity(self, name: str) -> str:
        if name not in self._identities:
            self._identities[name] = self._identified(name)
        return self._identities[name]

    @cached_property
    def _identities(self) -> dict[str, str]:
        return {PIXELS: PIXELS}

    def _identified(self, name: str) -> str:
        if name == self.asked.aesthetic:
            AestheticHead(name)  # what cannot be used is refused here
            return self.memo.file_digest(Path(name).expanduser()).hex()
        return combined(*((path.name, self.memo.file_digest(path).hex()) for path in files_of(name)))

    def scores(self) -> Scores:
        """The table of what is known."""
        kept: dict[int, dict[str, Kept]] = {}
        for step in self.steps:
            found = {n: self.store.get(step, n, self._key(step, one)) for n, one in self.asked.scorers.items()}
            kept[step] = {name: one for name, one in found.items() if one is not None}
        notes = [*self.asked.notes, *self.training.notes]
        return Scores(str(self.run.folder), kept, self.asked.scorers, self.asked.lacking, self.asked.by, notes)

    # What is done.

    def do(self, progress: bool, say: Callable[[str], object]) -> None:
        """Open what is needed, draw what lacks, measure what lacks."""
        if self.store.damaged:
            say(f"{self.store.file} was damaged: all is measured anew, pictures are not drawn again.")
        missing = self.missing()
        needs = {need for _, one in missing for need in one.needs}
        self._open(needs)  # before hours of drawing
        wanted = self._wanted(missing)
        if lacks := len(self.drawings.missing(wanted)):
            say(told(self.asked, self.steps, lacks))
        with progress_bar(total=lacks or None, unit="picture", disable=not (progress and lacks), leave=False) as bar:
            self.drawings.draw(wanted, lambda done, _: bar.update(done - bar.n))
        give_back()
        self._measure(missing, progress)

    def _open(self, needs: set[str]) -> None:
        for name in (self.asked.image if "image" in needs else None, self.asked.text if "text" in needs else None):
            if name and name not in self.encoders:
                self.encoders[name] = open_encoder(name)
        if "text" in needs:
            self.encoders[str(self.asked.text)].texts(self.asked.prompts[:1])  # one that reads none says so now

    def _wanted(self, missing: Sequence[tuple[int, Scorer]]) -> list[Wanted]:
        """The pictures that the missing values are of."""
        asked, wanted = self.asked, list[Wanted]()
        for step, one in missing:
            if DRAWN.intersection(one.needs):
                wanted += [(step, prompt, seed) for prompt in asked.prompts for seed in asked.seeds]
            if "plain" in one.needs:
                wanted += [(at, prompt, seed) for at in (0, step) for prompt in asked.plain for seed in asked.seeds]
        return sorted(dict.fromkeys(wanted), key=lambda one: one[0])

    def _measure(self, missing: Sequence[tuple[int, Scorer]], progress: bool) -> None:
        by_step: dict[int, list[Scorer]] = {}
        for step, one in missing:
            by_step.setdefault(step, []).append(one)
        with progress_bar(total=len(missing), unit="score", disable=not progress, leave=False) as bar:
            for step, scorers in by_step.items():
                evidence = self._evidence(step, {need for one in scorers for need in one.needs})
                for one in scorers:
                    self.store.put(step, one.name, self._key(step, one), Kept(*one.values(evidence)))
                    bar.update()

    def _evidence(self, step: int, needs: set[str]) -> Evidence:
        asked, rows, plain = self.asked, self.drawings.rows, "plain" in needs
        return Evidence(
            step,
            asked.prompts,
            asked.seeds,
            rows(step, asked.prompts, asked.seeds) if needs & DRAWN else [],
            asked.plain,
            rows(step, asked.plain, asked.seeds) if plain else [],
            rows(0, asked.plain, asked.seeds) if plain else [],
            self.losses.get(step, []),
            self._trained if {"training", "two training"} & needs else None,
            self.encoders.get(str(asked.image)) if "image" in needs else None,
            self.encoders.get(str(asked.text)) if "text" in needs else None,
            AestheticHead(str(asked.aesthetic)) if "aesthetic" in needs else None,
        )

    @cached_property
    def _trained(self) -> Training:
        return self.training.embedded(self.encoders[str(self.asked.image)])


def heldout_losses(run: Run) -> dict[int, list[float]]:
    """Step -> the held-out losses of single pictures where the run wrote them, else their mean alone."""
    found: dict[int, list[float]] = {}
    for event in run.events("heldout"):
        if event.get("loss") is not None:
            found[event["step"]] = event.get("losses") or [event["loss"]]
    return found
