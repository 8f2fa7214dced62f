"""All runs of a folder at a glance: found wherever they lie, each said whatever it is, and what sets them apart."""

import json
import os

import pytest
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.events import EventLog
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.runs.glance import Events, glance
from sdxl_nb.runs.overview import RunList, differences, run_folders, size
from sdxl_nb.system.errors import SdxlNbError


def begun(path, **settings):
    """A run folder as training leaves it that has just begun, its lock held, and its log."""
    config = TrainConfig(output_dir=str(path), **{"seed": 0} | settings)
    folder = RunFolder(config)
    folder.begin(config, resumed_from=None)
    log = EventLog(path, quiet=True)
    log.emit("start", steps=9, processes=1, resumed_from=None)
    return folder, log


def trained(path, status="completed", error=None, **settings):
    """One that took three steps, drew at two of them, and is over."""
    folder, log = begun(path, **settings)
    for log.step, loss in ((1, 0.5), (2, 0.25), (3, 0.375)):
        log.emit("step", train_loss=loss, lr=1e-4, seconds=1.0)
        log.emit("heldout", loss=loss)
    for step in (0, 3):
        (path / "validation" / f"step-{step}").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path / "validation" / f"step-{step}" / "00-0.png")
    log.end(status=status, error=error, seconds=1.0)
    folder.release()
    return path


def test_what_a_glance_says_of_a_run(tmp_path):
    seen = glance(trained(tmp_path / "a" / "b"), tmp_path)
    assert (seen.name, seen.status, seen.said, seen.step, seen.steps) == ("a/b", "completed", "", 3, 9)
    assert (seen.heldout, seen.lowest, seen.drawn) == (0.375, (0.25, 2), 3)
    assert seen.picture == tmp_path / "a" / "b" / "validation" / "step-3" / "00-0.png"
    assert seen.settings["rank"] == 4 and seen.begun > 0
    assert glance(tmp_path / "a" / "b", tmp_path / "a" / "b").name == "b"


def test_every_state_is_said_and_none_breaks_the_list(tmp_path):
    trained(tmp_path / "done")
    trained(tmp_path / "bad" / "failed", status="failed", error="The loss is not finite.")
    running, log = begun(tmp_path / "running")
    gone, its_log = begun(tmp_path / "gone")
    gone.release()
    (tmp_path / "kohya").mkdir()
    (tmp_path / "kohya" / "x.safetensors").touch()
    for name, text in {"torn": "{", "listed": "[1]", "empty": "", "named": '{"id": 3}', "odd": '{"status": 5}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    (tmp_path / "circle").symlink_to(tmp_path)
    found = {seen.name: (seen.status, seen.said) for seen in RunList(tmp_path).look()}
    log.close()
    its_log.close()
    running.release()
    assert found["done"] == ("completed", "") and found["bad/failed"] == ("failed", "The loss is not finite.")
    assert found["running"][0] == "running" and found["gone"][0] == "interrupted" and "gone" in found["gone"][1]
    assert found["kohya"] == ("foreign", "LoRA files and no run.json: no run of ours, or one whose files were moved")
    assert {found[name][0] for name in ("torn", "listed", "empty", "named")} == {"unreadable"}
    assert len(found) == 10 and found["odd"] == ("5", "")


def test_a_job_is_as_it_was_at_the_last_look(tmp_path):
    place = trained(tmp_path / "job")
    (place / "sagemaker.json").write_text(json.dumps({"job": "job-1", "region": "eu-west-1", "status": "stopped"}))
    assert glance(place, tmp_path).status == "stopped"
    (place / "run.json").write_text((place / "run.json").read_text().replace("completed", "running"))
    (place / "sagemaker.json").write_text(json.dumps({"job": "job-1", "region": "eu-west-1", "status": None}))
    seen = glance(place, tmp_path)
    assert seen.status == "running" and "as it was at the last look" in seen.said


def test_a_run_that_goes_on_again_is_where_it_goes_on(tmp_path):
    trained(tmp_path / "run", status="stopped")
    log = EventLog(tmp_path / "run", quiet=True)
    log.step = 2
    log.emit("start", steps=20, processes=1, resumed_from=2)
    log.close()
    seen = glance(tmp_path / "run", tmp_path)
    assert (seen.step, seen.steps) == (2, 20)


def test_of_events_only_whole_lines_count(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "step", "step": 1}\n{"event": "heldout", "step": 1}\n{"event": "step", "st')
    with Events(path) as events:
        assert events.last("step") == {"event": "step", "step": 1, "at": 0} and events.last("end") == {}
        assert [event["step"] for event in events.all("heldout")] == [1]
    for there in (lambda: path.write_text(""), path.unlink):
        there()
        with Events(path) as events:
            assert events.last("step") == {} and list(events.all("step")) == []


def test_what_differs_is_told_of_those_that_differ(tmp_path):
    for number, rank in enumerate((4, 4, 8)):
        trained(tmp_path / str(number), rank=rank, seed=number, train_data_dir=str(tmp_path / f"at{number}" / "cats"))
    seen = [glance(tmp_path / name, tmp_path) for name in "012"]
    assert differences(seen) == [{}, {}, {"rank": 8}]  # neither the seed, which is drawn, nor where the pictures lie
    assert differences(seen[1:]) == [{"rank": 4}, {"rank": 8}]  # of two, neither is what most have
    assert differences(seen[1:], ["seed"]) == [{"seed": 1}, {"seed": 2}]
    older = seen[0]._replace(settings={name: v for name, v in seen[0].settings.items() if name != "rank"})
    assert differences([older, seen[1]]) == [{}, {}]  # what it does not name is as usual


def test_only_what_has_changed_is_read_again(tmp_path):
    trained(tmp_path / "old")
    place = trained(tmp_path / "new")
    runs = RunList(tmp_path)
    first = runs.look()
    assert [seen.name for seen in first] == ["new", "old"]
    about = json.loads((place / "run.json").read_text()) | {"status": "stopped"}
    (place / "run.json").write_text(json.dumps(about))
    os.utime(place / "run.json", (1, 1))
    again = runs.look()
    assert again[0].status == "stopped" and again[1] is first[1]
    assert "<td style=text-align:left>new</td><td style=text-align:left>stopped</td>" in runs._repr_html_()


def test_nothing_there_and_no_folder(tmp_path):
    assert run_folders(tmp_path) == [] and "There is no run in" in RunList(tmp_path)._repr_html_()
    with pytest.raises(SdxlNbError, match=r"^There is no folder .*nowhere: give the one that your runs lie in\.$"):
        RunList(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    assert size(tmp_path) == 5
