"""What comes into a folder through the data set browser, and what it changes of many pictures at once."""

import io
import zipfile
from pathlib import Path

import pytest
from test_editing import png
from test_widgets_dataset import album, browse, folder, names, said  # noqa: F401 - fixtures
from test_widgets_pictures import button, inside

from sdxl_nb import TrainConfig, open_dataset
from sdxl_nb.system.errors import DataError
from sdxl_nb.widgets.dataset.browser import DatasetBrowser
from sdxl_nb.widgets.dataset.bulk import BACK, FRONT, OUT, REMOVE, REPLACE, Bulk
from sdxl_nb.widgets.dataset.selection import LEFT_OUT, NO_CAPTION
from sdxl_nb.widgets.parts.uploads import DropZone
from sdxl_nb.widgets.parts.viewer import LargePicture

pytestmark = pytest.mark.slow


def upload(browser, *files, part=2**20):
    """Send files as the browser's page does, part by part; what was answered for each, and whether it went wrong."""
    (zone,) = inside(browser, DropZone)
    answers = []
    zone.send = answers.append
    for left, (name, data) in zip(range(len(files) - 1, -1, -1), files, strict=True):
        for at in range(0, max(1, len(data)), part):
            message = {"id": name, "name": name, "at": at, "last": at + part >= len(data), "left": left}
            zone._handle_custom_msg(message, [memoryview(data[at : at + part])])
    return {answer["id"]: (answer["said"], answer["wrong"]) for answer in answers if "said" in answer}


def test_of_several_files_each_is_added_or_refused_by_itself(album, folder):  # noqa: F811
    browser = browse(album)
    files = [("a.png", png()), ("sub/b.png", png("blue")), ("bad.png", b"nothing"), ("c.png", png("green"))]
    said = upload(browser, *files, ("a.png", png()), ("00.png", png("red")), ("c.txt", b"a green square"), part=40)
    assert all((folder / f"{name}.png").is_file() for name in "abc") and not (folder / "sub").exists()
    assert said["bad.png"][1] and "bad.png is not a picture that can be read" in said["bad.png"][0]
    assert said["a.png"] == ("a.png is there already", False) and said["c.txt"] == ("the caption of c.png", False)
    assert said["00.png"] == ("added as 00-2.png, since 00.png is another picture", False)
    browser.show = NO_CAPTION
    assert {"a.png", "b.png", "00-2.png"} <= set(names(browser)) and "c.png" not in names(browser)


def test_a_caption_follows_its_picture_under_another_name(album, folder):  # noqa: F811
    pictures = [("x/1.png", png("blue")), ("y/1.png", png("green")), ("z/1.png", png("blue"))]
    captions = [("x/1.txt", b"blue"), ("y/1.txt", b"green"), ("z/1.txt", b"blue again")]
    said = upload(browse(album), *pictures, *captions)
    assert said["y/1.png"] == ("added as 1-2.png, since 1.png is another picture", False)
    assert said["z/1.png"] == ("1.png is there already", False)
    assert [said[name][0] for name, _ in captions] == [
        f"the caption of {name}" for name in ("1.png", "1-2.png", "1.png")
    ]
    assert [(folder / name).read_text() for name in ("1.txt", "1-2.txt")] == ["blue again\n", "green\n"]
    another_day = upload(browse(album), ("y/1.png", png("green")), ("y/1.txt", b"grass"))
    there = ["1.png is there already, as 1-2.png", "the caption of 1-2.png"]
    assert [words for words, _ in another_day.values()] == there
    assert (folder / "1-2.txt").read_text() == "grass\n" and not (folder / "1-3.png").exists()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, color in (("x/1.png", "blue"), ("y/1.png", "green")):
            file.writestr(name, png(color))
    said = upload(browse(album), ("both.zip", packed.getvalue()))
    assert said["both.zip"] == ("0 pictures added, 2 there already", False)


