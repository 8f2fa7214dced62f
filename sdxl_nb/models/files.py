"""The files that a part of the base is loaded from, found without loading it.

In: a Source and the name of a part. Out: paths, downloaded if need be.
"""

import contextlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from ..system.errors import ModelError
from .sources import WEIGHTS, Source, checkpoint_configs, config_folder, find, locate, read_json, vae_subfolder
from .variants import only, taken

TOKENIZER = ("vocab.json", "merges.txt", "tokenizer.json", "added_tokens.json", "special_tokens_map.json")
Find = Callable[[str], Path | None]


def files(source: Source, part: str) -> list[Path]:
    """The files that a part is loaded from, downloaded if need be; of one checkpoint file the whole of it."""
    if part == "vae" and source.vae is not None:
        return _another_vae(source)
    if source.is_single_file:
        configs = partial(_in_folder, checkpoint_configs(source.cache_dir))
        weights = [Path(source.location)] if part in WEIGHTS else _tokenizer(configs, part)
        return [*_config(configs, part), *weights]
    found = _weights(source.find, part, taken(source, part)) if part in WEIGHTS else _tokenizer(source.find, part)
    return [*_config(source.find, part), *found]


def vae_config(source: Source) -> dict[str, Any]:
    """The VAE's config.json. Raises ModelError where there is none."""
    path = next((path for path in files(source, "vae") if path.name == "config.json"), None)
    if path is None:
        raise ModelError(f"{source.vae or source.name} has no VAE with a config.json: give a whole SDXL model.")
    return json.loads(path.read_text(encoding="utf-8"))


def text_layers(source: Source) -> list[int]:
    """How many layers each text encoder has, by its config.json; [] where none says it."""
    paths = [
        path
        for part in ("text_encoder", "text_encoder_2")
        for path in files(source, part)
        if path.name == "config.json"
    ]
    found = [json.loads(path.read_text(encoding="utf-8")).get("num_hidden_layers") for path in paths]
    return [layers for layers in found if isinstance(layers, int)]


def _config(find: Find, part: str) -> list[Path]:
    path = find(f"{part}/{'config' if part in WEIGHTS else 'tokenizer_config'}.json")
    return [] if path is None else [path]


def _tokenizer(find: Find, part: str) -> list[Path]:
    return _present(find, [f"{part}/{name}" for name in TOKENIZER])


def _present(find: Find, names: Iterable[str]) -> list[Path]:
    """Those of the files that there are; without a network nobody knows of a file that is not in the hub's cache."""
    found = []
    for name in names:
        with contextlib.suppress(ModelError):
            found.append(find(name))
    return [path for path in found if path is not None]


def _in_folder(folder: Path, name: str) -> Path | None:
    path = folder / name
    return path if path.is_file() else None


def _weights(find: Find, part: str, variant: str | None, folder: str | None = None) -> list[Path]:
    """A part's safetensors: one file, or the shards that its index names."""
    folder, tail = f"{part}/" if folder is None else folder, f".{variant}" if variant else ""
    whole = _present(find, [f"{folder}{WEIGHTS[part]}{tail}.safetensors"])
    index = [] if whole else _present(find, [f"{folder}{WEIGHTS[part]}.safetensors.index{tail}.json"])
    if not index:
        return whole  # where there is none the loader will say what is wrong
    return [*index, *_present(find, [f"{folder}{name}" for name in shards(index[0], f"the {part}")])]


def shards(index: Path, what: str) -> list[str]:
    """The names of the shards in the index of `what`. ModelError for one that cannot be read."""
    named = (read_json(index, what) or {}).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
        raise ModelError(f"{index.name} of {what} names no files: download it again.")
    return sorted(set(named.values()))


def _another_vae(source: Source) -> list[Path]:
    where = locate(source.vae or "")
    if where.endswith(".safetensors"):
        return [config_folder(source) / "vae" / "config.json", Path(where)]
    folder = vae_subfolder(source)
    folder = f"{folder}/" if folder else ""

    def inside(name: str) -> Path | None:
        return find(where, name, None, source.cache_dir)

    variant = only(inside, f"{folder}{WEIGHTS['vae']}")
    return [*_present(inside, [f"{folder}config.json"]), *_weights(inside, "vae", variant, folder)]
