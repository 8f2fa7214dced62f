"""What a local folder holds, judged by what the person meant: pictures, parquet files, archives, or a table of names.

In: a folder. Out: the Listing of one of them, with notes on what lies beside it and is not read. Where there are
several, that with the most captions is meant: not the thumbnail beside a data set's parquet files, and not the parquet
file of another program beside captioned pictures.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..decoding import SUFFIXES, is_text
from . import metadata
from .archives.archives import ending, list_archives
from .folders import folders
from .folders.file_names import captions_of, mask_column
from .folders.strangers import RUN_FILES
from .folders.suffixes import ARCHIVES, PACKED
from .folders.tree import inside
from .listing import CaptionColumn, Files, Listing, TextColumn, Texts
from .rows import ADDRESS, CAPTIONS, PICTURES, Addresses, Base64, NoPictures, base64_head, files_of, require_both
from .tables import for_training, is_saved, list_parquet, list_saved

TABLES = (".csv", ".jsonl", ".tsv", ".ndjson")
SAVED = ("dataset_info.json", "dataset_dict.json")  # what save_to_disk writes, beside state.json


@dataclass
class Found:
    """Names of files in a folder by kind, hidden ones left out."""

    parquet: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)  # folders that datasets' save_to_disk may have written
    pictures: bool = False


def look(folder: Path) -> Found:
    """What lies in a folder and below it; what cannot be listed below it is passed over."""
    found = Found()
    kinds = dict.fromkeys(SUFFIXES, None) | {".parquet": found.parquet}
    kinds |= dict.fromkeys(TABLES, found.tables) | {ending(name): found.archives for name in PACKED}
    kinds |= dict.fromkeys(ARCHIVES, found.archives)
    rest, ignored = [""], list[str]()
    while rest:
        below = rest.pop()
        try:
            with os.scandir(os.path.join(folder, below)) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith((".", "__MACOSX")):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        rest.append(f"{below}{name}/")
                        continue
                    kind = name[name.rfind(".") :].lower()
                    names = kinds.get(kind, ignored)
                    if names is None:  # as of half of all files, and of nearly all others `ignored`
                        found.pictures = True
                    elif names is ignored or name in RUN_FILES:
                        if name in SAVED:
                            found.saved.append(below)
                    elif name.lower() in metadata.NAMES:
                        found.metadata.append(below + name)
                    elif names is not found.archives or kind in ARCHIVES or name.lower().endswith(PACKED):
                        names.append(below + name)
        except OSError:
            continue
    for names in (found.parquet, found.archives, found.tables):
        names.sort()
    return found


def list_local(folder: Path, config: TrainConfig) -> Listing:
    """The Listing of what a folder holds. Raises DataError."""
    found = look(folder)
    ways: dict[str, Callable[[], Listing]] = {}
    if found.pictures or found.metadata or not (found.parquet or found.archives):
        ways["the pictures"] = lambda: folders.list_folder(folder, config)
    if not found.metadata:
        ways |= _others(folder, found, config)
    if len(ways) > 1:
        return _best(ways)
    listing = next(iter(ways.values()))()
    if found.metadata and (others := [*found.parquet, *found.archives]):
        listing.notes.append(f"{named(others)} is not read: {found.metadata[0]} says what the pictures are.")
    return listing


def _others(folder: Path, found: Found, config: TrainConfig) -> dict[str, Callable[[], Listing]]:
    """What to call the data that are no picture files, and how to list them."""
    ways: dict[str, Callable[[], Listing]] = {}
    saved = min((below for below in found.saved if is_saved(folder / below)), key=len, default="")
    if saved:
        ways[saved] = lambda: list_saved(folder / saved, config)
    parquet = [name for name in found.parquet if not saved or not name.startswith(saved)]
    if parquet:
        ways[named(_train(parquet))] = lambda: _of_training(parquet, list_parquet(folder, parquet, config))
    if found.archives:
        ways[named(_train(found.archives))] = lambda: _of_training(found.archives, _of_archives(folder, found, config))
    if found.tables:
        ways[named(found.tables)] = lambda: list_names(folder, found.tables, config)
    return ways


def _train(names: Sequence[str]) -> list[str]:
    """The names that `for_training` chooses, all where it refuses."""
    return [name for name in names if "train" in name.lower()] or list(names)


def _of_training(names: Sequence[str], listing: Listing) -> Listing:
    """The Listing, which says which files of other splits are not read."""
    left = [name for name in names if name not in _train(names)]
    if left:
        told = f"{named(left)} {'is' if len(left) == 1 else 'are'} not read: the split train is."
        listing.notes.append(told)
    return listing


def named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{', '.join(names[:2])}{more}"


def _best(ways: dict[str, Callable[[], Listing]]) -> Listing:
    """The Listing with the most captions, else the most pictures; notes say what is not read, and why."""
    listed: dict[str, Listing] = {}
    refused: dict[str, DataError] = {}
    for name, way in ways.items():
        try:
            listed[name] = way()
        except DataError as error:
            refused[name] = error
    best = max(listed, key=lambda name: _worth(listed[name]), default="")
    serious = [error for error in refused.values() if not isinstance(error, NoPictures)]
    if not best or (serious and not _worth(listed[best])[0]):
        raise min(serious or refused.values(), key=lambda error: not isinstance(error, Addresses | Base64))
    chosen = listed.pop(best)
    chosen.notes += [line for name, other in listed.items() for line in _not_read(name, other, best, chosen)]
    for name, why in refused.items():
        about = "it holds addresses, not pictures" if isinstance(why, Addresses) else str(why).rstrip(".")
        chosen.notes.append(f"{name} is not read ({about}).")
    return chosen


def _worth(listing: Listing) -> tuple[int, int]:
    return len(listing) - int(listing.captions.null_count), len(listing)


def _not_read(name: str, listing: Listing, best: str, chosen: Listing) -> list[str]:
    """What is said of a Listing that is not the chosen one; nothing of pictures that the chosen one names."""
    used = {*Texts[str](chosen.names), *files_of(chosen)} if name == "the pictures" else set()
    left = [each for each in Texts[str](listing.names) if each not in used]
    if not left:
        return []
    many, are = f"{len(left)} picture{'s' * (len(left) != 1)}", "are" if len(left) != 1 else "is"
    if name == "the pictures":
        return [f"{best} is read; {many} beside it, as {left[0]}, {are} not."]
    return [f"{name} ({many}) is not read, but {best}."]


def _of_archives(folder: Path, found: Found, config: TrainConfig) -> Listing:
    chosen = for_training(found.archives, folder)
    return list_archives([str(folder / name) for name in chosen if inside(folder, name, "the folder")], config)


def list_names(folder: Path, tables: Sequence[str], config: TrainConfig) -> Listing:
    """The Listing of a table, CSV or JSON lines, whose rows name picture files beside it.

    Raises NoPictures where it is about something else, Addresses where it names no files.
    """
    if len(tables) > 1:
        raise NoPictures(f"{folder} has several tables, {named(tables)}: call that of the pictures metadata")
    try:
        return _names(folder, tables[0], config)
    except (Addresses, Base64, NoPictures):
        raise
    except DataError as error:
        raise NoPictures(str(error)) from error


def _names(folder: Path, table: str, config: TrainConfig) -> Listing:
    path = inside(folder, table, "the folder")
    first: dict[Any, Any] = next(metadata.rows(path), {})
    image, caption = _columns(table, first, config)
    names, captions, masks = TextColumn(), CaptionColumn(), TextColumn()
    its_mask = mask_column(table, [name for name in first if isinstance(name, str)], config)
    seen: set[str] = set()
    for number, row in enumerate(metadata.rows(path), start=1):
        place, told_by = (folder / table).parent, f"row {number} of {table}"
        name = _file(folder, place, row.get(image), told_by)
        mask = row.get(its_mask) if its_mask else None
        masks.append(f"{folder}/{_file(folder, place, mask, told_by)}" if mask else None)
        if name in seen:
            raise NoPictures(f"{table} names '{name}' more than once: keep one line per picture.")
        seen.add(name)
        names.append(name)
        captions.append(_captions(row.get(caption), told_by))
    listed, (texts, further) = names.finish(), captions.finish()
    files = Files(str(folder), listed)
    note = f"Captions are those of {table} (columns {image} and {caption})."
    paths = masks.finish() if its_mask else None
    return Listing(
        listed, texts, files.read, files.stamp, notes=[note], further=further, masks=paths, stamps=files.stamps
    )


def _columns(table: str, first: dict[Any, Any], config: TrainConfig) -> tuple[str, str]:
    """The columns of a table that name pictures and captions. Raises NoPictures, DataError for addresses."""
    image, caption = config.columns()
    known = [name for name in first if isinstance(name, str)]
    for name in known if image not in known else (image,):
        if isinstance(first[name], str) and ADDRESS.match(first[name]):
            raise Addresses(table, name)
        if base64_head(first[name]):
            raise Base64(table, name)
    if image not in known and not config.image_column:
        image = next((name for name in ("file_name", *PICTURES, "path", "file") if name in known), image)
    if caption not in known and not config.caption_column:
        caption = next((name for name in CAPTIONS if name in known), caption)
    require_both(image, caption, known, table)
    return image, caption


def _file(folder: Path, root: Path, value: Any, told_by: str) -> str:
    """The name relative to `folder` of the picture that a row names, as seen from there or from beside the table."""
    if not isinstance(value, str) or not value or not is_text(value) or "\0" in value:
        raise NoPictures(f"{told_by} names no picture: correct or remove it.")
    for place in (root, folder):
        path = os.path.normpath(place / value)
        if os.path.isfile(path):
            name = os.path.relpath(path, folder)
            inside(folder, name, told_by)
            return Path(name).as_posix()
    raise NoPictures(f"{told_by} names {shown(value)}, but there is no such file in {folder}: correct the name.")


def _captions(value: Any, told_by: str) -> list[str]:
    found, foreign = captions_of(value)
    if foreign:
        raise NoPictures(f"{told_by} has a caption that is no text but {foreign}: write it as text.")
    return found if all(map(is_text, found)) else []
