"""Files that a person brings into a folder of pictures: pictures, captions, and zips of both.

In: a TrainConfig whose pictures lie in a local folder, a file, and the name that it came with. Out: pictures and
captions in that folder, each whole or not at all, and a sentence that says what became of the file.
"""

import os
import re
import tempfile
from pathlib import Path

from ...config.train_config import TrainConfig
from ...data.dataset import list_directory
from ...data.decoding import SUFFIXES
from ...data.editing import add_picture, editable_folder, save_caption, shortened
from ...data.sources.folders.suffixes import CAPTIONS, ending
from ...system.errors import DataError

ZIPS = (".zip", ".tar")
MOST = 16 << 20  # bytes of a caption's file: more is none


def add_file(config: TrainConfig, path: Path, name: str, became: dict[str, str] | None = None) -> str:
    """Add one file of any of these kinds; a caption goes to the picture of its name. Raises DataError.

    `became` remembers under what name each picture lies here, by the path that it came with: of a/01.jpg and b/01.jpg
    one gets another name, and b/01.txt is its caption.
    """
    became = {} if became is None else became
    whole = os.path.splitext(name.replace("\\", "/"))[0]
    own = Path(name.replace("\\", "/")).name
    kind = ending(own)
    if kind in ZIPS:
        return add_archive(config, path, own)
    if kind in CAPTIONS:
        return add_caption(config, path, own, became.get(whole))
    short = shortened(own)
    data = path.read_bytes()
    there = _place_of(config, short, data) if kind in SUFFIXES else None
    if there is not None:
        became[whole] = there
        return f"{own} is there already" + (f", as {there}" if there != short else "")
    added = became[whole] = add_picture(config, own, data)
    if added == own:
        return "added"
    return f"added as {added}, since {f'{short} is another picture' if added != short else 'its name is too long'}"


def _place_of(config: TrainConfig, name: str, data: bytes) -> str | None:
    """The name under which the folder holds this very picture: its own, or numbered as `free_name` does."""
    stem, suffix = os.path.splitext(name)
    numbered = re.compile(rf"{re.escape(stem)}(-\d+)?{re.escape(suffix)}")
    for path in sorted(editable_folder(config).glob(f"{glob_escape(stem)}*")):
        same_size = numbered.fullmatch(path.name) and path.is_file() and path.stat().st_size == len(data)
        if same_size and path.read_bytes() == data:
            return path.name
    return None


def add_caption(config: TrainConfig, path: Path, name: str, picture: str | None = None) -> str:
    """Give this picture, or that of the text's own name, the caption in it. Raises DataError where there is none."""
    folder, stem = editable_folder(config), os.path.splitext(name)[0]
    found = [one for one in sorted(folder.glob(f"{glob_escape(stem)}.*")) if ending(one.name) in SUFFIXES]
    if picture is not None and (folder / picture).is_file():
        found = [folder / picture]
    if not found:
        raise DataError(f"{name}: there is no picture called {stem} yet: add it first.")
    if path.stat().st_size > MOST:
        raise DataError(f"{name} is too large to be a caption.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except ValueError:
        raise DataError(f"{name} is no text in UTF-8: save it as that.") from None
    save_caption(config, found[0].name, text)
    return f"the caption of {found[0].name}"


def glob_escape(text: str) -> str:
    """The text as a pattern that means itself."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)


def add_archive(config: TrainConfig, path: Path, name: str) -> str:
    """Add the pictures of a zip or tar with their captions. Raises DataError for one that holds none."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # under its own name, by which it is spoken of
        whole = path.rename(Path(folder, f"archive{ending(name)}"))
        try:
            added, there, refused = _unpacked(config, whole)
        except DataError as error:
            raise DataError(_said_of(error, whole, name).replace(": check --train_data_dir", "")) from error
        finally:
            whole.rename(path)
    refused = [_said_of(sentence, whole, name) for sentence in refused]
    if not added and not there:
        raise DataError(f"{name} holds no picture that can be used{': ' + refused[0] if refused else '.'}")
    said = f"{added} picture{'s' * (added != 1)} added" + (f", {there} there already" if there else "")
    return said + (f"; {len(refused)} refused, the first: {refused[0]}" if refused else "")


def _unpacked(config: TrainConfig, archive: Path) -> tuple[int, int, list[str]]:
    """How many of its pictures were added and were there, and sentences about the others. Raises DataError for what is
    no archive."""
    listing = list_directory(str(archive), config.replace(train_data_dir=str(archive)))
    added, there, refused = 0, 0, [fault.sentence for fault in listing.faults]
    for row in range(len(listing)):
        picture, caption = listing.names[row].as_py(), listing.captions[row].as_py()
        try:
            own, data = Path(picture).name, listing.read(row)
            if _place_of(config, shortened(own), data) is not None:
                there += 1
                continue
            add_picture(config, own, data, caption or "")
            added += 1
        except DataError as error:
            refused.append(str(error))
    return added, there, refused


def _said_of(words: object, archive: Path, name: str) -> str:
    """What was said of the archive by the name under which it lies here, by its own."""
    return str(words).replace(str(archive), name).replace(archive.name, name)