def test_a_zip_is_taken_apart_and_a_broken_one_refused(tmp_path):
    browser = browse(TrainConfig.preset("tiny", train_data_dir=str(tmp_path / "new" / "folder")))
    assert "There is no picture yet in" in browser._count.value and browser.dataset.captions == []
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, data in (("in/x.png", png()), ("in/x.txt", b"a square"), ("in/y.png", png("blue"))):
            file.writestr(name, data)
    said = upload(browser, ("set.zip", packed.getvalue()), ("torn.zip", packed.getvalue()[:99]), part=100)
    assert said["set.zip"] == ("2 pictures added", False) and said["torn.zip"][1]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["x.png", "x.txt", "y.png"]
    assert names(browser) == ["x.png", "y.png"] and browser._count.value == "<b>1 of 2 captioned</b>"
    (tmp_path / "new" / "folder" / "y.png").unlink()
    said = upload(browser, ("set.zip", packed.getvalue()), ("twice.zip", packed.getvalue()))
    assert [words for words, _ in said.values()] == [
        "1 picture added, 1 there already",
        "0 pictures added, 2 there already",
    ]


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return packed.getvalue()


def test_captions_of_pictures_that_are_there_fill_what_is_empty_and_change_nothing(tmp_path):
    browser = browse(TrainConfig.preset("tiny", train_data_dir=str(tmp_path)))
    upload(browser, ("a.png", png("red")), ("b.png", png("green")), ("c.png", png("blue")), ("b.txt", b"grass"))
    again = {"x/a.png": png("red"), "x/a.txt": "a rose", "x/b.png": png("green"), "x/b.txt": "not grass"}
    said = upload(browser, ("set.zip", zipped(again | {"x/c.png": png("blue"), "x/thumbs/c.png": png("blue")})))[
        "set.zip"
    ]
    assert said == (
        "0 pictures added, 3 there already, of which 1 had no caption and got the one that came; 1 other "
        "caption that came is not taken: the one here stays; 1 picture in the archive not trained on: "
        "thumbnails 1 (thumbs/c.png). A caption of its own makes a picture one of the set",
        False,
    )
    assert {path.name: path.read_text() for path in tmp_path.glob("*.txt")} == {"a.txt": "a rose\n", "b.txt": "grass\n"}
    assert upload(browser, ("set.zip", zipped(again)))["set.zip"][0].startswith(
        "0 pictures added, 2 there already; 1 other"
    )


def test_what_programs_and_systems_keep_is_passed_over_and_no_error(tmp_path):
    browser = browse(TrainConfig.preset("tiny", train_data_dir=str(tmp_path)))
    kept = ("in/Thumbs.db", "desktop.ini", "__MACOSX/._a.png", ".DS_Store", "@eaDir/a.jpg", "a.xmp", "README.md")
    (zone,) = inside(browser, DropZone)
    answers = []
    for name in kept:
        zone.send = answers.append
        zone._handle_custom_msg({"id": name, "name": name, "at": 0, "last": True, "left": 1}, [b"x"])
    assert [(answer["id"], answer["passed"], answer["wrong"]) for answer in answers] == [
        (name, True, False) for name in kept
    ]
    wrong = upload(browser, ("a.tar.gz", b"x"), ("b.7z", b"x"), ("metadata.jsonl", b"{}"), ("c.psd", b"x"))
    assert all(is_wrong for _, is_wrong in wrong.values())
    assert "unpack it, or save it as .zip" in wrong["a.tar.gz"][0] and wrong["b.7z"][0].startswith("b.7z is packed in")
    assert "bring it in one .zip with the pictures" in wrong["metadata.jsonl"][0]
    assert list(tmp_path.iterdir()) == []
    inner = {"Thumbs.db": b"x", "__MACOSX/._a.png": b"x", "desktop.ini": b"x"}
    assert upload(browser, ("set.zip", zipped(inner | {"a.png": png()})))["set.zip"] == ("1 picture added", False)


