"""The written forms of a configuration: file, flags, hyperparameters, digest.

In and out: plain dictionaries of JSON values; this module knows no field of TrainConfig.
"""

import contextlib
import hashlib
import json
import os
import sys
from ast import literal_eval
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..system.errors import ConfigError

MAX_HYPERPARAMETERS, MAX_HYPERPARAMETER_LENGTH = 100, 2500  # SageMaker's limits; a newline is refused too
WORDS = {"true": True, "false": False, "null": None}
PLACES = ("pretrained_model_name_or_path", "pretrained_vae_model_name_or_path", "dataset_name")


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings in a JSON, YAML or TOML file. Raises ConfigError."""
    path = Path(path)
    if path.suffix not in (".json", ".yaml", ".yml", ".toml"):
        raise ConfigError(
            f"config file {path} must end in .json, .yaml, .yml or .toml (or .sh or .txt, for a command line)"
        )
    try:
        values = parse(path.read_text("utf-8-sig"), path.suffix)
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"config file {path} is not valid {path.suffix[1:].upper()}: {reason}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config file {path} must hold settings as NAME: VALUE, not a {type(values).__name__}")
    return values


def parse(content: str, suffix: str) -> Any:
    """JSON, YAML or TOML text as Python values. Raises ValueError."""
    if suffix == ".json":
        return json.loads(content)
    if suffix == ".toml":
        return toml(content)
    import yaml

    try:
        return yaml.safe_load(content)
    except yaml.MarkedYAMLError as error:  # the place, not the text there, which may hold a secret
        raise ValueError(f"{error.problem}, line {error.problem_mark.line + 1}") from None
    except yaml.YAMLError:
        raise ValueError("it holds a character that YAML does not allow") from None


def toml(content: str) -> Any:
    """TOML text as Python values. Raises ValueError."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(content)


def write_file(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write settings as JSON or YAML, complete or not at all. Raises ConfigError."""
    path = Path(path)
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise ConfigError(
            f"config file {path} must end in .json, .yaml or .yml, or in .toml (kohya's) or .sh (diffusers')"
        )
    write_text(path, render(values, path.suffix))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text, complete or not at all. Raises ConfigError."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def render(values: Mapping[str, Any], suffix: str) -> str:
    """Settings as JSON or YAML text."""
    if suffix == ".json":
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    import yaml

    content: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    if "\x85" in content:  # PyYAML leaves this line break bare and reads it back as a space
        content = yaml.safe_dump(dict(values), sort_keys=False)
    return content


def encode_flags(values: Mapping[str, Any]) -> list[str]:
    """Settings as argv; --name=value keeps a leading dash, and --name= is null."""
    flags = []
    for name, value in values.items():
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no_{name}")
        elif isinstance(value, list):
            flags.extend(f"--{name}={item}" for item in value)
        else:
            flags.append(f"--{name}={_one(value)}")
    return flags


def _one(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, dict) else str(value)


def encode_hyperparameters(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings as strings of JSON on one line each. Raises ConfigError where SageMaker would refuse one."""
    if len(values) > MAX_HYPERPARAMETERS:
        raise ConfigError(
            f"SageMaker takes {MAX_HYPERPARAMETERS} settings and {len(values)} differ from the defaults: leave some out"
        )
    encoded = {name: json.dumps(value) for name, value in values.items()}
    for name, value in encoded.items():
        if len(value) > MAX_HYPERPARAMETER_LENGTH:
            raise ConfigError(
                f"{name} takes {len(value)} characters as a SageMaker hyperparameter, "
                f"more than {MAX_HYPERPARAMETER_LENGTH}: shorten it"
            )
    return encoded


def decode_hyperparameters(hyperparameters: Mapping[str, str], texts: set[str]) -> dict[str, Any]:
    """The settings again; what is not JSON, or a bare number where `texts` says text, is taken as it is written."""
    return {name: _decode(value, name in texts) for name, value in hyperparameters.items()}


def _decode(written: str, is_text: bool) -> Any:
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return written
    return written if is_text and isinstance(value, bool | int | float) else value


def argument(written: str) -> tuple[str, Any]:
    """NAME=VALUE as a name and a Python literal; what is none is text, and true and false are what JSON says."""
    name, _, value = written.partition("=")
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return name, WORDS[value] if value in WORDS else literal_eval(value)
    return name, value


def without_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose local paths are cut to their last part; hub ids stay whole."""
    short = dict(values)
    for name in PLACES:
        if short[name] is not None and short[name].startswith(("/", "./", "../", "~")):
            short[name] = PurePosixPath(short[name]).name
    if short.get("lora_weights") is not None:
        short["lora_weights"] = PurePosixPath(short["lora_weights"]).name
    if short.get("base_lora") is not None:
        short["base_lora"] = [PurePosixPath(file).name for file in short["base_lora"]]
    for name in ("train_data_dir", "class_data_dir", "slider_negative_dir"):
        if short.get(name) is not None:
            short[name] = PurePosixPath(short[name]).name
    return short


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 in hexadecimal of settings, whatever their order."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
