"""What is known of files: nothing is read twice, faults are kept, a broken memory starts anew."""

import multiprocessing
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image
from small_runs import SIZES, home, small

from sdxl_nb.data import file_facts as memos
from sdxl_nb.data.dataset import CaptionedPictures, open_dataset
from sdxl_nb.data.decoding import Decoded
from sdxl_nb.data.file_facts import Facts, Known, Memo, examine
from sdxl_nb.data.sources.listing import Files, text_column
from sdxl_nb.system.errors import DataError
from sdxl_nb.system.keys import key_of


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(home()[0] / "pictures", tmp_path / "pictures")


@pytest.fixture
def looked(monkeypatch):
    """The pictures that were read."""
    seen, read = [], CaptionedPictures.picture_bytes
    monkeypatch.setattr(
        CaptionedPictures, "picture_bytes", lambda self, index: (seen.append(self.names[index]), read(self, index))[1]
    )
    return seen


def examined(tmp_path, folder, processes=None):
    pictures = open_dataset(small(tmp_path, train_data_dir=str(folder)))
    memo = Memo(tmp_path / "cache")
    faults = examine(pictures, memo, None, processes)
    memo.close()
    return pictures.without(faults.names), faults


def test_a_second_look_reads_nothing(tmp_path, folder, looked):
    first, _ = examined(tmp_path, folder)
    assert sorted(looked) == [f"{n}.png" for n in range(7)]
    looked.clear()
    again, _ = examined(tmp_path, folder)
    assert again.sizes().tolist() == [[height, width] for width, height in SIZES] == first.sizes().tolist()
    assert [again.identity(i) for i in range(7)] == [first.identity(i) for i in range(7)] and looked == []
    again.listing.known = None
    assert again.identity(3) == first.identity(3) and looked == ["3.png"]


def test_a_changed_picture_alone_is_read_again(tmp_path, folder, looked):
    before, _ = examined(tmp_path, folder)
    looked.clear()
    Image.new("RGB", (50, 40)).save(folder / "4.png")
    after, _ = examined(tmp_path, folder)
    assert looked == ["4.png"] and after.sizes()[4].tolist() == [40, 50]
    assert [before.identity(i) == after.identity(i) for i in range(7)] == [n != 4 for n in range(7)]


def test_faults_are_kept_until_pillow_changes(tmp_path, folder, looked, monkeypatch):
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:200])
    kept, faults = examined(tmp_path, folder)
    assert faults.names == ["2.png"] and "cut short" in faults[0].sentence
    assert kept.names == [f"{n}.png" for n in range(7) if n != 2] and len(kept.sizes()) == 6
    looked.clear()
    assert examined(tmp_path, folder)[1] == faults and looked == []
    monkeypatch.setattr(PIL, "__version__", "99")
    assert examined(tmp_path, folder)[1] == faults and looked == ["2.png"]


def test_pictures_are_looked_at_again_when_they_are_read_otherwise(tmp_path, folder, looked, monkeypatch):
    """One that a former version took, HDR say, may be refused now; else it would be found out while it is encoded."""
    hdr = Path(__file__).parent / "pictures" / "avifenc-pq.avif"
    monkeypatch.setattr(memos, "READING", 1)
    monkeypatch.setattr(memos, "decoded", lambda data, name: Decoded(Image.new("RGB", (64, 48)), (48, 64)))
    shutil.copy(hdr, folder / "hdr.avif")
    (folder / "hdr.txt").write_text("a tower")
    assert not examined(tmp_path, folder)[1]
    monkeypatch.undo()
    faults = examined(tmp_path, folder)[1]
    assert faults.names == ["hdr.avif"] and "is an HDR picture (PQ)" in faults[0].sentence


def test_a_picture_that_cannot_be_opened_is_tried_again(tmp_path, folder, monkeypatch):
    read = CaptionedPictures.picture_bytes

    def locked(self, index):
        if self.names[index] == "1.png":
            raise memos.PictureError("1.png cannot be opened (permission denied): check the file.")
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(CaptionedPictures, "picture_bytes", locked)
        assert examined(tmp_path, folder)[1].names == ["1.png"]
    assert examined(tmp_path, folder)[1].names == []


