"""Where a base model is, and whether it can be trained here, before anything big is read or downloaded.

In: a Source: a hub id, a diffusers folder, one .safetensors checkpoint or embedded:tiny-sdxl, and perhaps another
VAE. Out: paths of its small files, or ModelError with one sentence. Nothing here imports torch or reads a pickle.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.train_config import TrainConfig
from ..system.errors import ModelError
from ..system.hub import ANSWER_SECONDS, endpoint

EMBEDDED = {"embedded:tiny-sdxl": Path(__file__).parents[1] / "tiny" / "base"}
PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
WEIGHTS = {  # the stem of each part's weights
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}


@dataclass(frozen=True)
class Source:
    """Where a base model comes from: a folder or hub id with `revision` and `variant`, or one checkpoint file."""

    name: str
    vae: str | None = None
    revision: str | None = None
    variant: str | None = None
    cache_dir: str | None = None
    loras: tuple[tuple[str, float], ...] = ()  # files and scales of LoRAs that belong to it, frozen

    @classmethod
    def of(cls, config: TrainConfig) -> "Source":
        """The source that a TrainConfig names."""
        return cls(
            config.pretrained_model_name_or_path,
            config.pretrained_vae_model_name_or_path,
            config.revision,
            config.variant,
            config.cache_dir,
            config.base_loras(),
        )

    @property
    def location(self) -> str:
        """What diffusers is given: an embedded name becomes its folder, `~` the home folder."""
        return locate(self.name)

    @property
    def is_single_file(self) -> bool:
        return self.location.endswith(".safetensors")

    def options(self, part: str) -> dict[str, Any]:
        """Keyword arguments of `from_pretrained` for a subfolder."""
        return {"subfolder": part, "revision": self.revision, "cache_dir": self.cache_dir}

    def find(self, file: str) -> Path | None:
        """A file of the base, see `find`."""
        return find(self.location, file, self.revision, self.cache_dir)

    def config(self, file: str) -> dict[str, Any] | None:
        """A JSON file of the base, of one checkpoint file SDXL's own; or None when it has no such file."""
        found = read_json(checkpoint_configs() / file if self.is_single_file else self.find(file), self.name)
        if found and self.is_single_file and file == "unet/config.json":
            found["in_channels"] = self._channels(found["in_channels"])
        return found

    def _channels(self, usual: int) -> int:
        """What the U-Net in one checkpoint file takes: SDXL's latents, or more for another task."""
        first = checkpoint_shapes(self.location, self.name).get("model.diffusion_model.input_blocks.0.0.weight", [])
        return first[1] if len(first) == 4 else usual


def locate(name: str) -> str:
    """The folder of an embedded model, a path with the home folder put in, or the hub id as it is."""
    if name.startswith("embedded:"):
        if name not in EMBEDDED:
            raise ModelError(f"There is no embedded model {name}: the one there is, is {', '.join(EMBEDDED)}.")
        return str(EMBEDDED[name])
    if "://" in name:
        raise ModelError(
            f"{name} is an address: give the hub id alone (owner/name), or download the file and its path."
        )
    if name.endswith(PICKLES):
        raise ModelError(f"{name} is a pickle, which can run code and is never read: give a .safetensors file.")
    return str(Path(name).expanduser()) if name.startswith("~") else name


def find(where: str, file: str, revision: str | None = None, cache_dir: str | None = None) -> Path | None:
    """The path of one file of a folder or hub repository, downloaded if need be; None if there is no such file.

    Asks the hub once, where its own client would ask again for 25 s. Raises ModelError for a repository that does
    not exist, is gated, lacks the revision or cannot be reached.
    """
    if Path(where).is_dir():
        path = Path(where, file)
        return path if path.is_file() else None
    if Path(where).is_file():
        raise ModelError(f"{where} is a file whose name does not end in .safetensors: only those are read.")
    if where.startswith(("/", "./", "../")):
        raise ModelError(f"{where} does not exist: give a hub id, a diffusers folder or a .safetensors file.")
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        kept = try_to_load_from_cache(where, file, cache_dir=cache_dir, revision=revision)
        if kept is not None:  # a path, or the client's mark for a file that the repository does not have
            return Path(kept) if isinstance(kept, str) else None
        get_hf_file_metadata(hf_hub_url(where, file, revision=revision), timeout=ANSWER_SECONDS)
        return Path(hf_hub_download(where, file, revision=revision, cache_dir=cache_dir, etag_timeout=ANSWER_SECONDS))
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise ModelError(unreachable(where)) from error
        return None
    except Exception as error:  # httpx's, requests' and huggingface_hub's own, by version
        raise ModelError(explain(error, where, revision)) from error


