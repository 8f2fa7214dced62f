"""Pictures in zip and tar archives, as zip, tar, webdataset and img2dataset write them: read where they lie."""

import io
import multiprocessing
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_dataset import COLOURS, png

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.decoding import PictureError
from sdxl_nb.data.sources import listing
from sdxl_nb.data.sources.archives import packed_captions
from sdxl_nb.system.errors import DataError

MADE = Path(__file__).parents[1] / "archives"
CARDS = {f"{colour}.png": f"a {colour} card" for colour in sorted(COLOURS)}
RGB = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "white": (255, 255, 255)}


def opened(place, **settings):
    return open_dataset(TrainConfig(train_data_dir=str(place), **settings))


def said(pictures):
    """Captions by name, after every picture was seen to be of the colour that its caption says."""
    found = dict(zip(pictures.names, pictures.captions, strict=True))
    for sample in pictures:
        assert sample.picture.getpixel((0, 0)) == RGB[sample.caption.split()[1]]
    return found


def packed(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["around.zip", "stored.zip", "around.tar", "old.tar"])
def test_a_packed_folder(name):
    pictures = opened(MADE / name)
    assert said(pictures) == CARDS and not pictures.faults and not pictures.notes


@pytest.mark.parametrize("name", ["gnu.tar", "pax.tar", "names.zip"])
def test_long_names_other_alphabets_and_links(name):
    pictures = opened(MADE / name)
    more = {"same.png": "a red card again"} | ({"ünï 龍.png": "a white card"} if name == "names.zip" else {})
    assert said(pictures) == CARDS | more
    (fault,) = pictures.faults
    assert fault.sentence.endswith("/link.png is a link, which is not followed in an archive: pack the file itself.")


def test_metadata_inside_with_several_captions():
    pictures = opened(MADE / "metadata.zip")
    assert said(pictures) == CARDS and [pictures.alternatives(i) for i in (0, 3)] == [
        ["a red card", "red"],
        ["a yellow card", "yellow"],
    ]


def test_webdataset_of_two_tars():
    pictures = opened(MADE / "webdataset")
    names = ["00000.tar/000000.png", "00000.tar/000001.png", "00001.tar/000002.png", "00001.tar/000003.png"]
    assert said(pictures) == dict(zip(names, [f"a {colour} card" for colour in COLOURS], strict=True))
    assert [pictures.alternatives(index)[1:] for index in range(4)] == [[], ["lime"], [], ["yellow"]]
    assert pictures.notes[0] == (
        "4 pictures are parts of another with the same key, as 00000.tar/000000.mask.png, and are not trained on."
    )


@pytest.mark.parametrize("kind", ["files", "webdataset", "parquet"])
def test_what_img2dataset_downloads(kind, tmp_path):
    """Its third picture could not be downloaded."""
    pictures = opened(MADE / "img2dataset" / kind, cache_dir=str(tmp_path))
    faults = pictures.check()
    assert list(said(pictures.without(faults.names)).values()) == ["a red card", "a lime card", "a yellow card"]
    if kind == "parquet":
        assert [fault.sentence for fault in faults] == ["row 2 has no picture in column 'png': remove the row."]
    else:
        *others, addresses = pictures.notes
        assert addresses == "00000.parquet is not read (it holds addresses, not pictures)." and not faults
        assert [note.split(" (")[0] for note in others] == ["4 other files not read"] * (kind == "files")


def test_archives_in_a_folder_are_those_for_training(tmp_path):
    for name in ("train-0.zip", "test-0.zip"):
        shutil.copy(MADE / "stored.zip", tmp_path / name)
    (tmp_path / "README.md").write_text("# cards")
    assert said(opened(tmp_path)) == CARDS
    (tmp_path / "train-0.zip").unlink()
    with pytest.raises(DataError, match=r"has no split 'train' \(it has: test-0.zip\): add its zip files\.$"):
        opened(tmp_path)


def test_splits_and_kohyas_folders_inside(tmp_path):
    split = packed(
        tmp_path / "a.zip",
        **{"set/train/red.png": png("red"), "set/train/red.txt": "a red card", "set/test/x.png": png("blue")},
    )
    pictures = opened(split)
    assert said(pictures) == {"red.png": "a red card"}
    assert pictures.notes == ["Of a.zip the folder train is used, test is not."]
    kohya = packed(tmp_path / "b.zip", **{"set/3_red card/a.png": png("red"), "set/1_blue card/b.png": png("blue")})
    assert sorted(zip(opened(kohya).names, opened(kohya).repeats.tolist(), strict=True)) == [
        ("1_blue card/b.png", 1),
        ("3_red card/a.png", 3),
    ]


