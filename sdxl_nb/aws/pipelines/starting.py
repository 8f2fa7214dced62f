"""A start of the pipeline with other parameters: what follows from them, and what the service would refuse.

In: a Prepared and the parameters that a start gives. Out: all values of the start: what lies at other places goes into
it, and the run gets checkpoints of its own. What is another step for SageMaker's cache and what is not is said.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...config import formats
from ...config.messages import nearest
from ...config.train_config import TrainConfig
from ...system.errors import ConfigError
from .. import costs, shapes, staging
from ..identity import content
from ..identity.content import CHANNELS
from ..messages import AwsError
from ..session import Session
from ..tuning_step import Job, as_text, request
from .parameters import CONTENT, JOB, LONGEST, MAX_VARIABLE, SETTINGS, UNSEEN, parameter_name, place_parameter
from .search import Search

if TYPE_CHECKING:
    from ..pipeline import Prepared


def values(prepared: Prepared, given: Mapping[str, Any]) -> dict[str, str]:
    """Every value that a start gives, what follows from the given ones among them. Raises ConfigError, DataError."""
    return _implied(prepared, _overrides(prepared, given))


def _overrides(prepared: Prepared, given: Mapping[str, Any]) -> dict[str, str]:
    for name in given:
        if name not in prepared.parameters:
            raise ConfigError(f"unknown pipeline parameter {name}: {_advice(prepared, name)}")
    values = {name: as_text(value) for name, value in given.items()}
    for name, value in values.items():
        if len(value) > LONGEST:
            raise ConfigError(f"pipeline parameter {name} takes {LONGEST} characters at most, not {len(value)}")
    return values


def _advice(prepared: Prepared, name: str) -> str:
    if prepared.search and name in map(parameter_name, prepared.search.space.parameters):
        return "the search chooses it"
    for setting, (channel, _) in CHANNELS.items():
        if name in (place_parameter(channel), parameter_name(setting)):
            return f"this pipeline was made without it: start it with {setting} in the config"
    close = nearest(name, prepared.parameters)
    return f"did you mean {close}?" if close else f"there are {', '.join(prepared.parameters)}"


def _implied(prepared: Prepared, given: dict[str, str]) -> dict[str, str]:
    """What a start changes, and what follows: what lies at other places, and checkpoints of their own.

    What of it is another step for SageMaker's cache is said.
    """
    if not given:
        return given
    config, staged = _changed(prepared, given)
    values = {CONTENT: staged.told()} if CONTENT in prepared.parameters else {}
    values["CheckpointS3Uri"] = checkpoint_place(
        prepared.bucket, prepared.name, config, staged, prepared.cached, prepared.search
    )
    values = {name: value for name, value in values.items() if value != prepared.parameters[name]} | given
    if prepared.cached and set(values) <= UNSEEN:
        print(
            f"What has run before is not run again because of another {' or '.join(sorted(values))}: where this "
            "step has ended well in the last 30 days nothing is run, and nothing is written to OutputPath."
        )
    return values


def _changed(prepared: Prepared, given: Mapping[str, str]) -> tuple[TrainConfig, staging.Staged]:
    """The configuration and the places of a start with these parameters. Raises ConfigError, DataError."""
    by_name = {parameter_name(name): name for name in SETTINGS}
    texts = {by_name[name]: value for name, value in given.items() if name in by_name}
    for name, value in texts.items():
        if name in CHANNELS and value.startswith(("s3://", *staging.PATHS)):
            raise ConfigError(f"a place cannot be given by {parameter_name(name)}: start it with {name} in the config")
    config = with_texts(prepared.config, texts)
    job = replace(prepared.job, **{JOB[name]: _number(value) for name, value in given.items() if name in JOB})
    staged = replace(prepared.staged, channels={**prepared.staged.channels}, paths={**prepared.staged.paths})
    for setting, (channel, _) in CHANNELS.items():
        if url := given.get(place_parameter(channel)):
            _check_place(
                place_parameter(channel), url, staged.paths[setting].removeprefix(f"{staging.INPUT}/{channel}")
            )
            staging.place_in_s3(staged, setting, url, single=not url.endswith("/"))
    kept = {channel for channel, url in staged.channels.items() if url == prepared.staged.channels[channel]}
    contents = {name: found for name, found in staged.contents.items() if name in kept}
    staged, notes = looked(prepared.session, config, replace(staged, contents=contents, hub={}), dry=False)
    for note in notes:
        print(note)
    if staged.paths != prepared.staged.paths:
        raise ConfigError(
            "a place must stay what the pipeline was made with, a folder or one file: start it with the other one in "
            "the config"
        )
    _refuse(prepared, given, job, request(config, job, staged, output="s3://mine", checkpoints="s3://mine"))
    for note in _costs(prepared, config, job, staged):
        print(note)
    return config, staged


def _costs(prepared: Prepared, config: TrainConfig, job: Job, staged: staging.Staged) -> list[str]:
    """What is said of a changed start: limits that are too low for it, and its price where that is another.

    Raises ConfigError where it costs more than a search's ceiling.
    """
    said, region = too_little(config, job, staged, prepared.search), prepared.session.region
    if job == prepared.job:
        return said
    return [*said, prepared.search.price(job, region) if prepared.search else costs.ceiling(job, region)]


def too_little(config: TrainConfig, job: Job, staged: staging.Staged, search: Search | None) -> list[str]:
    """What of the job's limits is less than it is estimated to need. Raises ConfigError where nothing came of it."""
    if search:
        return costs.too_little(search.longest(config), job, staged, goes_on=None)
    return costs.too_little(config, job, staged, goes_on="the next start with the same settings")


