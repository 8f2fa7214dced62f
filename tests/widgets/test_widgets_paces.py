"""The time on Start that nobody asked for: by the pace of a run of before, or of an estimate made for other steps."""

import json

import pytest

from sdxl_nb import ConfigForm, TrainConfig
from sdxl_nb.preflight.forecast import Machine, Row
from sdxl_nb.runs.events import EventLog
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.widgets.form.paces import FREE

pytestmark = pytest.mark.slow


def ran(config, steps=10, each=0.5, around=20.0):
    """A run of before: so many steps, so many seconds for each and for all around them."""
    (folder := RunFolder(config)).begin(config, resumed_from=None)
    log = EventLog(folder.path, quiet=True)
    log.emit("start", steps=steps, processes=1, resumed_from=None)
    for log.step in range(1, steps + 1):
        log.emit("step", train_loss=0.5, lr=1e-4, seconds=each)
    log.end(status="completed", error=None, seconds=steps * each + around)
    log.close()
    folder.release()
    path = folder.path / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    events = [event | {"time": 1000.0 + event["step"] * each} for event in events]
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


def start(form):
    form._outlook.wait(1200)
    return form.start.button.description


def test_a_run_of_before_says_how_long_the_next_takes(tmp_path):
    config = TrainConfig.preset("tiny", output_dir=str(tmp_path / "new"), max_train_steps=100, seed=3)
    ran(config.replace(output_dir=str(tmp_path / "old"), learning_rate=1e-5, max_train_steps=10, seed=4))
    ran(config.replace(output_dir=str(tmp_path / "other"), rank=32), each=100.0)
    ran(config.replace(output_dir=str(tmp_path / "short")), steps=2, each=100.0)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "events.jsonl").write_text("{")
    form = ConfigForm(config)
    assert start(form) == "Start · about 1 min 10 s"
    assert form.start.button.tooltip.endswith("; the time is by the pace of the run old")
    form.edits = {"max_train_steps": 280}
    assert start(form) == "Start · about 2 min 40 s"
    form.edits = {"train_batch_size": 3}
    assert start(form) == "Start" and "pace" not in form.start.button.tooltip
    assert set(FREE) <= set(TrainConfig.model_fields)


def test_an_estimate_says_it_for_other_steps_too_until_the_pictures_are_others(tmp_path, monkeypatch):
    class Made:
        rows = (Row(Machine("this machine", "cpu", 1, None, None), 1, 1, 36.0, 100, around=1800.0),)

        def _repr_html_(self):
            return "<table>an hour and a half</table>"

    monkeypatch.setattr("sdxl_nb.preflight.estimate_table.estimate", lambda config: Made())
    form = ConfigForm(TrainConfig.preset("tiny", output_dir=str(tmp_path / "new"), max_train_steps=100))
    assert start(form) == "Start"
    form._outlook._button.click()
    assert start(form) == "Start · about 1 h 30 min" and "pace" not in form.start.button.tooltip
    form.edits = {"max_train_steps": 350}
    assert start(form) == "Start · about 4 h 0 min" and form._outlook._table.value == ""
    assert form.start.button.tooltip.endswith("by the pace of the estimate")
    form._outlook.recount()
    form.edits = {"max_train_steps": 300}
    assert start(form) == "Start"
