"""Who reads LoRA files, and which keys each accepts for full-size SDXL; a table of it for any file.

In: the keys of a file and its base; out: a `KeyTable`. The lists in known_keys/ were recorded by running each reader's
own code at the commit named in them (tests/lora/readers/record.py); nothing of a reader's code is here.

The lists know SDXL's shapes only. Of a base with other shapes (the embedded tiny one) each key is looked up under the
name that the same module has in full-size SDXL, and the table says so.

DoRA, found by running the readers' own merging of weights (tests/lora/readers/dora.json). With W the base weight, B A
the LoRA, m the magnitudes, one for each output row, peft, LyCORIS and diffusers compute m (W + s B A) / ||W + s B A||.
ComfyUI and Forge divide by ||W|| instead, which is nearly the same for the small changes that training makes.
AUTOMATIC1111 divides by the norms of the input columns, which is another picture, and sd-scripts overlooks the
magnitudes. No file can suit all of them, so ours hold what was trained, and a sentence says who shows it.
"""

import html
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from ..base import SDXL, Base
from ..kinds.factored import PARTS
from ..names import TE2, Layout, diffusers_key, kohya_key, naming_of, split_key
from .contents import Contents, first_few, other_kind
from .patterns import unfold

FOLDER = Path(__file__).parent / "known_keys"
FEW = 3  # unknown keys that are named
MEANT = {"diffusers": "diffusers", "comfyui": "kohya", "forge": "kohya", "a1111": "kohya", "sdscripts": "kohya"}
DORA = (
    "DoRA: diffusers shows it as trained (from the diffusers file), ComfyUI and Forge nearly so; AUTOMATIC1111, "
    "InvokeAI, sd-scripts and OpenVINO GenAI do not apply its magnitudes rightly, so train without use_dora for those."
)
OTHER_SIZE = "The base is not SDXL-sized: each key was looked up under the name its module has in full-size SDXL."

OPENVINO_ALPHA = (
    "OpenVINO GenAI ignores alpha: where it is not the rank, it draws at another strength; convert --fold_alpha helps."
)
OPENVINO_CONV = "OpenVINO GenAI fails at the first picture on LoRA layers of 3x3 convolutions."
NO_MIDDLE = "Draw Things takes a LoRA without the middle block's attention for one of SSD-1B."
WHOLE = "diffusers fails on a kohya file with both text encoders (its issue 13984): give it the diffusers file."


FACTORS = frozenset(part for names in PARTS.values() for part in names)  # LoHa's and LoKr's
FACTORED = (
    "diffusers' load_lora_weights reads no LoHa or LoKr: generate and start_pipeline do, and resize makes a LoRA of it."
)
UNRECORDED = "What {} makes of LoHa and LoKr was not recorded: its row leaves their keys out."


@dataclass(frozen=True)
class Reader:
    """One program at one commit: `key in reader` says whether its loader uses that key with full-size SDXL."""

    name: str
    repository: str
    commit: str
    naming: str  # which of a run's two files is meant for it: diffusers or kohya
    modules: Mapping[str, frozenset[str]]
    parts: tuple[str, ...]

    def __contains__(self, key: str) -> bool:
        return any(
            key.endswith(f".{part}") and part in self.modules.get(key[: -len(part) - 1], ()) for part in self.parts
        )


@lru_cache(maxsize=1)
def recorded_readers() -> tuple[Reader, ...]:
    """Every reader with a recorded list, diffusers first; 0.2 s the first time."""
    return tuple(_load(name) for name in MEANT)


def _load(name: str) -> Reader:
    data = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    modules: dict[str, frozenset[str]] = {}
    for group in data["keys"]:
        modules |= dict.fromkeys(unfold(group["modules"]), frozenset(group["parts"]))  # one set for them all
    parts = sorted({part for group in data["keys"] for part in group["parts"]})
    return Reader(data["reader"], data["repository"], data["commit"], MEANT[name], modules, tuple(parts))


def is_sdxls(path: str) -> bool:
    """Whether full-size SDXL has this module: diffusers knows all of them but one; its inventory would be computed."""
    return path in recorded_readers()[0].modules or path == f"{TE2}.text_projection"


