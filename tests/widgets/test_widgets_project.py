"""The one page, in process: what opens when, what lies in the project's folder, and that it is found again."""

import shutil
import threading

import pytest
from small_runs import small, train
from test_editing import png
from test_overview import begun
from test_widgets_pictures import inside

from sdxl_nb import Project, Run, TrainConfig
from sdxl_nb.runs.events import update
from sdxl_nb.system.errors import DataError, SdxlNbError
from sdxl_nb.widgets.form.start import Start
from sdxl_nb.widgets.grid.grid import ValidationGrid
from sdxl_nb.widgets.monitor.monitor import RunMonitor
from sdxl_nb.widgets.page.folder import ProjectFolder
from sdxl_nb.widgets.page.proposal import proposed
from sdxl_nb.widgets.page.result import Result
from sdxl_nb.widgets.page.settings import Few

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("sdxl_nb.widgets.page.steps.gpu_memory", lambda: None)
    return tmp_path / "mine"


def bring(project, tmp_path, many=2):
    """Drop pictures, and a caption for each."""
    for number in range(many):
        for name, data in ((f"{number}.png", png()), (f"{number}.txt", f"square {number}".encode())):
            (tmp_path / name).write_bytes(data)
            project.browser.take(tmp_path / name, name)
    project.browser.taken()


def opened(project, name):
    return project._places[name].children[0]


def test_the_steps_open_one_after_the_other_and_all_is_kept(place, tmp_path):
    project = Project(place)
    assert "There is no picture yet" in project.browser._count.value and not place.exists()
    assert "Opens when there is a picture with a caption" in opened(project, "Settings").value
    (tmp_path / "x.png").write_bytes(png())
    project.browser.take(tmp_path / "x.png", "x.png")
    project.browser.taken()
    assert not isinstance(opened(project, "Settings"), Few)  # it has no caption yet
    project.browser.save("x.png", "a square")
    few = opened(project, "Settings")
    assert not inside(project.form, Start) and inside(project, Start)  # there is one, below what will happen
    assert few.preset.value == "tiny" and few.fields["validation_prompt"].value == "a square"
    few.fields["max_train_steps"].value, few.fields["trigger_word"].value = "33", "zarko"
    assert project.config.max_train_steps == 33 and project.form.edits["max_train_steps"] == "33"
    assert project.browser.config.trigger_word == project.browser._word.value == "zarko"
    project.browser._word.value = "mirel"
    assert project.config.trigger_word == few.fields["trigger_word"].value == "mirel"
    assert TrainConfig.load(place / "settings.json") == project.config
    few.fields["max_train_steps"].value = "many"
    assert project.start.button.disabled and TrainConfig.load(place / "settings.json").max_train_steps == 33
    said = few._rows["max_train_steps"].children[1]
    assert "Steps must be a whole number" in said.value and "Steps must be" in project.form._outlook.value
    few.fields["max_train_steps"].value = "33"
    assert "How long." in said.value and not project.start.button.disabled
    again = Project(place)
    assert (again.config.max_train_steps, again.config.trigger_word) == (33, "mirel")
    assert opened(again, "Settings").preset.value == "as given" and again.config.train_data_dir == str(
        place / "pictures"
    )


def test_without_a_picture_there_is_none_for_pages_without_a_kernel(place, tmp_path):
    project = Project(place)
    assert "image/png" not in project._repr_mimebundle_()
    bring(project, tmp_path)
    assert project._repr_mimebundle_()["image/png"]


def test_what_is_proposed_and_told_follows_the_pictures_but_for_what_was_changed(place, tmp_path):
    project = Project(place)
    bring(project, tmp_path, 12)
    few, outlook = opened(project, "Settings"), project.form._outlook
    outlook.wait(600)
    assert project.config.max_train_steps == 250 and "250 steps of 8, so that each of 12" in few._why.value
    assert "12 pictures at 64 px" in outlook.value and project.config.validation_split == 0
    few.fields["validation_prompt"].value = "a zarko"
    bring(project, tmp_path, 20)
    outlook.wait(600)
    assert project.config.max_train_steps == 400 and "each of 20 pictures" in few._why.value
    assert "20 pictures (2 of them held out) at 64 px" in outlook.value and project.config.validation_split == 0.1
    assert project.config.validation_prompt == ["a zarko"]
    few.fields["max_train_steps"].value = "33"
    for number in range(15):
        (place / "pictures" / f"{number}.png").unlink()
    project.browser.taken()
    outlook.wait(600)
    assert (project.config.max_train_steps, project.config.validation_split) == (33, 0)
    assert "5 pictures at 64 px" in outlook.value


