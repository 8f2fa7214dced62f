"""What becomes of another trainer's settings: the rows of a table, and the draft that a table makes of a file.

In: a table of Keys and what a file says. Out: a Draft, which has settings of ours by name, their origins, and remarks.
A row says all there is to say of its setting; where several of theirs make one of ours, its module puts them together.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...system.errors import ConfigError
from ..messages import nearest, shown
from ..precedence import DEFAULT_BASE, DEFAULT_DATASET
from ..settings import Settings

SECRET = re.compile(r"token$|secret|password|api_?key|credential", re.IGNORECASE)
EMPTY: tuple[Any, ...] = (None, "", [], {})
TRUTHS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


@dataclass(frozen=True)
class Key:
    """One setting of another trainer: what it is here, or why it is nothing here."""

    ours: str = ""  # names of our settings, with blanks between
    usual: Any = None  # what the other program takes where a file does not say
    why: str = ""  # why it is dropped, or how it is meant otherwise here
    how: Callable[[Any], Any] | None = None  # their value as ours
    together: bool = False  # its module reads it with others
    nothing: tuple[Any, ...] = ()  # values that ask for nothing, beside the usual one

    def asks(self, value: Any) -> bool:
        """Whether this value asks for something that the other program would not do anyway."""
        nothing = (*EMPTY, False, "false", "False", self.usual, *self.nothing)
        return not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in nothing)


def same(ours: str, usual: Any = None, how: Callable[[Any], Any] | None = None, why: str = "") -> Key:
    """A setting that is one of ours, perhaps after `how`."""
    return Key(ours, usual, why, how)


def together(ours: str, usual: Any = None, why: str = "") -> Key:
    """A setting that becomes `ours` together with others."""
    return Key(ours, usual, why, together=True)


def dropped(why: str, usual: Any = None, *nothing: Any) -> Key:
    """A setting that has no effect here; it is said unless it is the usual one, or `nothing`."""
    return Key("", usual, why, nothing=nothing)


@dataclass
class Draft:
    """Settings of ours as they are made of a file; `origins` says which key of the file each comes from."""

    file: str
    program: str
    keys: Mapping[str, Key]
    said: dict[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.said = {key: value for key, value in self.said.items() if value not in EMPTY}

    # What the file says.

    def get(self, key: str) -> Any:
        """What the file says, or what the other program takes without."""
        return self.said.get(key, self.keys[key].usual)

    def number(self, key: str) -> float | None:
        """The same as a number. Raises ConfigError."""
        value = self.get(key)
        if value is None:
            return None
        try:
            return float(value) if not isinstance(value, bool) else self._refuse(key, "a number", value)
        except (TypeError, ValueError):
            return self._refuse(key, "a number", value)

    def whole(self, key: str) -> int | None:
        """The same as a whole number. Raises ConfigError."""
        number = self.number(key)
        if number is None or number == number // 1:
            return None if number is None else int(number)
        return int(self._refuse(key, "a whole number", self.get(key)))

    def switch(self, key: str) -> bool:
        """The same as true or false. Raises ConfigError."""
        value = self.get(key)
        if value in (*EMPTY, False, True):
            return bool(value)
        if isinstance(value, str) and value.lower() in TRUTHS:
            return TRUTHS[value.lower()]
        return bool(self._refuse(key, "true or false", value))

    def text(self, key: str) -> str:
        """The same as text, or "". Raises ConfigError."""
        value = self.get(key)
        if isinstance(value, dict | list):
            self._refuse(key, "text", value)
        return "" if value is None else str(value)

    def items(self, key: str) -> list[str]:
        """The same as texts: a list, or one text that is split at blanks."""
        value = self.get(key)
        if value is None:
            return []
        if isinstance(value, dict):
            return [f"{name}={item}" for name, item in value.items()]
        return [str(item) for item in value] if isinstance(value, list | tuple) else str(value).split()

    def _refuse(self, key: str, kind: str, value: Any) -> float:
        here = self.keys[key].ours
        meant = f", which is {here.replace(' ', ' and ')} here," if here else ""
        given = "what it is" if SECRET.search(key) else shown(value)
        raise ConfigError(f"{key} in {self.file}{meant} must be {kind}, not {given}: correct it")

    # What becomes of it.

    def set(self, ours: str, value: Any, key: str) -> None:
        """Take a value for a setting of ours, which comes from this key."""
        self.values[ours] = value
        self.origins[ours] = key

    def say(self, sentence: str) -> None:
        """Add a remark, once."""
        if sentence not in self.remarks:
            self.remarks.append(sentence)

    def drop(self, key: str, why: str, value: Any = None) -> None:
        """Say that a key, perhaps with this value, has no effect, and why."""
        told = "" if value is None or SECRET.search(key) else f" {shown(value)}"
        self.say(f"{key}{told} in {self.file} has no effect: {why}.")

    def differs(self, key: str, how: str) -> None:
        """Say that a key is taken, but meant otherwise."""
        self.say(f"{key} in {self.file} is meant otherwise here: {how}.")

    def no_schedule(self, key: str, name: str, given: Collection[str]) -> None:
        """Drop a course of the learning rate that there is not here; ConfigError unless another one is given."""
        if "lr_scheduler" not in given:
            raise ConfigError(
                f"{key} {name} in {self.file} is none that there is here: give --lr_scheduler (cosine, say)"
            )
        self.drop(key, "lr_scheduler is given besides", name)

    def take(self) -> None:
        """Read every row that stands alone, and say what is dropped or not known."""
        for key, value in self.said.items():
            row = self.keys.get(key)
            if row is None:
                close = nearest(str(key), self.keys, cutoff=0.75)
                self.say(
                    f"{key} in {self.file} is no setting of {self.program} that is known, and has no effect"
                    + (f": did you mean {close}?" if close else ".")
                )
            elif row.together or not row.asks(value):
                continue
            elif not row.ours:
                self.drop(key, row.why, value)
            elif row.why:
                self.differs(key, row.why)
        for key, row in self.keys.items():
            if row.ours and not row.together and (value := self.get(key)) is not None:
                self.set(row.ours, row.how(value) if row.how else value, key)

    def finish(self, given: Collection[str] = ()) -> "Draft":
        """Say which of the other program's defaults hold that are not ours, and what the file does not name at all."""
        fields = Settings.model_fields
        if not {"train_data_dir", "dataset_name"} & {*self.values, *given}:
            self.say(f"{self.file} names no pictures: give --train_data_dir, else {DEFAULT_DATASET} is trained on.")
        if "pretrained_model_name_or_path" not in {*self.values, *given}:
            self.say(f"{self.file} names no base: {DEFAULT_BASE} is taken.")
        elif "pretrained_model_name_or_path" in self.values:
            self.values.setdefault("pretrained_vae_model_name_or_path", None)  # the base's own
        left = [
            f"{ours} {shown(self.values[ours])}"
            for ours, key in self.origins.items()
            if key not in self.said and ours in self.values and self.values[ours] != fields[ours].default
        ]
        if left:
            self.say(f"What {self.file} does not say is as {self.program} has it: {', '.join(left)}.")
        return self

    def blamed(self, error: ConfigError, given: Collection[str]) -> ConfigError:
        """The error about a setting of ours, as one about the key of the file that it comes from."""
        for ours, sentence in getattr(error, "problems", {}).items():
            if ours in self.origins and ours not in given:
                key = self.origins[ours]
                also = "" if key == ours else f" {key}, which is {ours} here, cannot be so:"
                refused = ConfigError(f"{self.file}:{also} {sentence}")
                refused.problems = error.problems
                return refused
        return error