def test_none_that_can_be_used_is_an_error(tmp_path, folder):
    for path in folder.glob("*.png"):
        path.write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(DataError, match=r"None of the 7 pictures of .* can be used; the first: 0.png is not a"):
            examined(tmp_path, folder)


@pytest.mark.parametrize("harm", ["text", "torn"])
def test_a_broken_memory_starts_anew(tmp_path, folder, looked, harm):
    examined(tmp_path, folder)
    file = tmp_path / "cache" / "files.sqlite"
    content = file.read_bytes()
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    file.write_bytes(b"no data base, but long enough to be one" * 200 if harm == "text" else content[:3000])
    looked.clear()
    examined(tmp_path, folder)
    assert len(looked) == 7
    looked.clear()
    examined(tmp_path, folder)
    assert looked == []


def test_where_nothing_can_be_written_all_is_looked_at_each_time(tmp_path, folder, looked):
    (tmp_path / "cache").touch()  # a file where the folder should be
    for count in (7, 14):
        examined(tmp_path, folder)
        assert len(looked) == count


def test_pictures_without_a_stamp_are_looked_at_each_time(tmp_path, folder, looked, monkeypatch):
    monkeypatch.setattr(CaptionedPictures, "stamps", lambda self, indices: [None] * len(indices))
    examined(tmp_path, folder)
    examined(tmp_path, folder)
    assert len(looked) == 14


def test_file_digests(tmp_path, monkeypatch):
    file, memo, read = tmp_path / "weights", Memo(tmp_path), []
    file.write_bytes(b"a" * 5_000_000)
    digest = memos._sha256
    monkeypatch.setattr(memos, "_sha256", lambda path: (read.append(path), digest(path))[1])
    first = memo.file_digest(file)
    assert first == memo.file_digest(file) == Memo(tmp_path).file_digest(file) and len(read) == 1
    assert first.hex() == os.popen(f"sha256sum {file}").read().split()[0]
    file.write_bytes(b"b" * 5_000_000)
    assert memo.file_digest(file) != first and len(read) == 2


def put_many(folder, first, begin):
    memo = Memo(folder)
    begin.wait()
    for number in range(first, first + 200):
        memo.put(key_of(number), Known(number.to_bytes(32, "big"), number, 2 * number))
        if number % 10 == 0:
            memo.save()
    memo.save()


def test_processes_remember_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(2)
    both = [context.Process(target=put_many, args=(tmp_path, first, begin)) for first in (0, 100)]
    for process in both:
        process.start()
    for process in both:
        process.join(600)
    found = Memo(tmp_path).find(map(key_of, range(1200)))  # more than SQLite takes at once
    assert [process.exitcode for process in both] == [0, 0] and len(found) == 300
    assert found[key_of(299)] == Known((299).to_bytes(32, "big"), 299, 598)


def test_who_makes_the_memory_waits_for_another_that_makes_it_too(tmp_path, monkeypatch):
    connect, tried = Memo._connect, []

    def locked_at_first(memo):
        tried.append(memo)
        if len(tried) == 1:  # as SQLite says it to one of two at once
            raise sqlite3.OperationalError("database is locked")
        return connect(memo)

    monkeypatch.setattr(Memo, "_connect", locked_at_first)
    memo = Memo(tmp_path)
    memo.put(key_of(1), Known(bytes(32)))
    memo.save()
    assert len(tried) == 2 and memo.find([key_of(1)]) == {key_of(1): Known(bytes(32))}


def edited_in_place(path, data):
    """Other bytes, as many, at the old time of change."""
    about = path.stat()
    assert len(data) == about.st_size and data != path.read_bytes()
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_mtime_ns == about.st_mtime_ns