def explain(error: BaseException, name: str, revision: str | None = None) -> str:
    """The sentence for a repository that cannot be read: what is wrong, and what to do."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    page = f"{endpoint()}/{name}"
    if "GatedRepoError" in kinds:
        return f"{name} is gated: ask for access at {page}, then set HF_TOKEN."
    if "RepositoryNotFoundError" in kinds:
        return f"There is no model {name} here or at {endpoint()}: check the name, or set HF_TOKEN if it is private."
    if "RevisionNotFoundError" in kinds:
        return f"{name} has no revision {revision}: look at the branches and tags at {page}."
    if "HFValidationError" in kinds:
        return f"{name} is neither a folder or file here nor a hub id (owner/name): check the name."
    if "OfflineModeIsEnabled" in kinds:
        return f"{name} is not in the cache and HF_HUB_OFFLINE=1 forbids to fetch it: unset it, or give a local folder."
    if "HfHubHTTPError" in kinds:
        return f"The hub at {endpoint()} refuses {name}: {first_line(error)}"
    return unreachable(name)


def unreachable(name: str) -> str:
    return (
        f"{name} is not here and the hub at {endpoint()} cannot be reached: check the network, HF_ENDPOINT or the name."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def checkpoint_shapes(path: str, name: str) -> dict[str, list[int]]:
    """The names and shapes of the tensors of a safetensors file; ModelError when it is not one."""
    with opened(path, name) as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118  (it is no mapping)


@contextlib.contextmanager
def opened(path: str, name: str, framework: str = "np") -> Iterator[Any]:
    """An open safetensors file of a base; ModelError when it is not one."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ModelError(f"{name} does not exist: give a hub id, a diffusers folder or a .safetensors file.")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(broken(name)) from error


def broken(name: str) -> str:
    return (
        f"{name} is truncated or no safetensors file (a pickle is never read, whatever its name): download it again, "
        "as .safetensors."
    )


def checkpoint_configs(cache_dir: str | None = None) -> Path:
    """The folder with SDXL's configurations and tokenizers, which a checkpoint file does not hold: our own, see there.

    `cache_dir` was where the hub's copy went; nothing is fetched any more.
    """
    return Path(__file__).parent / "sdxl"


def config_folder(source: Source) -> Path:
    """A local folder that holds at least the base's `vae/config.json`."""
    if source.is_single_file:
        return checkpoint_configs(source.cache_dir)
    found = source.find("vae/config.json")
    if found is None:
        raise ModelError(f"{source.name} has no vae/config.json: give a whole SDXL model.")
    return found.parent.parent


def vae_subfolder(source: Source) -> str:
    """Where the VAE named by `source.vae` lies in its folder or repository: at the root, or in `vae/`."""
    where = locate(source.vae or "")
    for file in ("config.json", "vae/config.json"):
        config = read_json(find(where, file, None, source.cache_dir), source.vae)
        if config is not None:
            _check_vae(source, config)
            return file.rpartition("/")[0]
    raise ModelError(
        f"{source.vae} is no VAE (it has no config.json): give a VAE's hub id, folder or .safetensors file."
    )


def _check_vae(source: Source, config: dict[str, Any]) -> None:
    """Latents of another VAE are fit for the base's U-Net only with the same channels and the same scale."""
    if config.get("_class_name") != "AutoencoderKL":
        raise ModelError(f"{source.vae} is no VAE but a {config.get('_class_name')}: give one made for SDXL.")
    own = read_json(config_folder(source) / "vae" / "config.json", source.name) or {}
    for field, words in (("latent_channels", "latent channels"), ("scaling_factor", "as scaling factor")):
        theirs, ours = config.get(field), own.get(field)
        if theirs != ours and None not in (theirs, ours):
            raise ModelError(
                f"The VAE {source.vae} does not fit {source.name}: it has {theirs} {words}, the base's own has {ours}; "
                "give a VAE made for this base, or none."
            )


def has_weights(source: Source, part: str) -> bool:
    """Whether the base has this part's weights as safetensors, whole or in shards, of the variant asked for."""
    stem, tail = f"{part}/{WEIGHTS[part]}", f".{source.variant}" if source.variant else ""
    whole = f"{stem}{tail}.safetensors"
    if not Path(source.location).is_dir():
        from huggingface_hub import file_exists

        with contextlib.suppress(Exception):  # asked to explain an error, so it must not be another
            return file_exists(source.location, whole, revision=source.revision)
        return True
    return Path(source.location, whole).is_file() or any(Path(source.location, part).glob("*.safetensors.index*.json"))


def read_json(path: Path | None, name: str | None) -> dict[str, Any] | None:
    """A JSON object in a file, {} for JSON that is none; ModelError when it cannot be read."""
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path.name} of {name} is not valid JSON: download it again.") from error
    return found if isinstance(found, dict) else {}
