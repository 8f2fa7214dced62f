"""Captions of several chunks in training and drawing: their last words are learned and drawn, and none is cut."""

import shutil

import numpy as np
import pytest
from small_runs import assert_same, home, small, train

from sdxl_nb.drawing.generation import generate

pytestmark = pytest.mark.slow


def test_the_end_of_a_long_caption_counts(tmp_path):
    folders = [shutil.copytree(home()[0] / "pictures", tmp_path / name) for name in ("one", "other")]
    for folder, tail in zip(folders, ("red", "blue"), strict=True):
        for text in folder.glob("*.txt"):
            text.write_text("a card with a circle on it and a square, " + tail)
    runs = {}
    for length in (75, 225):
        for folder in folders:
            config = small(tmp_path / f"{folder.name}-{length}", train_data_dir=str(folder), max_token_length=length)
            runs[folder.name, length] = train(config.replace(max_train_steps=1))
    cut = {
        name: [e["message"] for e in run.events("warning") if "are cut" in e["message"]] for name, run in runs.items()
    }
    assert cut["one", 75][0].startswith("7 of 7 captions are longer than 16 tokens and are cut")
    assert cut["one", 225] == cut["other", 225] == []
    assert_same(runs["one", 75].folder, runs["other", 75].folder)  # the tail is lost
    with pytest.raises(AssertionError):
        assert_same(runs["one", 225].folder, runs["other", 225].folder)
    live = small(tmp_path / "live", train_data_dir=str(folders[0]), max_token_length=225, cache_text_embeddings=False)
    assert train(live.replace(max_train_steps=1)).losses()[1] == pytest.approx(runs["one", 225].losses()[1], rel=1e-5)


def test_the_end_of_a_long_prompt_is_drawn():
    base, start = str(home()[0] / "base"), "a card with a circle on it and a square, "
    drawn = generate(base, None, [start + "red", start + "blue", "a card"], num_inference_steps=2, progress=False)
    red, blue, short = (np.asarray(drawn.at(number)).astype(int) for number in range(3))
    assert np.abs(red - blue).max() > 0
    alone = generate(base, None, "a card", num_inference_steps=2, progress=False)
    again = generate(base, None, "a card", num_inference_steps=2, progress=False, batch_size=1)
    assert np.array_equal(np.asarray(alone.at()), np.asarray(again.at())) and short.shape == red.shape