def test_a_run_is_shown_starred_taken_and_found_again(place, tmp_path, monkeypatch):
    drawn = {"validation_prompt": ["a card"], "num_validation_images": 1, "validation_epochs": None}
    done = train(small(tmp_path / "run", **drawn, validation_inference_steps=1, validation_split=0.2))

    def launched(config, say):
        shutil.copytree(done.folder, config.output_dir)
        return Run.open(config.output_dir)

    monkeypatch.setattr("sdxl_nb.widgets.form.start.launch", launched)
    project = Project(place)
    bring(project, tmp_path)
    project.start.button.click()
    project.start.wait(600)
    assert project.run.folder == place / "runs" / "mine" and isinstance(opened(project, "Run"), RunMonitor)
    result = opened(project, "Result")
    assert result is project.result and inside(result, ValidationGrid)
    assert [step for _, step in result._stage.options] == [2, 4, 6]
    assert "The run was completed at step 6 of 6; 3 stages can be taken." in result._said.value
    losses = dict(zip(*done.heldout(), strict=True))
    assert result._stage.value == min((2, 4, 6), key=losses.get)
    assert [words.endswith("lowest held-out loss") for words, step in result._stage.options] == [
        step == result._stage.value for step in (2, 4, 6)
    ]
    result._stage.value = 4
    result._star.click()
    assert project.folder.star == 4 and result._stage.options[1][0].startswith("step 4 ★ starred")
    assert result._download.filename == "small-step4.safetensors"
    assert result._read() == (project.run.folder / "checkpoint-4" / "small.safetensors").read_bytes()
    again = Project(place)
    assert again.run.folder == project.run.folder and again.result._stage.value == 4
    again.start.button.click()
    assert "holds a run already: it was completed" in again.start._question.children[0].value
    again.start._other.click()
    again.start.wait(600)
    assert again.run.folder == place / "runs" / "mine-2" and again.folder.star is None
    assert again.config.output_dir == str(place / "runs" / "mine-2")
    for one in (project, again):
        one.close()
        assert one.steps.monitor.comm is one.result._grid.comm is None


def test_what_is_starred_was_offered_also_while_a_thread_offers_more(place):
    run, log = begun(place / "runs" / "mine")

    def keeps(step):
        (run.path / f"checkpoint-{step}").mkdir()
        (run.path / f"checkpoint-{step}" / "state.json").touch()

    keeps(2), keeps(4)
    result = Result(ProjectFolder(place))
    result.show(Run.open(run.path))
    pressed = threading.Thread(target=result._star.click)

    def press(change):  # while the list is new, and nothing of it chosen
        if pressed.ident is None:
            pressed.start()
            pressed.join(0.3)

    result._stage.observe(press, "options")
    keeps(6)
    result.refresh()
    pressed.join(600)
    assert ProjectFolder(place).star == 6 and "Step 6 is starred" in result._notice.value
    log.close()
    run.release()


def test_a_project_whose_run_was_deleted_opens_all_the_same(place):
    folder = ProjectFolder(place)
    place.mkdir()
    update(place / "project.json", run="runs/mine", star=3)
    assert folder.run() is None and folder.next_run() == str(place / "runs" / "mine")
    (place / "project.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        folder.run()
    with pytest.raises(DataError, match="is a file: name a folder"):
        Project(place / "project.json")


def test_there_is_nothing_to_download_before_the_first_stage(place):
    with pytest.raises(SdxlNbError, match="There is no LoRA yet"):
        Project(place).result._read()


@pytest.mark.parametrize(
    ("pictures", "gigabytes", "preset", "steps", "split"),
    [
        (25, None, "tiny", 500, 0.1),
        (8, None, "tiny", 200, 0),
        (25, 24, "sdxl-24gb", 500, 0.1),
        (25, 15.8, "sdxl-16gb", 500, 0.1),
        (25, 4, "sdxl-6gb", 1000, 0.1),
        (900, 80, "sdxl-80gb", 2000, 0.1),
    ],
)
def test_what_is_proposed_fits_the_gpu_and_the_pictures(pictures, gigabytes, preset, steps, split):
    memory = gigabytes and int(gigabytes * 1e9)
    proposal = proposed(pictures, memory, "a card")
    config = TrainConfig.preset(proposal.preset, train_data_dir="pictures", **proposal.changes)
    assert (proposal.preset, config.max_train_steps, config.validation_split) == (preset, steps, split)
    assert config.validation_epochs is None and config.checkpointing_steps == steps // 5
    assert len(proposal.reasons) == 3 and all(reason.endswith(".") for reason in proposal.reasons)