def test_a_part_that_is_lost_or_cancelled_leaves_nothing_and_the_next_file_comes(tmp_path):
    browser = browse(TrainConfig.preset("tiny", train_data_dir=str(tmp_path)))
    (zone,) = inside(browser, DropZone)
    heard = []
    zone.send = heard.append
    zone._handle_custom_msg({"id": "a", "name": "a.png", "at": 0, "last": False}, [png()[:9]])
    zone._handle_custom_msg({"id": "a", "cancel": True}, [])
    zone._handle_custom_msg({"id": "b", "name": "b.png", "at": 5, "last": True, "left": 1}, [png()])
    zone._handle_custom_msg({"id": "c", "name": "c.png", "at": 0, "last": True, "left": 0}, [png()])
    assert [answer.get("said", "more")[:24] for answer in heard] == [
        "more",
        "cancelled",
        "a part of it got lost on",
        "added",
    ]
    assert not any(Path(zone._folder.name).iterdir()) and names(browser) == ["c.png"]


def test_several_captions_are_changed_at_once_and_pictures_left_out_and_brought_back(album, folder):  # noqa: F811
    browser = browse(album, per_page=30)
    (bulk,) = inside(browser, Bulk)
    for card in browser._cards.children[:2]:
        card.chosen = True
    before = [(folder / f"0{n}.txt").read_text().strip() for n in range(3)]

    def apply(what, text="", by=""):
        bulk.what.value, bulk.text.value, bulk.by.value = what, text, by
        return bulk.apply()

    assert apply(FRONT, "style of x") == 2
    assert [(folder / f"0{n}.txt").read_text().strip() for n in range(3)] == [
        f"style of x, {before[0]}",
        f"style of x, {before[1]}",
        before[2],
    ]
    assert apply(REPLACE, "style of x", "by me") == 2 and apply(REMOVE, "by me") == 2  # of all that are shown
    assert [(folder / f"0{n}.txt").read_text().strip() for n in range(3)] == before
    browser.search = "01.jpg"
    assert apply(OUT) == 1 and (folder / "01.jpg").is_file()
    assert "01.jpg" not in list(open_dataset(album).names)
    browser.search, browser.show = "", LEFT_OUT
    assert names(browser) == ["01.jpg"] and "was left out by hand" in said(browser._cards.children[0])
    assert apply(BACK) == 1 and "01.jpg" in list(open_dataset(album).names)
    assert not (folder / ".left-out.txt").exists()
    with pytest.raises(DataError, match="There is no text yet"):
        apply(FRONT)


def test_a_picture_is_looked_at_large_and_arrow_keys_go_on(album):  # noqa: F811
    browser = browse(album, per_page=2)
    browser._cards.children[0].clicks += 1
    (large,) = inside(browser, LargePicture)
    for move, name in (
        ((1, 0), "01.jpg"),
        ((0, 1), "02.jpg"),
        ((-1, 0), "01.jpg"),
        ((0, -1), "00.jpg"),
        ((-1, 0), "00.jpg"),
    ):
        large._handle_custom_msg({"move": move}, [])
        assert large.alt.startswith(f"{name}: ") and browser._looked_at == name
    large.clicks += 1
    assert inside(browser, LargePicture) == []


def test_a_captioner_writes_what_lacks_and_nothing_else(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(png())
    (tmp_path / "b.txt").write_text("mine")
    seen = []

    def words(picture):
        seen.append(picture.size)
        if len(seen) == 3:
            raise RuntimeError("the model is tired")
        return f"picture {len(seen)}"

    browser = DatasetBrowser(TrainConfig.preset("tiny", train_data_dir=str(tmp_path)), captioner=words)
    button(browser, "For every picture shown that lacks one; read them afterwards, a model errs").click()
    browser._auditing.wait(600)
    assert [(tmp_path / f"{name}.txt").read_text().strip() for name in "abc"] == ["picture 1", "mine", "picture 2"]
    assert "2 captions written" in browser._notice.value and browser._count.value == "<b>3 of 3 captioned</b>"
    (tmp_path / "d.png").write_bytes(png())
    browser.reopen()
    button(browser, "For every picture shown that lacks one; read them afterwards, a model errs").click()
    browser._auditing.wait(600)
    assert "RuntimeError: the model is tired" in browser._notice.value and browser._progress.value == ""
    with pytest.raises(DataError, match="There is no captioner"):
        DatasetBrowser(browser.config).caption()