def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path, folder):
    for name in ("3.png", "4.png"):
        Image.new("L", (40, 40), int(name[0])).save(folder / name, "BMP")
    before, _ = examined(tmp_path, folder)
    edited_in_place(folder / "3.png", (folder / "4.png").read_bytes())
    after, _ = examined(tmp_path, folder)
    assert before.identity(3) != after.identity(3) == after.identity(4)
    memo, file = Memo(tmp_path), tmp_path / "weights"
    file.write_bytes(b"a" * 100)
    digests = [memo.file_digest(file)]
    for letter in (b"b", b"c"):
        edited_in_place(file, letter * 100)
        digests.append(memo.file_digest(file))
    assert len(set(digests)) == 3
    about = file.stat()
    (tmp_path / "other").write_bytes(b"d" * 100)
    os.utime(tmp_path / "other", ns=(about.st_atime_ns, about.st_mtime_ns))
    os.replace(tmp_path / "other", file)
    assert memo.file_digest(file) not in digests


def test_facts_follow_their_pictures(tmp_path, folder):
    pictures, _ = examined(tmp_path, folder)
    part = pictures.select([5, 1])
    whole = part.compact()
    assert whole.known.sizes.tolist() == part.sizes().tolist() == [[48, 64], [32, 48]]
    both = whole.known.followed_by(Facts.none(1))
    assert both.sizes.tolist() == [[48, 64], [32, 48], [0, 0]] and both.digests.shape == (3, 32)


def test_stamps_of_many_files_are_those_of_each(folder, tmp_path):
    (folder / "below").mkdir()
    os.symlink(folder / "1.png", folder / "below" / "link.png")
    shutil.copy(folder / "2.png", folder / "below" / "3.png")
    os.symlink(folder / "below", folder / "other")
    files = Files(str(folder), text_column(["1.png", "below/link.png", "below/3.png", "other/3.png", "none.png"]))
    stamps = files.stamps(np.arange(5))
    assert stamps == [files.stamp(row) for row in range(5)]
    assert stamps[0].split()[1:] == stamps[1].split()[1:] and stamps[2] == stamps[3] and stamps[4] is None
    assert files.stamps(np.array([2])) == stamps[2:3]


def test_a_large_set_is_known_as_a_whole_until_a_picture_changes(tmp_path, folder, looked, monkeypatch):
    monkeypatch.setattr(memos, "LARGE", 7)
    first, _ = examined(tmp_path, folder)
    (kept,) = (tmp_path / "cache" / "sets").iterdir()
    looked.clear()
    for end in ("", "-wal", "-shm"):
        (tmp_path / "cache" / f"files.sqlite{end}").unlink(missing_ok=True)  # so that nothing else knows them
    again, faults = examined(tmp_path, folder)
    assert looked == [] and not faults
    assert list(again.identities()) == list(first.identities()) == [first.identity(index) for index in range(7)]
    assert np.array_equal(again.sizes(), first.sizes())
    Image.new("RGB", (50, 40)).save(folder / "4.png")
    after, _ = examined(tmp_path, folder)
    assert after.sizes()[4].tolist() == [40, 50] and after.identity(4) != first.identity(4)
    looked.clear()
    for harmed in (kept.read_bytes()[:-1], kept.read_bytes()[:-1] + b"?"):
        kept.write_bytes(harmed)
        assert Memo(tmp_path / "cache").whole(kept.stem) is None


def test_a_large_set_with_a_fault_is_not_kept_as_a_whole(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(memos, "LARGE", 7)
    (folder / "4.png").write_bytes(b"no picture")
    for _ in range(2):
        assert examined(tmp_path, folder)[1].names == ["4.png"]
    assert not (tmp_path / "cache" / "sets").exists()


def test_of_large_sets_those_used_last_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(memos, "WHOLES", 2)
    memo, facts = Memo(tmp_path), Facts.none(3)
    for number, name in enumerate("ab"):
        memo.keep_whole(name, facts)
        os.utime(tmp_path / "sets" / f"{name}.safetensors", (number, number))
    assert memo.whole("a") is not None  # and so it is the one used last
    memo.keep_whole("c", facts)
    assert sorted(path.stem for path in (tmp_path / "sets").iterdir()) == ["a", "c"]