class Row(NamedTuple):
    """One reader's view of a file; `meant`: the file is the one of the two that this reader is given."""

    reader: str
    known: int
    unknown: tuple[str, ...]
    meant: bool = True


@dataclass(frozen=True)
class KeyTable:
    """Which keys of a file each reader knows, and remarks; prints and displays as a table."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()  # of the file itself, whoever reads it

    @property
    def unknown(self) -> list[str]:
        """Every key that a reader the file is meant for does not know; DoRA's magnitudes have a note instead."""
        keys = {key for row in self.rows if row.meant for key in row.unknown}
        return sorted(key for key in keys if not key.endswith(".dora_scale"))

    def as_dicts(self) -> list[dict[str, Any]]:
        """Of each reader: reader, meant, known, unknown (the keys themselves, thousands of another's file)."""
        rows = [row._asdict() for row in self.rows]
        return [{**row, "unknown": list(row["unknown"])} for row in rows]

    def counts(self) -> list[dict[str, Any]]:
        """For events: reader, meant, known, unknown (how many keys), and the first few of those."""
        return [{**row, "unknown": len(row["unknown"]), "first": row["unknown"][:FEW]} for row in self.as_dicts()]

    def markdown(self) -> str:
        """For model cards."""
        lines = ["| reader | keys known | keys unknown |", "|---|---|---|"]
        lines += ["| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |" for cells in self._cells()]
        return "\n".join([*lines, *(f"\n{note}" for note in self._said())])

    def _said(self) -> tuple[str, ...]:
        return (*self.faults, *self.notes)

    def _cells(self) -> list[tuple[str, str, str]]:
        return [(row.reader, str(row.known), _shortened(row)) for row in self.rows]

    def __str__(self) -> str:
        cells = [("reader", "keys known", "keys unknown"), *self._cells()]
        wide = max(len(row[0]) for row in cells)
        lines = [f"{reader:<{wide}}  {known:>10}  {unknown}" for reader, known, unknown in cells]
        return "\n".join([*lines, *self._said()])

    def _repr_html_(self) -> str:
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self._cells())
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._said())
        return f"<table><tr><th>reader</th><th>keys known</th><th>keys unknown</th></tr>{rows}</table>{notes}"


def _shortened(row: Row) -> str:
    if row.unknown and not row.meant:
        return f"{len(row.unknown)}: give it the other file"
    named = ": " + ", ".join(row.unknown[:FEW]) if row.unknown else ""
    return f"{len(row.unknown)}{named}{' ...' * (len(row.unknown) > FEW)}"


def key_table(
    keys: Iterable[str], base: Base, inventory: Container[str], readers: Mapping[str, Container[str]] | None = None
) -> KeyTable:
    """Compare the keys with the base model's modules and with each reader's recorded list, or with lists given."""
    keys, others = _told_apart(list(keys), base.layout)
    rows = [_row("base model", keys, {key for key in keys if (split_key(key, base.layout) or ("",))[0] in inventory})]
    notes = [DORA] if any(key.endswith((".dora_scale", ".lora_magnitude_vector")) for key in keys) else []
    if others:
        notes.append(f"Keys of other kinds than LoRA's, which the lists lack: {len(others)} ({first_few(others)}).")
    if readers is not None:
        return KeyTable((*rows, *(_row(name, keys, accepted) for name, accepted in readers.items())), tuple(notes))
    if not _is_sdxl(base):
        notes.append(OTHER_SIZE)
    if any(key.startswith("lora_te") for key in keys):
        notes.append(WHOLE)
    notes += _factored_notes(keys)
    return KeyTable((*rows, *_recorded_rows(tuple(keys), base)), tuple(notes))