REFUSED = {
    "around.tar.gz": "PLACE is compressed as a whole (gzip), so that no picture in it can be read alone: decompress it "
    "to a plain .tar, or unpack it.",
    "encrypted.zip": "PLACE holds no pictures; the first of what cannot be used: FIRST is encrypted: unpack it with "
    "its password.",
    "bzip2.zip": "PLACE holds no pictures; the first of what cannot be used: large.bmp is packed by bzip2, which is "
    "not read: pack it again with plain zip.",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_packed_in_a_way_that_is_not_read(name, tmp_path):
    with pytest.raises(DataError) as caught:
        opened(MADE / name)
    first = (
        next((each for each in zipfile.ZipFile(MADE / name).namelist() if "png" in each), "") if "zip" in name else ""
    )
    assert str(caught.value) == REFUSED[name].replace("PLACE", str(MADE / name)).replace("FIRST", first)


def test_archives_inside_archives_are_named():
    pictures = opened(MADE / "nested.zip")
    assert said(pictures) == {"red.png": "a red card"}
    assert [fault.sentence for fault in pictures.faults] == [
        f"{name} is an archive inside nested.zip, which is not read: unpack it."
        for name in ("around.tar", "stored.zip")
    ]


def test_no_name_leads_out(tmp_path):
    names = ["../up.png", "/root.png", "a/../../up.png", "C:/drive.png", ".hidden.png", "__MACOSX/._red.png"]
    path = packed(
        tmp_path / "a.zip", **dict.fromkeys(names, png("red")), **{"red.png": png("red"), "red.txt": "a red card"}
    )
    pictures = opened(path)
    assert said(pictures) == {"red.png": "a red card"}
    assert [fault.sentence for fault in pictures.faults] == [
        f"{name} leads out of a.zip: pack it under a name without '..' and without a root." for name in names[:4]
    ]


def test_spellings_of_captions(tmp_path):
    members = {"A.JPG": png("red"), "A.TXT": "a red card", "b.png": png("blue"), "b.png.txt": "a blue card"}
    members |= {"lime.v2.png": png("lime"), "lime.txt": "of another", "c\\yellow.png": png("yellow")}
    members |= {"c/yellow.json": '{"caption": ["a yellow card", " "], "url": 3}'}
    pictures = opened(packed(tmp_path / "a.zip", **members))
    assert said(pictures) == {"A.JPG": "a red card", "b.png": "a blue card", "c/yellow.png": "a yellow card"}
    assert pictures.faults.names == ["lime.v2.png"] and pictures.further is None


def test_bad_captions_leave_their_picture_out(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_captions, "MAX_CAPTION", 20)
    members = {f"{name}.png": png("red") for name in "abcde"}
    members |= {"a.txt": b"\xff", "b.txt": "x" * 21, "c.json": "{", "d.json": '{"text": [1]}', "e.txt": "a red card"}
    pictures = opened(packed(tmp_path / "a.zip", **members))
    assert said(pictures) == {"e.png": "a red card"}
    assert [fault.sentence for fault in pictures.faults] == [
        "a.png: its caption file a.txt is not UTF-8 text: save it as UTF-8.",
        "b.png: its caption file b.txt is larger than 20 bytes: shorten it.",
        "c.png: its caption file c.json is not JSON: correct it.",
        "d.png: its caption file d.json has a caption that is no text: correct it.",
    ]


METADATA = {
    '{"file_name": "x.png", "text": "a"}': "metadata.jsonl names 'x.png', but there is no such picture in the archive: "
    "correct the name.",
    '{"file_name": "a.png", "text": "a"}\n'
    * 2: "metadata.jsonl names 'a.png' more than once: keep one line per picture.",
    '{"name": "a.png", "text": "a"}': "metadata.jsonl has no column 'file_name' (its columns: name, text): add it.",
    '{"file_name": "../a.png", "text": "a"}': "metadata.jsonl names '../a.png', but there is no such picture in the "
    "archive: correct the name.",
    "": "metadata.jsonl is empty: it needs one line per picture with file_name and text.",
}


@pytest.mark.parametrize("lines", METADATA)
def test_wrong_metadata_inside(lines, tmp_path):
    path = packed(tmp_path / "a.zip", **{"a.png": png("red"), "metadata.jsonl": lines})
    with pytest.raises(DataError) as caught:
        opened(path)
    assert str(caught.value) == METADATA[lines]


def test_damaged_archives(tmp_path):
    cut, whole = tmp_path / "cut.zip", (MADE / "stored.zip").read_bytes()
    cut.write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"is damaged or cut short \(its directory cannot be read\): copy or"):
        opened(cut)
    at = whole.index(png("red"))
    cut.write_bytes(whole[:at] + b"?" + whole[at + 1 :])
    assert [fault.sentence for fault in opened(cut).check()] == [
        "red.png is damaged in cut.zip: pack it, or download the archive, again."
    ]
    tar = tmp_path / "cut.tar"
    whole = (MADE / "old.tar").read_bytes()
    tar.write_bytes(whole[: whole.index(png("red")) + 20])
    assert "red.png is cut off at the archive's end: copy or download that again." in [
        fault.sentence for fault in opened(tar, trigger_word="zwx").faults
    ]
    tar.write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match=r"is damaged or no tar archive \(at its start\): copy or download it again\.$"):
        opened(tar)


