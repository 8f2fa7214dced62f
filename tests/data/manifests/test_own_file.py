"""Our own data file: folders with settings of their own."""

import json

import numpy as np
import pytest
from data_files import captions, opened, settings, write

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.split import divide
from sdxl_nb.system.errors import ConfigError, DataError

YAML = """
trigger_word: sks
folders:
  - path: pictures/style
    repeats: 2
    loss_weight: 0.5
    resolution: 768
    caption_prefix: in the style of
    keep_tokens: 1
    shuffle_caption: yes
  - path: ../elsewhere/portraits
    flip: yes
    trigger_word: portrait
    caption: a face
  - path: unseen
    held_out: yes
"""


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "here", {"pictures/style/a.png": "red, blue", "unseen/z.png": "sks, a cat"})
    write(tmp_path / "here", {"pictures/style/b.png": "green"})
    write(tmp_path / "elsewhere", {"portraits/p.png": "a portrait of mum", "portraits/q.png": None})
    return tmp_path / "here"


def test_each_folder_has_its_own(folder):
    (folder / "data.yaml").write_text(YAML)
    pictures = opened(folder / "data.yaml")
    assert captions(pictures) == {
        "style/a.png": "in the style of sks, red, blue",
        "style/b.png": "in the style of sks, green",
        "portraits/p.png": "a portrait of mum",
        "portraits/q.png": "portrait, a face",
        "unseen/z.png": "sks, a cat",
    }
    assert pictures.written == ["red, blue", "green", "a portrait of mum", "a face", "sks, a cat"]
    assert pictures.repeats.tolist() == [2, 2, 1, 1, 1]
    assert pictures.weights.tolist() == [0.5, 0.5, 1, 1, 1]
    assert pictures.notes == [
        "3 folders: style 2 × 2 (loss weight 0.5, 768 px), portraits 2, held out unseen 1.",
        "portraits: 1 of 2 pictures have no caption and take 'a face'.",
    ]
    config = TrainConfig()
    style, portrait, unseen = (pictures.config(index, config) for index in (0, 2, 4))
    assert (style.resolution, style.keep_tokens, style.shuffle_caption, style.random_flip) == (768, 1, True, False)
    assert (portrait.resolution, portrait.random_flip, portrait.trigger_word) == (1024, True, "portrait")
    assert (unseen.resolution, unseen.trigger_word) == (1024, "sks")
    assert pictures[2].name == "portraits/p.png" and pictures[2].picture.size == (8, 8)
    kept, held = divide(TrainConfig(train_data_dir=str(folder / "data.yaml")), pictures)
    assert list(held.names) == ["unseen/z.png"] and len(kept) == 4 and kept.config(0, config).resolution == 768


def test_toml_and_json_say_the_same(folder):
    (folder / "data.toml").write_text('[[folders]]\npath = "pictures/style"\nrepeats = 3\n')
    (folder / "data.json").write_text(json.dumps({"folders": [{"path": "pictures/style", "repeats": 3}]}))
    for name in ("data.toml", "data.json"):
        pictures = opened(folder / name)
        assert pictures.repeats.tolist() == [3, 3] and pictures.notes == ["1 folder: style 2 × 3."]


def test_yaml_merges_keys(folder):
    text = "usual: &usual {repeats: 2}\nfolders: [{<<: *usual, path: unseen}]"
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data\.yaml has an unknown key 'usual'"):
        opened(folder / "data.yaml")
    (folder / "data.yaml").write_text(
        "folders: [&usual {path: unseen, repeats: 2}, {<<: *usual, path: pictures/style}]"
    )
    assert opened(folder / "data.yaml").repeats.tolist() == [2, 2, 2]


def test_null_takes_away_what_the_run_has(folder):
    (folder / "data.yaml").write_text("folders: [unseen, {path: pictures/style, trigger_word: null}]")
    pictures = opened(folder / "data.yaml", trigger_word="zwx")
    assert pictures.captions == ["zwx, sks, a cat", "red, blue", "green"]
    (folder / "data.yaml").write_text("folders: [{path: unseen, resolution: null}]")
    with pytest.raises(DataError, match=r"data\.yaml, folder unseen: resolution must not be null: leave it out"):
        opened(folder / "data.yaml")


def test_a_weight_of_one_and_one_repeat_are_as_if_nothing_was_said(folder):
    (folder / "data.yaml").write_text("folders: [{path: pictures/style, loss_weight: 1.0, repeats: 1}, unseen]")
    pictures = opened(folder / "data.yaml")
    assert pictures.repeats is None and pictures.weights is None
    assert pictures.notes == ["2 folders: style 2, unseen 1."] and settings(pictures, "style/a.png") == {}