def _refuse(prepared: Prepared, given: Mapping[str, str], job: Job, asked: dict[str, Any]) -> None:
    """Raise ConfigError for a start whose job the service would refuse."""
    asked["OutputDataConfig"]["S3OutputPath"] = given.get("OutputPath", prepared.parameters["OutputPath"])
    asked["CheckpointConfig"]["S3Uri"] = given.get("CheckpointS3Uri", prepared.parameters["CheckpointS3Uri"])
    if prepared.search and given.get("OutputPath", "").endswith("/"):
        raise ConfigError("OutputPath must not end with a slash: the place of the best LoRA is made of it")
    then, now = prepared.job.instance_type, job.instance_type
    if prepared.job.kms_key and shapes.has_own_disk(then) != shapes.has_own_disk(now):
        raise ConfigError(
            f"TrainingInstanceType {now} has other disks than {then}, and kms_key is for one kind of them: start it "
            "with instance_type given to start_pipeline"
        )
    shapes.refuse(asked)


def _number(value: str) -> Any:
    return int(value) if value.isdecimal() else value


def _check_place(name: str, url: str, file: str) -> None:
    """Raise ConfigError for a place that the job would not find; `file` is "/NAME" where it looks for one file."""
    if not url.startswith("s3://"):
        raise ConfigError(f"pipeline parameter {name} must be an s3:// prefix, not {url!r}")
    if len(url) > MAX_VARIABLE:
        raise ConfigError(f"pipeline parameter {name} takes {MAX_VARIABLE} characters at most, not {len(url)}")
    if file and not url.endswith(file):
        raise ConfigError(
            f"pipeline parameter {name} must end with {file}, as what the pipeline was made with, not {url}"
        )
    if not file and not url.endswith("/"):
        raise ConfigError(
            f"pipeline parameter {name} must end with a slash, or whatever begins like it comes along: write {url}/"
        )


def with_texts(config: TrainConfig, texts: Mapping[str, str]) -> TrainConfig:
    """A configuration with hyperparameters' texts in place of some settings. Raises ConfigError."""
    before = {name: as_text(value) for name, value in config.essentials().items() if name not in texts}
    return TrainConfig.from_hyperparameters(before | {name: value for name, value in texts.items() if value != ""})


def looked(
    session: Session, config: TrainConfig, staged: staging.Staged, dry: bool
) -> tuple[staging.Staged, list[str]]:
    """What all places hold; a place that may not be listed is another one each time, so that no cache takes it."""
    try:
        staged, notes = staging.look(session, config, staged, hub=True)
    except AwsError as error:
        if not dry:
            raise
        return staged, [str(error)]
    unlisted = [channel for channel in staged.channels if channel not in staged.contents]
    if unlisted and not dry:
        staged = replace(staged, contents=staged.contents | {name: content.unlisted() for name in unlisted})
        notes.append(
            f"So this trains {' and '.join(unlisted)} anew, whatever has run before: allow s3:ListBucket there."
        )
    return staged, notes


def checkpoint_place(
    bucket: str, name: str, config: TrainConfig, staged: staging.Staged, cached: bool, search: Search | None = None
) -> str:
    """The same for the same settings and data, so that a run that failed goes on; anew to train without the cache.

    It is a run's own, because SageMaker restores all that lies there.
    """
    known = {
        channel: list(found) for channel, found in staged.contents.items() if not found.bytes.startswith("unlisted:")
    }
    parts = {"settings": config.identity(), "channels": staged.channels, "content": known}
    told = formats.digest(parts if search is None else parts | {"search": search.told()})[:16]
    return f"s3://{bucket}/checkpoints/{name}/{told if cached else f'{told}-{uuid.uuid4().hex[:6]}'}"