def test_a_bomb_takes_no_memory(tmp_path, monkeypatch):
    """What a file says of its size is a limit, and what is too large is not unpacked at all."""
    monkeypatch.setattr(listing, "MAX_BYTES", 1 << 20)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large.png", bytes(1 << 21))
        archive.writestr("lies.png", bytes(1 << 19))
        archive.writestr("good.png", png("red"))
    data = path.read_bytes()
    place = data.rindex(b"lies.png") - 46  # the central directory says 100 bytes where there are half a million
    path.write_bytes(data[: place + 24] + struct.pack("<L", 100) + data[place + 28 :])
    assert [fault.sentence.split(":")[0] for fault in opened(path, trigger_word="red").check()] == [
        "large.png is larger than 0 GiB",
        "lies.png is damaged in a.zip",
    ]
    head, rest = data[: data.index(b"PK\1\2")], data[data.index(b"PK\1\2") :]
    path.write_bytes(head + rest[:20] + struct.pack("<L", 1 << 30) + rest[24:])
    with pytest.raises(DataError, match="says that its files take more than the archive has"):
        opened(path)


def test_the_last_of_several_of_one_name(tmp_path):
    path = tmp_path / "a.tar"
    for colour in ("red", "lime"):  # as tar --append does
        with tarfile.open(path, "a") as archive:
            for name, data in {"a.png": png(colour), "a.txt": f"a {colour} card".encode()}.items():
                about = tarfile.TarInfo(name)
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
    pictures = opened(path)
    assert said(pictures) == {"a.png": "a lime card"}
    assert pictures.notes == ["2 names occur more than once in an archive; the last of each is used."]


def test_a_zip_behind_something_and_a_large_one(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\n" + (MADE / "stored.zip").read_bytes())
    assert said(opened(path)) == CARDS
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("red.png", png("red")), ("red.txt", b"a red card")):
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    assert said(opened(path)) == {"red.png": "a red card"}


def digests(pictures):
    return [pictures.identity(index) for index in range(len(pictures))]


def test_threads_and_processes_read_at_once(tmp_path):
    """Nothing is shared: an archive is opened for each picture."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(60):
            archive.writestr(f"{number:02d}.png", png((number, 2 * number, 3 * number)))
    pictures = opened(path, trigger_word="zwx")
    alone = digests(pictures)
    assert len(set(alone)) == 60
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(pictures.identity, range(60))) == alone
    with multiprocessing.get_context("fork").Pool(2) as pool:
        halves = pool.map_async(digests, [pictures.select(range(30)), pictures.select(range(30, 60))])
        assert halves.get(timeout=1200) == [alone[:30], alone[30:]]
    assert digests(pickle.loads(pickle.dumps(pictures))) == alone


def test_a_stamp_changes_with_the_archive_and_tells_its_files_apart(tmp_path):
    path = shutil.copy(MADE / "stored.zip", tmp_path)
    pictures = opened(path)
    stamps = [pictures.stamp(index) for index in range(4)]
    assert len(set(stamps)) == 4
    os.utime(path, (1, 1))
    assert not set(stamps) & {pictures.stamp(index) for index in range(4)}
    os.unlink(path)
    with pytest.raises(PictureError, match=r"^blue.png cannot be opened \(No such file or directory\)"):
        pictures.picture_bytes(0)