def test_folders_of_one_name_are_told_apart(tmp_path):
    write(tmp_path, {"a/x/1.png": "one", "b/x/1.png": "two"})
    (tmp_path / "data.yaml").write_text("folders: [a/x, b/x, {path: a/x, resolution: 512}, {path: b/x, name: c}]")
    assert captions(opened(tmp_path / "data.yaml")) == {
        "a/x/1.png": "one",
        "b/x/1.png": "two",
        "a/x (2)/1.png": "one",
        "c/1.png": "two",
    }


def test_a_folder_means_what_it_means_alone(tmp_path):
    """Subfolders, kohya's repeats, several captions, masks, notes and faults."""
    write(tmp_path / "set", {"3_sks dog/a.png": None, "1_dog/b.png": "one\ntwo three four five six seven"})
    write(tmp_path / "set", {"1_dog/b-masklabel.png": None})
    (tmp_path / "set" / "1_dog" / "broken.txt").write_text("nobody's")
    (tmp_path / "data.yaml").write_text("folders: [{path: set, repeats: 2, caption_lines: captions}]")
    pictures = opened(tmp_path / "data.yaml")
    assert captions(pictures) == {
        "set/1_dog/b.png": ["one", "two three four five six seven"],
        "set/3_sks dog/a.png": "sks dog",
    }
    assert pictures.repeats.tolist() == [2, 6] and pictures.mask_bytes(0) and not pictures.mask_bytes(1)
    assert pictures.notes[0] == "1 folder: set 2 (8 an epoch)."
    assert all(note.startswith("set: ") for note in pictures.notes[1:]) and len(pictures.notes) > 3
    (tmp_path / "data.yaml").write_text("folders: [{path: set, caption_lines: captions, caption_choice: first}]")
    assert captions(opened(tmp_path / "data.yaml"))["set/1_dog/b.png"] == "one"
    (tmp_path / "data.yaml").write_text("folders: [{path: set, subfolders: no}]")
    with pytest.raises(DataError, match=r"folder set: its pictures lie in subfolders, as 1_dog: name each of these"):
        opened(tmp_path / "data.yaml")


def test_a_folder_inside_another_is_read_once(tmp_path):
    write(tmp_path, {"set/a.png": "outer", "set/in/b.png": "inner", "set/unseen/c.png": "held out"})
    (tmp_path / "data.yaml").write_text("folders: [set, {path: set/in, repeats: 3}, {path: set/unseen, held_out: yes}]")
    pictures = opened(tmp_path / "data.yaml")
    assert captions(pictures) == {"set/a.png": "outer", "in/b.png": "inner", "unseen/c.png": "held out"}
    assert pictures.repeats.tolist() == [1, 3, 1]
    assert pictures.notes == [
        "3 folders: set 1, in 1 × 3, held out unseen 1.",
        "set: 1 picture in in/ belongs to in.",
        "set: 1 picture in unseen/ belongs to unseen.",
    ]


def test_only_samples_are_counted_and_what_is_held_out_stays(folder):
    (folder / "data.yaml").write_text("folders: [pictures/style, {path: unseen, held_out: yes}]")
    assert list(opened(folder / "data.yaml", max_train_samples=1).names) == ["style/a.png", "unseen/z.png"]


