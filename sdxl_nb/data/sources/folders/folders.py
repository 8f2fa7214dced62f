"""A local folder of pictures and captions: a path in, a Listing out, nothing decoded.

Captions come from metadata.jsonl, .csv or .parquet (columns file_name and text), in the folder or in those below, and
from a .txt, .caption or .cap file beside a picture that they do not name. Of a folder that holds splits (train, test,
...), "train" is used. Everything that is read lies inside the folder: names and links that lead out of it are refused.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from ....config.train_config import TrainConfig
from ....system.errors import DataError, NoPictures
from ...decoding import Fault
from ..listing import Files, Listing, Note, TextColumn, Texts, none_further, text_column
from .caption_files import read_text
from .file_names import Named, left_after, read_names
from .found_captions import with_json
from .layouts import chosen
from .lines import Captions, lined, settled
from .seen import Seen
from .suffixes import USUAL
from .survey import Survey
from .tree import real

NO_CAPTIONS = "no metadata.jsonl, no metadata.csv and no .txt beside the pictures"


def list_folder(folder: Path | str, config: TrainConfig) -> Listing:
    """The Listing of a folder of picture files. Raises DataError when it cannot be used as a data set."""
    root, listed, beside = chosen(folder)
    found = Survey(root, config, real(folder), listed)
    check_tables(root, found.tables)
    named = read_names(root, found.tables, config, found.never)
    if named.beside:
        found.leave_out(named.beside)
    found.settle(named.seen)
    refuse_nothing(root, found, named)
    names, (captions, further, told), faults = with_texts(root, found, named, config)
    notes: list[str] = [Note(beside, "beside")] if beside else []
    notes += [*named.notes, *found.leavings.notes(bool(found.tables)), *shadowed(found, named), *told]
    if len(captions) and captions.null_count == len(captions) and not found.tables:
        notes.append(NO_CAPTIONS)
    files = Files(str(root), names)
    listing = Listing(names, captions, files.read, files.stamp, [*faults, *named.faults, *found.faults], notes)
    listing.further, listing.stamps = further, files.stamps
    if all_masks := found.masks | named.masks:
        masks = (all_masks.get(name) for name in Texts[str](names))
        listing.masks = text_column(mask and f"{root}/{mask}" for mask in masks)
    return with_json(listing, root, config)


def check_tables(root: Path, tables: list[str]) -> None:
    """Raise DataError for a folder with metadata of two kinds."""
    places = [name.rpartition("/")[0] for name in tables]
    for place in places:
        here = [name.rpartition("/")[2] for name, its in zip(tables, places, strict=True) if its == place]
        if len(here) > 1:
            here.sort(key=lambda name: (".jsonl", ".csv", ".parquet").index(name[name.rfind(".") :].lower()))
            raise DataError(f"{root / place} has both {' and '.join(here)}: keep the one that is right.")


def refuse_nothing(root: Path, found: Survey, named: Named) -> None:
    """Raise DataError for a folder without any picture, with what it holds instead."""
    if len(found.pictures) or found.tables:
        return
    if found.faults:
        raise DataError(f"None of the pictures in {root} can be used; the first: {found.faults[0].sentence}")
    why = f"; {found.leavings.sentence().rstrip('.')}" if found.leavings else ""
    raise NoPictures(f"{root} holds no pictures ({', '.join(USUAL)}){why}: check --train_data_dir.")


def with_texts(root: Path, found: Survey, named: Named, config: TrainConfig) -> tuple[pa.Array, Captions, list[Fault]]:
    """(names, captions, faults): what metadata files name, then the other pictures with the texts beside them.

    A picture without either keeps the caption None, or is a fault where a metadata file stands for its folder.
    """
    names, texts, faults = left_for_texts(found, named)
    bad: list[int] = []

    def caption(row: int, text: str | None) -> str | None:
        try:
            return lined(read_text(root, text)) if text else None
        except DataError as error:
            faults.append(Fault(names[row].as_py(), f"{names[row]}: its caption file {error}"))
            bad.append(row)
            return None

    captions = text_column(caption(row, text) for row, text in enumerate(Texts[str | None](texts)))
    if bad:
        names, captions = left_after(bad, names, captions)
    read = settled(captions, config)
    if not found.tables:
        return names, read, faults
    both = pa.concat_arrays([named.captions, read.captions])
    return pa.concat_arrays([named.names, names]), Captions(both, further_of(named, read), read.notes), faults


def further_of(named: Named, read: Captions) -> pa.Array | None:
    """The further captions of both after each other."""
    if named.further is None and read.further is None:
        return None
    columns = ((named.further, len(named.names)), (read.further, len(read.captions)))
    return pa.concat_arrays([none_further(count) if column is None else column for column, count in columns])


def left_for_texts(found: Survey, named: Named) -> tuple[pa.Array, pa.Array, list[Fault]]:
    """(names, caption files, faults) of the pictures that no metadata file names."""
    if not found.tables:
        return found.pictures, found.texts, []
    names, texts, faults = TextColumn(), TextColumn(), []
    places = {table: table[: table.rfind("/") + 1] for table in found.tables}
    rest = np.flatnonzero(~seen_among(found.pictures, named))
    for name, text in zip(Texts[str](found.pictures, rest), Texts[str | None](found.texts, rest), strict=True):
        table = next((table for table, place in places.items() if name.startswith(place)), None)
        if table and not text:
            faults.append(Fault(name, f"{name} is not named in {table}."))
        else:
            names.append(name)
            texts.append(text)
    return names.finish(), texts.finish(), faults


def seen_among(pictures: pa.Array, named: Named) -> np.ndarray:
    """(N,) bool: which of the pictures metadata files name."""
    if isinstance(named.seen, Seen):
        return named.seen.where(pictures)
    return np.fromiter((name in named.seen for name in Texts[str](pictures)), bool, len(pictures))


def shadowed(found: Survey, named: Named) -> list[Note]:
    """A Note where pictures have a text beside them that is not read, because metadata files name them."""
    if not found.tables or len(found.texts) == found.texts.null_count:
        return []
    both = [name for name, text in zip(Texts[str](found.pictures), Texts[str | None](found.texts), strict=True) if text]
    both = [name for name in both if name in named.seen]
    if not both:
        return []
    told = f"{both[0]} has a caption in {named.seen[both[0]]} and in a text beside it; the text is not read."
    if len(both) > 1:
        told = f"{len(both)} pictures have a caption in a metadata file and in a text, such as {told}"
    return [Note(told, "two_caption_files", dict.fromkeys(both, ""))]
