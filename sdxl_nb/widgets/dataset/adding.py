"""Files that a person brings into a folder of pictures: pictures, captions, and zips of both.

In: a TrainConfig whose pictures lie in a local folder, a file, and the name that it came with. Out: pictures and
captions in that folder, each whole or not at all, and a sentence that says what became of the file. What a system or a
program keeps beside pictures (Thumbs.db, .DS_Store, desktop.ini, __MACOSX, notes, settings) is no fault of anybody's:
it is passed over, and that is said.
"""

import os
import re
import tempfile
from pathlib import Path

from ...config.train_config import TrainConfig
from ...data.dataset import list_directory, open_dataset
from ...data.decoding import SUFFIXES
from ...data.editing import add_picture, editable_folder, save_caption, shortened
from ...data.sources.folders.leavings import ORPHAN
from ...data.sources.folders.strangers import SURE, SYSTEM
from ...data.sources.folders.suffixes import CAPTIONS, KINDS, OTHER, PACKED, TABLE, ending
from ...data.sources.listing import Note
from ...system.errors import DataError
from ..parts.uploads import PASSED

ZIPS = (".zip", ".tar")
SAID = ("not_training_pictures", ORPHAN)  # of what is noted about an archive
OTHER_PACKED = (*PACKED, ".gz", ".bz2", ".xz", ".zst")
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
    if told := passed_over(name):
        return told
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


def passed_over(name: str) -> str | None:
    """Why a file is nothing to bring, if it is none: a system keeps it, or it is neither picture nor caption.

    Raises DataError for one that holds pictures or captions in a way that is not taken here.
    """
    *folders, own = name.replace("\\", "/").strip("/").split("/")
    if own.startswith(".") or any(part.startswith(".") or SURE.get(part.lower()) == SYSTEM for part in folders):
        return f"{PASSED}: a system or a program keeps it"
    if own.lower().endswith(OTHER_PACKED):
        raise DataError(f"{own} is packed in a way that is not read here: unpack it, or save it as .zip.")
    kind = KINDS.get(ending(own))
    if kind == TABLE:
        raise DataError(f"{own} is not read by itself: bring it in one .zip with the pictures that it is about.")
    return f"{PASSED}: neither a picture nor a caption" if kind == OTHER and ending(own) not in ZIPS else None


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
            became = Unpacked(config, whole)
        except DataError as error:
            raise DataError(_said_of(error, whole, name).replace(": check --train_data_dir", "")) from error
        finally:
            whole.rename(path)
    became.sentences = [_said_of(sentence, whole, name) for sentence in became.sentences]
    if not became.added and not became.there:
        why = became.sentences[0] if became.sentences else "."
        raise DataError(f"{name} holds no picture that can be used{': ' * bool(became.sentences)}{why}")
    return became.told()


class Unpacked:
    """What became of an archive's pictures. Raises DataError for what is no archive.

    A picture that is here already gets the archive's caption where it has none; where it has another one, that stays.
    """

    def __init__(self, config: TrainConfig, archive: Path):
        self.added = self.there = self.filled = self.kept = 0
        listing = list_directory(str(archive), config.replace(train_data_dir=str(archive)))
        self.sentences = [fault.sentence for fault in listing.faults]
        self.notes = [note for note in listing.notes if isinstance(note, Note) and note.kind in SAID]
        self._config, here = config, open_dataset(config, uncaptioned=True)
        self._written = dict(zip(here.names, here.written, strict=True))
        for row in range(len(listing)):
            picture, caption = listing.names[row].as_py(), listing.captions[row].as_py()
            try:
                self._take(Path(picture).name, listing.read(row), " ".join((caption or "").split()))
            except DataError as error:
                self.sentences.append(str(error))

    def _take(self, name: str, data: bytes, caption: str) -> None:
        here = _place_of(self._config, shortened(name), data)
        if here is None:
            added = add_picture(self._config, name, data, caption)
            self._written[added] = caption
            self.added += 1
            return
        self.there += 1
        written = self._written.get(here)
        if caption and not written:
            save_caption(self._config, here, caption)
            self._written[here] = caption
            self.filled += 1
        self.kept += bool(caption and written and caption != written)

    def told(self) -> str:
        """All of it in one sentence."""
        said = f"{self.added} picture{'s' * (self.added != 1)} added"
        if self.there:
            said += f", {self.there} there already"
        if self.filled:
            said += f", of which {self.filled} had no caption and got the one that came"
        if self.kept:
            several = "s that came are not taken: those" if self.kept > 1 else " that came is not taken: the one"
            said += f"; {self.kept} other caption{several} here stay{'s' * (self.kept == 1)}"
        if self.sentences:
            said += f"; {len(self.sentences)} refused, the first: {self.sentences[0]}"
        return "; ".join([said, *(note.rstrip(".") for note in self.notes)])


def _said_of(words: object, archive: Path, name: str) -> str:
    """What was said of the archive by the name under which it lies here, by its own."""
    return str(words).replace(str(archive), name).replace(archive.name, name)