def test_a_data_file_may_be_given_as_data_set_too(folder):
    from sdxl_nb.data.dataset import open_dataset

    (folder / "data.yaml").write_text("folders: [unseen]")
    assert list(open_dataset(TrainConfig(dataset_name=str(folder / "data.yaml"))).names) == ["unseen/z.png"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("folders: []", "data.yaml lists no folders: give each with its path under folders."),
        ("folders: style", "data.yaml lists no folders: give each with its path under folders."),
        ("folders: [gone]", "data.yaml, folder gone: There is no folder {root}/gone: correct its path."),
        ("folders: [empty]", "data.yaml, folder empty: The folder {root}/empty is empty: correct its path."),
        ("folders: [3]", "folder 1 of data.yaml is 3: give its path, or a group with a path in it."),
        ("folders: [{repeats: 2}]", "folder 1 of data.yaml has no path: add it, relative to the file."),
        (
            "folders: [{path: unseen, repeat: 2}]",
            "folder 1 of data.yaml has an unknown key 'repeat': did you mean repeats?",
        ),
        (
            "folders: [{path: unseen, repeats: 1.5}]",
            "repeats of folder unseen of data.yaml must be a whole number, not 1.5: correct it.",
        ),
        (
            "folders: [{path: unseen, repeats: 0}]",
            "repeats of folder unseen of data.yaml must be at least 1, not 0: correct it.",
        ),
        (
            "folders: [{path: unseen, loss_weight: .nan}]",
            "loss_weight of folder unseen of data.yaml must be at least 0, not nan: correct it.",
        ),
        (
            "folders: [{path: unseen, repeats: 100001}]",
            "repeats of folder unseen of data.yaml must be at most 100,000, not 100001: correct it.",
        ),
        (
            'folders: [{path: unseen, caption_prefix: "\\uD800"}]',
            "caption_prefix of folder unseen of data.yaml holds half a character or a NUL, '\\ud800': correct it.",
        ),
        (
            "folders: [{path: unseen, held_out: maybe}]",
            "held_out of folder unseen of data.yaml must be true or false, not 'maybe': correct it.",
        ),
        (
            "folders: [{path: unseen, resolution: 100}]",
            "data.yaml, folder unseen: resolution must be a multiple of 8, not 100: use 96 or 104.",
        ),
        (
            "folders: [unseen, {path: unseen, held_out: yes}]",
            "data.yaml, folder unseen: it is trained on and held out: leave one of the two away.",
        ),
        ("folders: [bare]", "Folder bare has no captions at all: add them, or give it a caption or a trigger_word of"),
        (
            "folders: [{path: unseen, repeats: 2, repeats: 3}]",
            "data.yaml is not YAML (repeats is there twice): correct",
        ),
        ("folders: [unseen", "data.yaml is not YAML (while parsing a flow sequence"),
        (
            "folders: [{path: unseen, held_out: yes}]",
            "{root}/data.yaml holds out all that can be used: give it folders to train on.",
        ),
        ("rank: 4", "data.yaml is no data file that is known (our own, kohya's, OneTrainer's, SimpleTuner's): give a"),
        (
            "pretrained_model_name_or_path: x",
            "data.yaml holds the settings of a run, which --config takes: give a folder, or a file with a list of",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(folder, text, sentence):
    (folder / "empty").mkdir()
    write(folder, {"bare/a.png": None})
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DataError) as caught:
        divide(TrainConfig(train_data_dir=str(folder / "data.yaml")), opened(folder / "data.yaml"))
    assert str(caught.value).startswith(sentence.format(root=folder))


def test_what_else_cannot_be_is_said(folder):
    (folder / "data.yaml").write_text("folders: [pictures/style, {path: unseen, held_out: yes}]")
    pictures = opened(folder / "data.yaml")
    with pytest.raises(DataError, match="and validation_split both hold pictures out: keep one of them"):
        divide(TrainConfig(train_data_dir=str(folder / "data.yaml"), validation_split=0.5), pictures)
    with pytest.raises(DataError, match=r"folder_weights is for subfolders of one folder: give loss_weight in data\."):
        opened(folder / "data.yaml", folder_weights={"style": 2.0})
    for name in ("class_data_dir", "validation_data_dir"):
        with pytest.raises(DataError, match=rf"data\.yaml, folder unseen: it is the {name} too: give that a folder of"):
            own = {"with_prior_preservation": True, "class_prompt": "x"} if name == "class_data_dir" else {}
            opened(folder / "data.yaml", **{name: str(folder / "unseen"), **own})
    (folder / "data.yaml").write_text("folders: [pictures/style]")
    config = TrainConfig(train_data_dir=str(folder / "data.yaml"), heldout_steps=5)
    with pytest.raises(DataError, match=r"heldout_steps needs held-out pictures: give a folder of .* held_out"):
        divide(config, opened(folder / "data.yaml", heldout_steps=5))
    with pytest.raises(ConfigError, match="heldout_steps needs held-out pictures"):
        TrainConfig(train_data_dir=str(folder), heldout_steps=5)


def test_a_link_does_not_lead_out_of_its_folder(folder, tmp_path):
    (folder / "unseen" / "secret.png").symlink_to(tmp_path / "elsewhere" / "portraits" / "p.png")
    (folder / "data.yaml").write_text("folders: [unseen]")
    with pytest.raises(DataError, match=r"data\.yaml, folder unseen: .*secret\.png.* leads out of"):
        opened(folder / "data.yaml")


def test_every_place_of_a_picture_keeps_its_folder(folder):
    """Selecting, joining and class pictures."""
    (folder / "data.yaml").write_text("folders: [{path: pictures/style, resolution: 512}, {path: unseen}]")
    pictures, config = opened(folder / "data.yaml"), TrainConfig()
    both = pictures.select([2, 0]).with_class(opened(folder / "unseen", trigger_word="sks"))
    assert both.folders.number.tolist() == [1, 0, -1]
    assert [both.config(index, config).resolution for index in range(3)] == [1024, 512, 1024]
    again = both.with_class(pictures)
    assert again.folders.number.tolist() == [1, 0, -1, 2, 2, 3]
    assert len(again.configs(config)) == 5 and np.array_equal(again[1].picture, pictures[0].picture)
