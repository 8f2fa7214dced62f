"""The configuration in the header of a LoRA file: what of it a stranger may see, and what of a stranger's is believed.

In: a TrainConfig's values, or a LoRA file. Out: values with nothing private in them. Nothing here imports torch.
"""

import json
import os
import re
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from ..system.errors import ConfigError, ModelError
from .layout import LORA
from .messages import shown

CONFIG_KEY = "sdxl_nb_config"
# What a header must neither tell nor, read from a stranger, decide: where things go, and who may.
DROPPED = re.compile(
    r"^(output|overwrite|hub|push_to_hub|report|resume|logging_dir|cache_dir|latents_cache_dir|wandb|tracker|run_name)"
    r"|token|secret|password|api_?key|credential",
    re.IGNORECASE,
)
FREE_TEXT = re.compile(r"prompt|caption|trigger|target_modules|column", re.IGNORECASE)
SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[\w-]{20,})")
NAMES_CODE = ("optimizer", "optimizer_args")  # a path that is imported, and what is handed to it
MAX_CONFIG = 1_000_000  # characters of JSON accepted from a header


def safe_config(config: Mapping[str, Any], look_on_disk: bool = True) -> dict[str, Any]:
    """A configuration fit for strangers: private fields dropped, paths cut to base names, secrets starred."""
    return {name: _safe(name, value, look_on_disk) for name, value in config.items() if not DROPPED.search(str(name))}


def _safe(name: str, value: Any, look_on_disk: bool) -> Any:
    if isinstance(value, Mapping):
        inner = {base_name(str(k), look_on_disk): v for k, v in value.items() if not DROPPED.search(str(k))}
        return {key: _safe(name, item, look_on_disk) for key, item in inner.items()}
    if isinstance(value, list | tuple):
        return [_safe(name, item, look_on_disk) for item in value]
    if isinstance(value, str | Path):
        text = SECRET.sub("***", str(value))
        return text if FREE_TEXT.search(name) else base_name(text, look_on_disk)
    return value


def base_name(text: str, look_on_disk: bool) -> str:
    """Cut local paths and addresses to their last part; `owner/name` ids of the hub stay, unless a path is there."""
    if "://" in text:
        return text.partition("?")[0].rstrip("/").rpartition("/")[2]
    windows = PureWindowsPath(text)
    if "\\" in text or windows.drive:
        return windows.name
    if text.startswith(("/", "~", "./", "../")) or text.count("/") > 1:
        return PurePosixPath(text).name
    if look_on_disk and "/" in text and Path(text).exists():
        return PurePosixPath(text).name
    return text


def config_from_header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The configuration a LoRA was trained with, as a dict for TrainConfig; whatever a stranger wrote is filtered.

    Output, hub, report and resume fields are dropped, and what names code; paths are base names. ModelError if there
    is no readable one.
    """
    text = metadata.get(CONFIG_KEY)
    if text is None:
        raise ModelError("The LoRA file carries no sdxl_nb configuration; only files that sdxl_nb trained do.")
    try:
        config = json.loads(text) if len(text) <= MAX_CONFIG else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ModelError("The configuration in the LoRA file's header is damaged; pass the settings by hand.")
    return _without_code(safe_config(config, look_on_disk=False))


class Objective(NamedTuple):
    """The settings of a run that say what its base predicts, where that is not what the base says of itself."""

    prediction_type: str | None = None
    rescale_betas_zero_snr: bool = False
    flow_shift: float | None = None


def objective_flags(metadata: Mapping[str, str]) -> Objective | None:
    """Those in the header of a LoRA of ours; None where it has none, or has what they cannot be."""
    try:
        config = config_from_header(metadata)
    except ModelError:
        return None
    prediction, rescaled, shift = (config.get(name) for name in Objective._fields)
    known = prediction if prediction in ("epsilon", "v_prediction", "flow") else None
    shift = float(shift) if isinstance(shift, int | float) and not isinstance(shift, bool) else None
    found = Objective(known, rescaled is True, shift if shift is not None and 0 < shift <= 100 else None)
    return found if found != Objective() else None


def clip_skip_of(metadata: Mapping[str, str]) -> int:
    """The layer, counted from the last, at which captions were read for a LoRA of ours; SDXL's own for any other.

    What sd-scripts notes as ss_clip_skip has no effect there for SDXL, so none is believed here.
    """
    try:
        layer = config_from_header(metadata).get("clip_skip")
    except ModelError:
        return 2
    return layer if isinstance(layer, int) and not isinstance(layer, bool) and 1 <= layer <= 12 else 2


def find_config(path: str | os.PathLike[str]) -> Path:
    """The file whose header holds a run's configuration. ConfigError if there is none at that path."""
    try:
        return find_lora(path)
    except ModelError as error:
        raise ConfigError(str(error)) from None