@lru_cache(maxsize=16)
def _recorded_rows(keys: tuple[str, ...], base: Base) -> tuple[Row, ...]:
    """What the recorded lists say; a run asks for the same keys at every file that it writes."""
    naming = naming_of(keys)
    as_sdxl = {} if _is_sdxl(base) else {key: _counterpart(key, base) for key in keys}
    factored, rows = _factored(keys), []
    for reader in recorded_readers():
        said = [key for key in keys if key not in factored] if _is_silent(reader) else list(keys)
        known = {key for key in said if key in reader or as_sdxl.get(key, "") in reader}
        rows.append(_row(reader.name, said, known, reader.naming == naming))
    return tuple(rows)


def _is_silent(reader: Reader) -> bool:
    """Whether a reader's list was recorded without LoHa and LoKr."""
    return not FACTORS & set(reader.parts)


def _factored_notes(keys: Iterable[str]) -> list[str]:
    """What the recorded lists cannot say of LoHa and LoKr."""
    if not _factored(keys):
        return []
    if naming_of(keys) != "kohya":
        return [FACTORED]
    return [UNRECORDED.format(each.name) for each in recorded_readers() if each.naming == "kohya" and _is_silent(each)]


def _told_apart(keys: list[str], layout: Layout) -> tuple[list[str], list[str]]:
    """The keys that the recorded lists can tell of, and those of LyCORIS' kinds, which were not recorded."""
    every, others = set(keys), set()
    for key in keys:
        if other := other_kind(key, every, layout):
            module = key.removesuffix(f".{other[1]}")
            others |= every & {key, f"{module}.alpha", f"{module}.dora_scale"}
        elif key.endswith(".lora_mid.weight"):
            others.add(key)
    return [key for key in keys if key not in others], sorted(others)


def _factored(keys: Iterable[str]) -> set[str]:
    """The keys of LoHa and LoKr layers, their alphas among them."""
    keys = list(keys)
    modules = {key.rpartition(".")[0] for key in keys if key.rpartition(".")[2] in FACTORS}
    return {key for key in keys if key.rpartition(".")[0] in modules}


def known_to_all(base: Base) -> set[str]:
    """The modules of a base whose LoRA every reader knows, in the one of the two files that it is given."""
    layout, unknown = base.layout, set()
    kohya, theirs = partial(kohya_key, layout=layout), diffusers_key
    for parts, named in ((("down", "up", "alpha"), kohya), (("down", "up"), theirs)):
        keys = filter(None, (named(path, part) for path in base.inventory for part in parts))
        places = (split_key(key, layout) for key in key_table(keys, base, base.inventory).unknown)
        unknown |= {place[0] for place in places if place}
    return set(base.inventory) - unknown


def reader_remarks(found: Contents) -> list[str]:
    """What readers without a recorded list make of a kohya file, found by running or reading their code."""
    if found.naming != "kohya" or not found.layers:
        return []
    told = []
    pairs = [(parts["down"], parts.get("alpha")) for parts in found.layers.values() if "down" in parts]
    if any(alpha is not None and alpha.numel() == 1 and float(alpha) != down.shape[0] for down, alpha in pairs):
        told.append(OPENVINO_ALPHA)
    if any(down.ndim == 4 and down.shape[2:] != (1, 1) for down, _ in pairs):
        told.append(OPENVINO_CONV)
    attention = [path for path in found.layers if ".attentions." in path]
    if attention and not any(path.startswith("unet.mid_block.") for path in attention):
        told.append(NO_MIDDLE)
    return told


def _row(reader: str, keys: Sequence[str], accepted: Container[str], meant: bool = True) -> Row:
    unknown = tuple(key for key in keys if key not in accepted)
    return Row(reader, len(keys) - len(unknown), unknown, meant)


def _is_sdxl(base: Base) -> bool:
    """Whether it has full-size SDXL's keys, as an inpainting base with its nine input channels has too."""
    theirs, ours = (json.loads(each.description)["unet"] | {"in_channels": 4} for each in (base, SDXL))
    return bool(theirs == ours)


def _counterpart(key: str, base: Base) -> str:
    """The key that the same tensor of the same module has in a file for full-size SDXL."""
    path, part = split_key(key, base.layout) or ("", "")
    if not is_sdxls(path):
        return ""
    return (kohya_key(path, part, SDXL.layout) if key.startswith("lora_") else diffusers_key(path, part)) or ""
