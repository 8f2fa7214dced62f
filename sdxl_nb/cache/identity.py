"""What a frozen part of the base is: a digest of its files, found without loading it. Caches are kept under it.

In: a Source, the name of a part and a Memo, by which unchanged files are not read again. Out: a text that is the same
for the same weights and configuration wherever they lie, and another for any others.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..data.file_facts import Memo
from ..models.files import files
from ..models.objective.base_objective import BaseObjective
from ..models.sources import WEIGHTS, Source

# Raised when our own code comes to make other latents or embeddings of the same input (data.decoding, data.crops,
# latents.encode, TextEncoders.encode): what former versions cached is then computed anew.
FORMAT = 3


def identity(source: Source, part: str, memo: Memo, *more: object) -> str:
    """32 hexadecimal digits for a part's files and whatever else `more` says matters. Raises ModelError."""
    digest = hashlib.blake2b(repr((FORMAT, part, *more)).encode(), digest_size=16)
    for path in files(source, part):
        digest.update(f"\n{path.name} ".encode() + memo.file_digest(path))
    return digest.hexdigest()


def combined(*identities: object) -> str:
    """One identity of several."""
    return hashlib.blake2b("\n".join(map(str, identities)).encode(), digest_size=16).hexdigest()


# Of a tokenizer's files what makes CLIP's tokens; others are there or not, by what a library last wrote or fetched.
TOKENS = ("vocab.json", "merges.txt")
# Of a scheduler's configuration what training looks at; libraries add others.
SCHEDULE = {
    *("beta_start", "beta_end", "beta_schedule", "trained_betas", "num_train_timesteps", "rescale_betas_zero_snr"),
    *("sigma_data", "sigma_min", "sigma_max", "sigma_schedule", "rho", "shift", "flow_shift", "prediction_type"),
}


def contents(source: Source, objective: BaseObjective, memo: Memo) -> dict[str, str]:
    """Part of the base -> 32 hexadecimal digits of what it does: its weights and settings, not names and places.

    What a run is resumed on must have the same. Raises ModelError.
    """
    found = {part: combined(*(_content(path, memo) for path in files(source, part))) for part in WEIGHTS}
    for part in ("tokenizer", "tokenizer_2"):
        paths = [path for path in files(source, part) if path.name in TOKENS]
        found[part] = combined(*(_content(path, memo) for path in paths))
    schedule = {name: value for name, value in sorted(objective.scheduler.items()) if name in SCHEDULE}
    about = (objective.prediction, objective.zero_snr, objective.latents, objective.zeros_for_empty)
    return found | {"objective": combined(*about, json.dumps(schedule, default=str))}


def _content(path: Path, memo: Memo) -> str:
    """The digest of a file; of a configuration that of what it sets, without what libraries note of themselves."""
    if path.name != "config.json":
        return memo.file_digest(path).hex()
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    notes = {"transformers_version", "torch_dtype", "dtype", "architectures"}
    return json.dumps({key: known[key] for key in sorted(known) if not key.startswith("_") and key not in notes})
