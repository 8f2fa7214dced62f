"""Browser and form over a data file: what each folder has for itself is shown, counted, and changed elsewhere."""

import json

import pytest
from data_files import write
from ipywidgets import HTML
from test_widgets_dataset import browse, names
from test_widgets_pictures import inside

from sdxl_nb import ConfigForm, TrainConfig


@pytest.fixture
def config(tmp_path):
    write(tmp_path, {"style/a.png": "red", "style/b.png": "blue", "unseen/c.png": "a cat"}, size=(48, 32))
    folders = [{"path": "style", "repeats": 3, "resolution": 96, "trigger_word": "sks"}]
    (tmp_path / "data.json").write_text(json.dumps({"folders": [*folders, {"path": "unseen", "held_out": True}]}))
    return TrainConfig.preset("tiny", train_data_dir=str(tmp_path / "data.json"), center_crop=True)


def test_the_browser_shows_all_folders_and_changes_none(config):
    browser = browse(config)
    assert names(browser) == ["style/a.png", "style/b.png", "unseen/c.png"] and not browser.editable
    told = "lie in several folders: open the one to be changed by itself"
    assert any(told in html.value for html in inside(browser, HTML))
    assert browser._shape(config, 0, (32, 48)) == (96, 96) and browser._shape(config, 2, (32, 48)) == (64, 64)
    assert [browser._words(index).trigger for index in (0, 2)] == ["sks", ""]
    browser.close()


def test_the_form_counts_as_training_does(config):
    form = ConfigForm(config.replace(train_batch_size=2, max_train_steps=None, num_train_epochs=2))
    form._outlook.wait(600)
    assert form.problems == {} and "3 pictures (1 of them held out, with repeats 6 an epoch)" in form._outlook.value
    assert "at 64 px where the data file has no other, 2 a step: 3 steps an epoch" in form._outlook.value
    form.edits = {"train_data_dir": str(config.train_data_dir).replace("data.json", "gone.json")}
    form._outlook.wait(600)
    assert "gone.json" in form._outlook.value