def _without_code(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without what would run code of a stranger's choice: a name of ours runs none."""
    named = config.get("optimizer")
    if isinstance(named, str) and "." in named:
        config = {name: value for name, value in config.items() if name != "optimizer"}
    return {name: value for name, value in config.items() if name != "optimizer_args"}


def read_config(path: Path, known: Container[str], given: Container[str] = ()) -> dict[str, Any]:
    """The settings in the header of a LoRA of ours, filtered (`config_from_header`).

    ConfigError for a file that is none, for a setting that is not among the `known`, and where the optimizer or its
    arguments would be missing without a word, because they are not taken from a header and not `given`.
    """
    if not path.is_file():
        raise ConfigError(f"config file {path} cannot be read: there is no such LoRA file")
    try:
        with opened(path, path.name) as file:
            metadata = file.metadata() or {}
            settings = config_from_header(metadata)
    except ModelError as error:
        raise ConfigError(str(error)) from None
    whole = json.loads(metadata[CONFIG_KEY])
    left = [name for name in NAMES_CODE if whole.get(name) is not None and name not in settings]
    if left and not any(name in given for name in NAMES_CODE):
        values = ", ".join(f"{name} {shown(whole[name])}" for name in left)
        raise ConfigError(
            f"{path.name} was trained with {values}, which is never taken from a LoRA's header, because it can run "
            "code: give --optimizer, and --optimizer_args if you want them, yourself"
        )
    for name in settings:
        if name not in known:
            raise ConfigError(
                f"{path.name} was trained with the setting {shown(name)}, which this sdxl_nb does not know: "
                "install a newer one, or give the settings by hand"
            )
    return settings


def find_lora(path: str | os.PathLike[str]) -> Path:
    """The LoRA file meant by a file or folder name; of a run folder, the diffusers file."""
    path = Path(path)
    if not path.exists():
        raise ModelError(f"There is no LoRA file or folder at {path}; check the name.")
    if path.is_file():
        return path
    for name in (LORA, "adapter_model.safetensors"):
        if (path / name).is_file():
            return path / name
    files = sorted(file for file in path.glob("*.safetensors") if not file.name.startswith("."))
    if len(files) != 1:
        seen = "holds no .safetensors file" if not files else f"holds {len(files)} .safetensors files"
        raise ModelError(f"The folder {path.name} {seen}; name the LoRA file itself.")
    return files[0]


@contextmanager
def opened(path: Path, name: str, framework: str = "numpy") -> Iterator[Any]:
    """An open safetensors file, read as `framework` says. ModelError for a pickle or a file that is cut short."""
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as file:
            start = file.read(9)
        pickled = start[:2] in (b"PK", b"\x80\x02", b"\x80\x04") and start[8:] != b"{"  # a header's length may look so
        if pickled or path.suffix.lower() in (".bin", ".ckpt", ".pt", ".pth", ".pkl"):
            raise ModelError(f"{name} is a pickled file, which can run code when opened; get the .safetensors version.")
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{name} is truncated or is no safetensors file; download or copy it again.") from error
