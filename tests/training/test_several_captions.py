"""Several captions of a picture: all are embedded, one is drawn for each position, the same one whatever happens."""

import json
import shutil
from collections import Counter

import pytest
from small_runs import assert_same, home, small, train

from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.sampling import Choices
from sdxl_nb.training.setup import Studio
from sdxl_nb.training.state import resuming
from sdxl_nb.training.state.fingerprint import fingerprint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Seven pictures; the even ones have three captions each."""
    folder = tmp_path_factory.mktemp("several")
    for picture in (home()[0] / "pictures").glob("*.png"):
        shutil.copy(picture, folder)
    lists = [[f"card {n}", f"picture {n}", f"thing {n}"] if n % 2 == 0 else f"card {n}" for n in range(7)]
    rows = [{"file_name": f"{n}.png", "text": text} for n, text in enumerate(lists)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def seen(monkeypatch):
    """The captions of a run, by position, as they are asked for."""
    found, caption = {}, Studio.caption

    def noted(studio, index, choices):
        found[choices.position] = index, caption(studio, index, choices)
        return found[choices.position][1]

    monkeypatch.setattr(Studio, "caption", noted)
    return found


def test_one_is_drawn_for_each_position_and_again_when_resumed(data, tmp_path, monkeypatch):
    found, events = seen(monkeypatch), []
    whole = train(small(tmp_path / "whole", train_data_dir=str(data), max_train_steps=16), events.append)
    assert sorted(found) == list(range(28))  # four epochs of seven
    words = ["card", "picture", "thing"]
    for position, (index, caption) in found.items():
        which = Choices.at(5, position, timesteps=1000, empty_share=0.0).one_of(3) if index % 2 == 0 else 0
        assert caption == f"{words[which]} {index}"
    assert set(Counter(caption.split()[0] for _, caption in found.values())) == set(words)
    (cached,) = [event for event in events if event["event"] == "cache" and "captions" in event]
    assert cached["captions"] == 7 + 2 * 4 + 1  # all of them, and the empty one
    shutil.copytree(whole.folder, tmp_path / "parts")
    for step in range(8, 18, 2):
        shutil.rmtree(tmp_path / "parts" / f"checkpoint-{step}")
    again = small(tmp_path / "parts", train_data_dir=str(data), max_train_steps=16, resume_from_checkpoint="latest")
    assert_same(train(again).folder, whole.folder)


def test_the_first_alone_on_request_is_as_if_there_were_no_others(data, tmp_path, monkeypatch):
    found = seen(monkeypatch)
    first = train(small(tmp_path / "first", train_data_dir=str(data), caption_choice="first"))
    assert {caption for _, caption in found.values()} == {f"card {n}" for n in range(7)}
    assert_same(first.folder, train(small(tmp_path / "usual")).folder)


def test_the_data_tell_which_captions_a_run_saw(data):
    """So that caption_choice may change where it changes nothing, and older runs go on."""
    several = open_dataset(small("x", train_data_dir=str(data)))
    first = open_dataset(small("x", train_data_dir=str(data), caption_choice="first"))
    usual = open_dataset(small("x"))
    assert fingerprint(several) != fingerprint(first) == fingerprint(usual)
    assert several.owner(6) == 6 and [several.owner(n) for n in (7, 8, 9, 14)] == [0, 0, 2, 6]
    kept, cut = several.every_caption(), several.select([2, 1]).every_caption()
    assert kept[7:9] == ["picture 0", "thing 0"] and list(cut) == ["card 2", "card 1", "picture 2", "thing 2"]
    assert list(first.every_caption()) == list(first.captions)
    assert "caption_choice" in resuming.OF_THE_DATA


def test_draws_are_apart_from_all_others():
    at = [Choices.at(3, position, timesteps=10, empty_share=0.5) for position in range(300)]
    which = [choices.one_of(3) for choices in at]
    assert {0, 1, 2} == set(which) and min(Counter(which).values()) > 70
    assert which == [choices.one_of(3) for choices in at]  # no generator has moved
    assert [c.words().random() for c in at] != [c.generator.random() for c in at]
