"""ValidationGrid in process: its columns, the pictures of a run that goes on, what is shipped, downloaded and drawn."""

import json
import shutil
import threading
import time
from types import SimpleNamespace

import pytest
from ipywidgets import HTML, Button, Label, Widget
from PIL import Image
from small_runs import small, train
from test_widgets_pictures import VIEW, button, inside, opened

from sdxl_nb.runs import stages
from sdxl_nb.runs.run import Run
from sdxl_nb.runs.stages import Stages
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.widgets.grid.enlarged import Enlarged
from sdxl_nb.widgets.grid.grid import NO_PROMPT, NOT_BEGUN, ValidationGrid
from sdxl_nb.widgets.grid.table import EMPTY, Table
from sdxl_nb.widgets.parts import watching
from sdxl_nb.widgets.parts.downloads import DownloadButton
from sdxl_nb.widgets.parts.pictures import PictureButton
from sdxl_nb.widgets.parts.viewer import LargePicture, large
from sdxl_nb.widgets.parts.watching import Notice

pytestmark = pytest.mark.slow

PICTURES = {"validation_prompt": ["a <card>"], "num_validation_images": 1, "validation_inference_steps": 2}
TAKEN_OUT = {"to the folder above", "to your computer"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(small(tmp_path_factory.mktemp("grid") / "run", checkpointing_steps=4, **PICTURES))


def shown(grid):
    """The steps of the columns."""
    heads = (label.value for table in inside(grid, Table) for label in inside(table, Label))
    return [head.removeprefix("step ").replace("base", "0") for head in heads if head.startswith(("step ", "base"))]


def ships(grid):
    """The steps whose Ship button there is, and whether it can be pressed."""
    buttons = [b for b in inside(grid, Button) if b.description.startswith("Ship ")]
    return {int(b.description.removeprefix("Ship ")): not b.disabled for b in buttons}


def empty(grid):
    return [cell for cell in inside(grid, HTML) if cell.value == EMPTY]


def until(true, seconds=600):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    assert true()


# What is shown.


def test_the_grid_shows_every_step_and_enlarges_one(run):
    grid = ValidationGrid(run)
    pictures = inside(grid, PictureButton)
    assert [p.alt for p in pictures] == [f"a <card>, seed 5, step {step}" for step in (0, 4, 6)]
    assert all(opened(p.value).size == (256, 256) for p in pictures)
    pictures[2].clicks += 1
    assert grid.enlarged == (6, grid.stages.rows()[0])
    (big,) = inside(grid, LargePicture)
    assert big.alt == "a <card>, seed 5, step 6, scale 1" and opened(big.value).size == (512, 512)
    press = big._handle_custom_msg
    for move, step in (((-1, 0), 4), ((-1, 0), 0), ((-1, 0), 0), ((0, 1), 0), ((1, 0), 4)):
        press({"move": move}, [])
        assert grid.enlarged[0] == step and inside(grid, LargePicture) == [big]  # the same one: it has the focus
        assert big.alt == f"a <card>, seed 5, step {step}, scale 1"
    big.clicks += 1
    assert grid.enlarged == () and len(inside(grid, PictureButton)) == 3
    bundle = grid._repr_mimebundle_()
    assert {VIEW, "image/png", "text/plain"} == set(bundle) and bundle["text/plain"] == "ValidationGrid"
    grid.close()


def test_another_scale_is_drawn_in_the_background(run):
    grid = ValidationGrid(run)
    grid.scale = 0.5
    grid._work.wait(600)
    assert "2 pictures drawn at scale 0.5" in grid._notice.value
    assert len(inside(grid, PictureButton)) == 3 and empty(grid) == []
    assert (run.folder / "validation" / "step-6" / "scale-0.5" / "00-5.png").is_file()
    grid.close()


def test_ship_from_the_grid_and_a_second_time_is_refused_in_the_widget(run, tmp_path):
    grid = ValidationGrid(run)
    grid._folder.value = str(tmp_path / "chosen")
    button(grid, "Copy the LoRA of step 4 with its card").click()
    assert grid.chosen == 4 and f"The LoRA of step 4 is in {tmp_path}/chosen." in grid._notice.value
    assert (tmp_path / "chosen" / "small.safetensors").is_file()
    button(grid, "Copy the LoRA of step 6 with its card").click()
    assert grid.chosen == 4 and 'role="alert"' in grid._notice.value and "name a new folder" in grid._notice.value
    grid.close()


def test_a_run_without_prompts_says_so_and_its_loras_can_be_taken(tmp_path):
    grid = ValidationGrid(train(small(tmp_path / "run", max_train_steps=4)))
    assert [h.value for h in inside(grid._shelf, HTML)] == [f"<i>{NO_PROMPT}</i>"]
    assert shown(grid) == ["2", "4"] and ships(grid) == {2: True, 4: True}
    assert [b.label for b in inside(grid._shelf, DownloadButton)] == ["Download 2", "Download 4"]
    assert all(control.layout.display == "none" for control in (grid._scales, grid._draws, grid._paper))
    grid._folder.value = str(tmp_path / "chosen")
    button(grid, "Ship 2").click()
    assert grid.chosen == 2 and not (tmp_path / "chosen" / "validation").exists()
    assert [axes.get_title() for axes in grid.figure().axes] == ["step 2", "step 4"]
    with pytest.raises(SdxlNbError, match="There is no validation_prompt to draw"):
        grid.draw()
    grid.close()


def test_a_run_without_anything_yet_says_so(run, tmp_path):
    grid = ValidationGrid(going_on(run, tmp_path / "run", []))
    grid._over.set()
    assert [h.value for h in inside(grid._shelf, HTML)] == ["<i>No validation picture yet.</i>"]
    (download,) = inside(grid, DownloadButton)
    download._asked(download, {"kind": "asked"}, [])
    assert "The run has drawn no picture yet, and kept no LoRA." in grid._notice.value
    assert "image/png" not in grid._repr_mimebundle_()
    grid.close()


def test_what_is_said_and_the_large_picture_are_above_the_table(run):
    grid = ValidationGrid(run)
    kinds = [type(child) for child in grid.children]
    assert kinds.index(Notice) < kinds.index(Enlarged) < grid.children.index(grid._shelf) == len(kinds) - 1
    assert "requestAnimationFrame" in LargePicture._esm  # the focus goes there, and back
    grid.close()


def test_a_long_prompt_is_cut_and_whole_where_one_points(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    prompt = "word " * 80 + "<end>"
    config = json.loads((run.folder / "config.json").read_text()) | {"validation_prompt": [prompt]}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    grid = ValidationGrid(tmp_path / "run")
    (said,) = [h.value for h in inside(grid._shelf, HTML) if "seed 5" in h.value]
    assert f'title="{"word " * 80}&lt;end&gt;"' in said and len(said.partition(">")[2]) < 120 and "…<br>seed 5" in said
    grid.close()


def test_pictures_that_were_overwritten_are_shown_anew(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    grid = ValidationGrid(tmp_path / "run")
    grid._over.set()
    before = inside(grid, PictureButton)
    before[1].clicks += 1
    Image.new("RGB", (32, 32), "red").save(tmp_path / "run" / "validation" / "step-4" / "00-5.png")
    grid.refresh()
    after = inside(grid, PictureButton)
    assert grid.enlarged == () and len(after) == 3
    assert [one is other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert opened(after[1].value).convert("RGB").getpixel((9, 9)) == (255, 0, 0)
    grid.close()


def test_any_scale_can_be_set_and_is_offered(run):
    grid = ValidationGrid(run, scale=0.4)
    grid._work.wait(600)
    grid.scale = 0.3
    grid._work.wait(600)
    assert grid.scale == grid._scales.value == 0.3 and "2 pictures drawn at scale 0.3" in grid._notice.value
    assert [label for label, _ in grid._scales.options][:4] == ["0.25", "0.3", "0.4", "0.5"]
    grid._scales.value = 0.4
    assert grid.scale == 0.4
    grid.close()


def test_no_run_and_unknown_settings(run, tmp_path):
    with pytest.raises(TypeError, match=r"ValidationGrid has no setting scal: did you mean scale\?"):
        ValidationGrid(run, scal=1)
    with pytest.raises(SdxlNbError, match=r"There is no run in .*nowhere: give the output_dir of one"):
        ValidationGrid(tmp_path / "nowhere")
    said = r"^ValidationGrid shows a Run, or the output_dir of one, not a TrainConfig: give Run\.open\(folder\)\.$"
    with pytest.raises(SdxlNbError, match=said):
        ValidationGrid(run.config)


@pytest.mark.parametrize(("own", "side"), [(64, 512), (512, 512), (768, 768), (1024, 1024), (2048, 1024)])
def test_an_enlarged_picture_has_its_own_size(own, side, tmp_path):
    Image.new("RGB", (own, own), "red").save(tmp_path / "x.png")
    data, wide = large(tmp_path / "x.png")
    assert wide == side and opened(data).size == (side, side)
    assert "max-width: 100%" in PictureButton._css and "max-height: 80vh" in LargePicture._css


def test_few_stages_need_no_paging(run):
    grid = ValidationGrid(run)
    assert grid._columns.layout.display == "none"
    grid.close()


# A LoRA to take along.


def test_a_lora_is_downloaded_and_read_only_when_it_is_asked_for(run, monkeypatch):
    grid, failed, sent = ValidationGrid(run), [], []
    buttons = [b for b in inside(grid, DownloadButton) if b.label != "Download grid"]
    names = [f"small-step{step}.safetensors" for step in (4, 6)]
    assert [b.label for b in buttons] == ["Download 4", "Download 6"]
    assert [b.filename for b in buttons] == names and [b.disabled for b in buttons] == [False, False]
    monkeypatch.setattr(buttons[0], "send", lambda content, buffers: sent.append((content, bytes(buffers[0]))))
    buttons[0]._asked(buttons[0], {"kind": "asked"}, [])
    assert sent == [
        ({"view": None, "filename": names[0]}, (run.folder / "checkpoint-4" / "small.safetensors").read_bytes())
    ]
    monkeypatch.setattr(Stages, "lora_file", lambda stages, step: failed.append(step))
    ValidationGrid(run).close()
    assert failed == []  # nothing was read for a grid alone
    buttons[1]._asked(buttons[1], {"kind": "asked"}, [])
    assert failed == [6] and 'role="alert"' in grid._notice.value
    grid.close()


# A run that goes on.


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(watching, "OFTEN", 0.05)
    monkeypatch.setattr(watching, "RARELY", 0.05)


def going_on(run, folder, steps):
    """A copy of a run as it was when it had drawn these steps; there all at once, for a thread may look."""
    aside = folder.with_name("aside")
    shutil.copytree(run.folder, aside, ignore=shutil.ignore_patterns("validation", "checkpoint-*", "*.safetensors"))
    about = json.loads((aside / "run.json").read_text()) | {"status": "running", "host": "elsewhere"}
    (aside / "run.json").write_text(json.dumps(about))
    for step in steps:
        draws(run, aside, step)
    aside.rename(folder)
    return Run.open(folder)


def draws(run, folder, step):
    shutil.copytree(run.folder / "validation" / f"step-{step}", folder / "validation" / f"step-{step}")


def test_the_grid_of_a_run_that_goes_on_fills_by_itself(run, tmp_path, often):
    watched = going_on(run, tmp_path / "run", [0])
    assert watched.status == "running"
    grid = ValidationGrid(watched)
    assert shown(grid) == ["0"] and grid._folder.value == str(tmp_path / "small-chosen")
    assert not {label.value for label in inside(grid, Label)} & TAKEN_OUT  # the base alone has nothing to take
    base = inside(grid, PictureButton)[0]
    draws(run, tmp_path / "run", 4)
    until(lambda: shown(grid) == ["0", "4"])
    assert inside(grid, PictureButton)[0] is base  # what is there already stays
    assert not any(ships(grid).values()) and {label.value for label in inside(grid, Label)} >= TAKEN_OUT
    shutil.copytree(run.folder / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
    until(lambda: ships(grid) == {4: True})
    draws(run, tmp_path / "run", 6)
    until(lambda: shown(grid) == ["0", "4", "6"])
    shutil.copytree(run.folder / "checkpoint-4", tmp_path / "run" / "checkpoint-5")
    until(lambda: shown(grid) == ["0", "4", "5", "6"])
    grid._work.start = pytest.fail
    grid._rescale()  # what is missing is the run's to draw
    assert grid._notice.value == ""
    grid.close()
    assert grid._over.is_set()


class Waiting(Run):
    """A run that has no machine yet: there is nothing in its folder, or no folder."""

    @property
    def status(self):
        return "running" if (self.folder / "config.json").is_file() else "starting"

    @property
    def config(self):
        assert (self.folder / "config.json").is_file(), "asked too early"
        return super().config


def test_a_run_that_has_not_begun_says_so_and_fills_later(run, tmp_path, often):
    grid = ValidationGrid(Waiting(tmp_path / "run"))
    assert [h.value for h in inside(grid._shelf, HTML)] == [f"<i>{NOT_BEGUN}</i>"] and grid._notice.value == ""
    going_on(run, tmp_path / "run", [0, 4])
    until(lambda: shown(grid) == ["0", "4"])
    assert grid._folder.value == str(tmp_path / "small-chosen") and grid._notice.value == ""
    grid.close()


def test_looking_takes_a_small_share_of_a_core(often, monkeypatch):
    asked, widget = [], HTML()
    widget._notice = Notice()

    class TwoLooks(threading.Event):
        def wait(self, seconds):
            asked.append(seconds)
            if len(asked) == 3:
                self.set()
            return self.is_set()

    seconds = [0.0]  # of a core

    def look():
        seconds[0] += 0.05

    monkeypatch.setattr(watching, "threading", SimpleNamespace(Event=TwoLooks, Thread=threading.Thread))
    monkeypatch.setattr(watching, "time", SimpleNamespace(thread_time=lambda: seconds[0]))
    over = watching.watched(widget, SimpleNamespace(status="running"), look)
    until(over.is_set)
    assert asked == pytest.approx([0.05, 1, 1])  # the next one is due a second after it


# What stays behind.


def open_widgets():
    return set(Widget.get_manager_state()["state"])


def test_what_is_replaced_is_closed_and_so_is_everything_with_the_grid(run):
    before = open_widgets()
    grid = ValidationGrid(run)
    full = open_widgets()
    pictures = inside(grid, PictureButton)
    for picture in pictures[1:]:
        picture.clicks += 1
    inside(grid, LargePicture)[0].clicks += 1
    assert open_widgets() == full
    grid.scale = 0.25
    grid._work.wait(600)
    assert pictures[1].comm is None and inside(grid, PictureButton)[1] is not pictures[1]
    grid.scale = 1.0
    assert len(open_widgets()) == len(full)
    grid.close()
    assert open_widgets() == before
    grid.refresh()  # of a thread that comes late
    assert open_widgets() == before


def test_the_base_is_loaded_once_for_all_scales_and_given_back(run, tmp_path, monkeypatch):
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("scale-*"))
    loads = []
    monkeypatch.setattr("sdxl_nb.widgets.grid.filling.loaded", lambda config: loads.append(1) or stages.loaded(config))
    grid = ValidationGrid(tmp_path / "run")
    grid._over.set()
    for scale in (0.25, 0.75):
        grid.scale = scale
        grid._work.wait(600)
        assert f"2 pictures drawn at scale {scale:g}." in grid._notice.value
    assert loads == [1] and grid._base is not None
    about = json.loads((tmp_path / "run" / "run.json").read_text()) | {"status": "running", "host": "elsewhere"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))  # it was resumed
    grid.refresh()
    assert grid._base is None
    grid.scale = 1.25
    grid._work.wait(600)
    assert loads == [1, 1] and grid._base is not None
    grid.close()
    assert grid._base is None


def test_a_grid_that_is_closed_draws_no_further(run, tmp_path, monkeypatch):
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("scale-*"))
    grid = ValidationGrid(tmp_path / "run")
    monkeypatch.setattr(grid, "_drawn", lambda *done, drawn=grid._drawn: (grid.close(), drawn(*done)))
    grid.scale = 0.25
    grid._work.wait(600)
    drawn = list((tmp_path / "run" / "validation").glob("step-*/scale-0.25"))
    assert [folder.parent.name for folder in drawn] == ["step-4"] and "closed" in grid._notice.value
    grid = ValidationGrid(tmp_path / "run")
    monkeypatch.setattr("sdxl_nb.widgets.grid.filling.loaded", lambda config: grid.close() or stages.loaded(config))
    grid.scale = 0.75
    grid._work.wait(600)
    assert grid._base is None  # though it came after the end
