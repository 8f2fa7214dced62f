"""What a person sees who does something wrong, or to whom it happens: one sentence each, and nothing half done."""

import io
import itertools
import json
import shutil
import threading
import zipfile

import pytest
from matplotlib.text import Text
from small_runs import small, train
from test_editing import png
from test_widgets_adding import upload
from test_widgets_pictures import inside
from test_widgets_project import bring

from sdxl_nb import LoraPlayground, Project, Run, RunMonitor, Runs, ValidationGrid
from sdxl_nb.runs.events import update
from sdxl_nb.runs.glance import UNREADABLE
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.widgets.dataset.bulk import FRONT, Bulk
from sdxl_nb.widgets.form.start import found
from sdxl_nb.widgets.parts.watching import Notice

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("sdxl_nb.widgets.page.steps.gpu_memory", lambda: None)
    return tmp_path / "mine"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    drawn = {"validation_prompt": ["a card"], "num_validation_images": 1, "validation_epochs": None}
    return train(small(tmp_path_factory.mktemp("done") / "run", **drawn, validation_inference_steps=1))


def zipped(**entries):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return packed.getvalue()


DROPPED = {  # what is dropped -> what is said of it
    "x.pdf": (b"%PDF-1.4", "x.pdf is not a picture that can be read: save it as JPEG, PNG or WebP."),
    "x.png": (b"%PDF-1.4", "x.png is not a picture that can be read: save it as JPEG, PNG or WebP."),
    "e.png": (b"", "e.png is empty (0 bytes): replace or remove it."),
    "e.mp4": (b"\0\0\0\x18ftypmp42", "e.mp4 is not a picture that can be read: save it as JPEG, PNG or WebP."),
    "e.zip": (zipped(), "e.zip holds no pictures."),
    "t.zip": (zipped(**{"a.txt": b"x"}), "t.zip holds no pictures."),
    "s.zip": (
        zipped(**{"../../a.png": png()}),
        "s.zip holds no pictures; the first of what cannot be used: ../../a.png leads out of s.zip: ",
    ),
    "z.txt": (b"a cat", "z.txt: there is no picture called z yet: add it first."),
    "a\0b.png": (png(), "'a\\x00b.png' holds a character that names of files cannot have: rename it."),
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_no_picture_is_said_and_nothing_is_left(place, name):
    data, said = DROPPED[name]
    ((words, wrong),) = upload(Project(place), (name, data)).values()
    assert wrong and words.startswith(said) and "upload" not in words
    assert not (place / "pictures").exists() or not list((place / "pictures").iterdir())


def test_a_name_as_long_as_names_can_be_is_taken_and_a_longer_one_cut(place):
    project = Project(place)
    files = ("é" * 125 + ".png", png()), ("y" * 300 + ".png", png("blue"))
    (fits, cut), again = upload(project, *files).values(), upload(project, *files).values()
    assert all(
        words.startswith("added as ") and words.endswith(", since its name is too long") for words, _ in (fits, cut)
    )
    assert all(words.endswith(" is there already") and not wrong for words, wrong in again)
    names = sorted(path.name for path in (place / "pictures").iterdir())
    assert [len(name.encode()) for name in names] == [240, 240] and names[1].startswith("éé")
    project.browser.save(names[1], "a card")  # the caption's own name is no longer than a name can be
    assert (place / "pictures" / names[1].replace(".png", ".txt")).read_text() == "a card\n"


@pytest.mark.parametrize("name", ["", None, "s3://bucket/x"])
def test_a_project_needs_a_folder_of_this_machine(name):
    with pytest.raises(SdxlNbError, match="names no folder of this machine: name one for the project"):
        Project(name)


@pytest.mark.parametrize("text", ["{", "[]", '{"rank": "many"}'])
def test_settings_that_are_broken_say_where_they_lie(place, text):
    place.mkdir()
    (place / "settings.json").write_text(text)
    with pytest.raises(SdxlNbError, match=r"settings.json is no use \(.*\): mend it, or delete it to begin anew"):
        Project(place)


def test_what_another_program_has_noted_in_the_project_is_no_run(place):
    place.mkdir()
    (place / "project.json").write_text(json.dumps({"run": 5, "star": "x"}))
    project = Project(place)
    assert project.run is None and project.folder.star is None


def test_a_place_that_cannot_be_written_to(place):
    project = Project(place)
    place.write_text("")  # now nobody, root included, can make a folder there
    ((words, wrong),) = upload(project, ("a.png", png())).values()
    assert wrong and words.startswith(f"{place}/pictures cannot be made (")
    with pytest.raises(SdxlNbError, match=r"mine cannot be written to \(.*\): make room, or name another"):
        project.folder.star = 3
    for below in (place, place / "below"):
        with pytest.raises(SdxlNbError, match=r"mine is a file: name a folder for the project"):
            Project(below)


def test_a_caption_that_another_program_has_changed_is_not_written_over_unseen(place, tmp_path):
    project = Project(place)
    bring(project, tmp_path, many=1)
    text = place / "pictures" / "0.txt"
    text.write_text("by another program")
    with pytest.raises(SdxlNbError, match="changed by another program meanwhile, to “by another program”"):
        project.browser.save("0.png", "mine")
    assert text.read_text() == "by another program"
    project.browser.save("0.png", "mine")  # who has read it may
    assert text.read_text() == "mine\n"
    project.browser.save("0.png", "mine again")
    assert text.read_text() == "mine again\n"


def test_what_is_changed_of_many_captions_starts_from_what_other_programs_made_of_them(place, tmp_path):
    project = Project(place)
    bring(project, tmp_path)
    (place / "pictures" / "0.txt").write_text("by another program")
    (bulk,) = inside(project, Bulk)
    bulk.what.value, bulk.text.value = FRONT, "sks"
    assert bulk.apply() == 2
    assert (place / "pictures" / "0.txt").read_text() == "sks, by another program\n"


def test_a_captioner_writes_over_no_caption_that_came_meanwhile(place, tmp_path):
    def captioner(picture):
        (place / "pictures" / "1.txt").write_text("by another program")
        return "by the model"

    project = Project(place, captioner=captioner)
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(png())
        project.browser.take(tmp_path / name, name)
    project.browser.taken()
    assert project.browser.caption() == 1
    assert (place / "pictures" / "0.txt").read_text() == "by the model\n"
    assert (place / "pictures" / "1.txt").read_text() == "by another program"


def test_a_picture_that_is_gone_when_its_caption_is_saved(place, tmp_path):
    project = Project(place)
    bring(project, tmp_path)
    (place / "pictures" / "0.png").unlink()
    with pytest.raises(SdxlNbError, match=r"There is no picture 0\.png in .* any more"):
        project.browser.save("0.png", "a card")


@pytest.mark.parametrize("gone", ["pictures", "base"])
def test_start_without_what_it_needs_starts_nothing(place, tmp_path, gone):
    project = Project(place)
    bring(project, tmp_path)
    if gone == "pictures":
        shutil.rmtree(place / "pictures")
        said = "pictures is not a folder: give the folder that holds the pictures"
    else:
        project.form.edits = {**project.form.edits, "pretrained_model_name_or_path": "/nowhere/base"}
        said = "/nowhere/base does not exist: give a hub id"
    project.start.button.click()
    project.start.wait(600)
    assert any(said in notice.value for notice in inside(project, Notice)) and project.run is None
    assert not (place / "runs").exists() and not project.start.button.disabled


def test_start_pressed_twice_starts_once(place, tmp_path, monkeypatch, done):
    started, looks, begun, pressed = [], [], threading.Event(), threading.Event()

    def launched(config, say):
        started.append(config.output_dir)
        begun.set()
        assert pressed.wait(600)
        shutil.copytree(done.folder, config.output_dir)
        return Run.open(config.output_dir)

    def looked_for(folder):
        there = found(folder)
        looks.append(there)
        if len(looks) == 2:  # the first start comes to its end just after the second look
            assert begun.wait(600)
            pressed.set()
            project.start.wait(600)
        return there

    monkeypatch.setattr("sdxl_nb.widgets.form.start.launch", launched)
    monkeypatch.setattr("sdxl_nb.widgets.form.start.found", looked_for)
    project = Project(place)
    bring(project, tmp_path)
    for _ in range(2):
        project.start.button.click()
    pressed.set()
    project.start.wait(600)
    assert started == [str(place / "runs" / "mine")]
    shutil.rmtree(project.run.folder)  # and then deletes it, while it is shown
    with pytest.raises(SdxlNbError, match=r"There is no run in .* any more: it was moved or deleted\."):
        project.run.status  # noqa: B018
    with pytest.raises(SdxlNbError, match=r"The LoRA of step \d was not kept; no step has one any more\."):
        project.result._read()


def test_two_monitors_of_a_run_say_the_same(done):
    one, other = RunMonitor(done), RunMonitor(done.folder)
    assert one.status == other.status == "completed" and one.step == other.step == 6
    one.close()
    assert other.comm is not None and other.status == "completed"


def test_files_of_a_run_that_were_cut_or_replaced(tmp_path, done):
    shutil.copytree(done.folder, tmp_path / "cut")
    events = tmp_path / "cut" / "events.jsonl"
    events.write_bytes(b"\xff\xfe\0garbage\n" + events.read_bytes()[:-40])
    damage = itertools.cycle([lambda data: data[:20], lambda data: data[:60] + b"xxxx" + data[64:], lambda data: b""])
    for picture, damaged in zip(sorted((tmp_path / "cut" / "validation").rglob("*.png")), damage, strict=False):
        picture.write_bytes(damaged(picture.read_bytes()))
    assert RunMonitor(tmp_path / "cut").status == "completed"
    grid = ValidationGrid(tmp_path / "cut")
    said = [text.get_text() for text in grid.figure().findobj(Text)]
    assert said.count("cannot be read") > 1
    assert next(iter(Runs(tmp_path)._entries.values())).glance.status == "completed"


@pytest.mark.parametrize("text", ["{", "[]", "5"])
@pytest.mark.parametrize("name", ["run.json", "process.json"])
def test_notes_of_a_run_that_are_no_notes(tmp_path, done, name, text):
    shutil.copytree(done.folder, tmp_path / "odd")
    (tmp_path / "odd" / name).write_text(text)
    for look in (RunMonitor, lambda folder: Run.open(folder).status, lambda folder: update(folder / name, ended=True)):
        with pytest.raises(SdxlNbError, match=rf"{name} cannot be read: restore it, or train in another folder\."):
            look(tmp_path / "odd")
    (entry,) = Runs(tmp_path)._entries.values()  # the list of runs opens all the same
    assert entry.glance.status == UNREADABLE


@pytest.mark.parametrize("widget", [RunMonitor, ValidationGrid, LoraPlayground, Runs])
def test_what_is_no_run(tmp_path, widget):
    with pytest.raises(SdxlNbError, match=r"There is no .*nothing"):
        widget(tmp_path / "nothing")
