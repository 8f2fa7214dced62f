"""What is to be scored, before anything is drawn: prompts, seeds, encoders, metrics; what cannot be, and why.

In: a run, and what a person gave. Out: an Asked. Whatever is misspelt or lacking is refused or said here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..config.messages import nearest
from ..system.errors import ConfigError
from . import encoders
from .registry import as_scorer, registered
from .scorer import Scorer

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig
    from .training_pictures import TrainingPictures

CAPTIONS = 8  # of training pictures, where there is no prompt
PLAIN = (  # what a LoRA should leave as it was, unless it was trained on such things
    "a photo of a dog on a lawn",
    "a bowl of fruit on a wooden table",
    "a street with parked cars in the rain",
    "a portrait of an old woman, oil painting",
)
PLAIN_TINY = (  # in the words that the embedded base knows
    "a red fish on a yellow background",
    "a green square on a white background",
    "a purple star on a black background",
    "an orange circle on a blue background",
)


@dataclass(frozen=True)
class Asked:
    """Prompts and seeds to draw, the names of encoders, the scorers to run, and why others cannot run."""

    prompts: list[str]
    plain: list[str]
    seeds: list[int]
    image: str | None
    text: str | None
    aesthetic: str | None
    scorers: dict[str, Scorer] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    by: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def ask(
    config: "TrainConfig",
    pictures: "TrainingPictures",
    measured: bool,
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
) -> Asked:
    """What to do; see `score_run`. `measured` says whether the run has held-out losses. Raises ConfigError."""
    tiny = config.pretrained_model_name_or_path.startswith("embedded:")
    notes: list[str] = []
    listed = _texts("prompts", prompts, lambda: _usual(config, pictures, notes))
    beside = _texts("plain", plain, lambda: list(PLAIN_TINY if tiny else PLAIN))
    numbers = _seeds(seeds)
    image = image_encoder or (encoders.PIXELS if tiny else encoders.IMAGE)
    text = text_encoder or (None if tiny else encoders.TEXT)
    has = {
        "image": "",
        "pictures": "",
        "plain": "",
        "training": "" if len(pictures) else "there is no training picture that can be read",
        "two training": "" if len(pictures) > 1 else "it takes two training pictures",
        "two seeds": "" if len(numbers) > 1 else "it takes two seeds",
        "text": "" if text else "the embedded base has no text encoder for it, give text_encoder",
        "aesthetic": "" if aesthetic else "no head was given, give aesthetic=FILE.safetensors",
        "heldout": "" if measured else "the run held no pictures out, see validation_split",
    }
    known = chosen(scorers, metrics)
    lacking = {name: why for name, one in known.items() if (why := next(filter(None, map(has.get, one.needs)), ""))}
    running = {name: one for name, one in known.items() if name not in lacking}
    if metrics is not None and (refused := {n: lacking[n] for n in _list(metrics) if n in lacking}):
        raise ConfigError("; ".join(f"{name} cannot be measured: {why}" for name, why in refused.items()))
    if not running:
        raise ConfigError("nothing of this can be measured: " + "; ".join(f"{n}: {w}" for n, w in lacking.items()))
    names = _list(by or ())
    for name in names:
        check_metric(name, running, lacking, "by")
    return Asked(listed, beside, numbers, image, text, aesthetic, running, lacking, names, notes)


def chosen(scorers: Iterable[Any], metrics: Iterable[str] | None) -> dict[str, Scorer]:
    """The scorers to run by name: those registered and those given, or those of them that `metrics` names."""
    given = [as_scorer(one) for one in _list(scorers)]
    known = dict(registered())
    for one in given:
        if one.name in known and known[one.name].ours and known[one.name] is not one:
            raise ConfigError(f"{one.name} is a metric already: give the scorer another name")
        known[one.name] = one
    if metrics is None:
        return known
    wanted = _list(metrics)
    for name in wanted:
        check_metric(name, known, {}, "metrics")
    return {name: known[name] for name in known if name in wanted}


def check_metric(name: str, known: Iterable[str], lacking: dict[str, str], where: str) -> None:
    """Raise ConfigError for a metric that does not exist, or cannot be measured here."""
    if name in lacking:
        raise ConfigError(f"{where} names {name}, which cannot be measured: {lacking[name]}")
    names = list(known)
    if name not in names:
        close = nearest(name, [*names, *lacking])
        advice = f"did you mean {close}?" if close else f"there are {', '.join(names)}"
        raise ConfigError(f"{where} names an unknown metric {name}: {advice}")


def _usual(config: "TrainConfig", pictures: "TrainingPictures", notes: list[str]) -> list[str]:
    """The run's own prompts, else some captions of its pictures."""
    if drawn := config.drawn_prompts():
        return list(dict.fromkeys(drawn))
    captions = [caption for caption in dict.fromkeys(pictures.captions()) if caption.strip()]
    few = captions[:: -(-len(captions) // CAPTIONS)] if captions else []
    if not few:
        raise ConfigError("the run has neither prompts nor captions: give prompts=[...]")
    notes.append(f"The run draws no prompts: {len(few)} captions of its pictures were drawn, give prompts=[...]")
    return few


def _texts(name: str, given: str | Iterable[str] | None, usual: Callable[[], list[str]]) -> list[str]:
    if given is None:
        return usual()
    texts = _list(given)
    if not texts or len(set(texts)) != len(texts) or not all(isinstance(one, str) and one.strip() for one in texts):
        raise ConfigError(f"{name} must be different texts, and at least one")
    return texts


def _seeds(given: Iterable[int] | int) -> list[int]:
    seeds: list[int] = [given] if isinstance(given, int) else list(given)
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63 for seed in seeds)
    if not seeds or not whole or len(set(seeds)) != len(seeds):
        raise ConfigError("seeds must be different whole numbers from 0 on, and at least one")
    return seeds


def _list(given: Any) -> list[Any]:
    """One thing is a list of one."""
    return [given] if isinstance(given, str) or callable(given) else list(given)


def told(asked: Asked, stages: Sequence[int], missing: int) -> str:
    """One line before drawing starts."""
    what = f"{len(asked.prompts)} prompts and {len(asked.plain)} plain ones × {len(asked.seeds)} seeds"
    return f"{missing} pictures to draw: {what}, the base and {len(stages) - 1} stages."
