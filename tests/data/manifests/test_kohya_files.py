"""kohya's data set configurations, as docs/config_README-en.md of sd-scripts shows them, and its metadata files."""

import json
import re

import numpy as np
import pytest
from data_files import captions, opened, settings, write

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.captions import varied
from sdxl_nb.system.errors import DataError

DOCUMENTED = """
[general]
shuffle_caption = true
caption_extension = '.txt'
keep_tokens = 1

# This is a DreamBooth-style dataset
[[datasets]]
resolution = 512
batch_size = 4
keep_tokens = 2

  [[datasets.subsets]]
  image_dir = '{root}/hoge'
  class_tokens = 'hoge girl'

  [[datasets.subsets]]
  image_dir = '{root}/fuga'
  class_tokens = 'fuga boy'
  keep_tokens = 3
  num_repeats = 10

  [[datasets.subsets]]
  is_reg = true
  image_dir = '{root}/reg'
  class_tokens = 'human'
  keep_tokens = 1

# This is a fine-tuning dataset
[[datasets]]
resolution = [768, 768]
batch_size = 2

  [[datasets.subsets]]
  image_dir = '{root}/piyo'
  metadata_file = '{root}/piyo/piyo_md.json'
"""
FROG = {
    "caption": "a cartoon of a frog with the word frog on it\ntest multiline caption1",
    "tags": "open mouth, simple background, standing",
    "train_resolution": [512, 512],
}


@pytest.fixture
def root(tmp_path):
    write(tmp_path, {"hoge/1.png": "1girl, hat, red", "hoge/2.png": None, "hoge/below/3.png": "not meant"})
    write(tmp_path, {"fuga/1.png": "first line\nsecond line", "reg/1.png": None, "piyo/frog.png": None})
    write(tmp_path, {"piyo/2.jpg.png": None})
    (tmp_path / "piyo" / "piyo_md.json").write_text(json.dumps({str(tmp_path / "piyo/frog.png"): FROG}))
    return tmp_path


def config(root, text, name="dataset.toml"):
    (root / name).write_text(text.replace("{root}", str(root)))
    return root / name


def test_the_documented_file(root):
    pictures = opened(config(root, DOCUMENTED))
    assert captions(pictures) == {
        "hoge/1.png": "1girl, hat, red",
        "hoge/2.png": "hoge girl",
        "fuga/1.png": "first line",
        "piyo/frog.png": "a cartoon of a frog with the word frog on it, open mouth, simple background, standing",
    }
    assert pictures.repeats.tolist() == [1, 1, 10, 1] and pictures.weights is None
    kept = {name: settings(pictures, name)["keep_tokens"] for name in pictures.names}
    assert kept == {"hoge/1.png": 2, "hoge/2.png": 2, "fuga/1.png": 3, "piyo/frog.png": 1}
    sides = [pictures.config(index, TrainConfig()).resolution for index in range(4)]
    assert sides == [512, 512, 512, 768] and settings(pictures, "piyo/frog.png")["shuffle_caption"] is True
    reg = f"{root}/reg"
    assert pictures.notes == [
        "3 folders: hoge 2 (512 px), fuga 1 × 10 (512 px), piyo 1 (768 px).",
        f"{reg} holds regularisation pictures (is_reg) and is left out: give it with --with_prior_preservation "
        f"--class_data_dir {reg} --class_prompt 'human'.",
        "batch_size (data set 1, data set 2) has no effect: a run has one batch size, --train_batch_size.",
        "hoge: 1 picture in its subfolders is not meant.",
        "hoge: 1 of 2 pictures have no caption and take 'hoge girl'.",
        "piyo: train_resolution in piyo_md.json has no effect: pictures are measured, and shapes found, anew.",
    ]


def test_regularisation_pictures_that_are_given_apart(root):
    prior = {"with_prior_preservation": True, "class_data_dir": f"{root}/reg", "class_prompt": "human"}
    notes = opened(config(root, DOCUMENTED), **prior).notes
    assert f"{root}/reg holds regularisation pictures (is_reg), which are used as class_data_dir." in notes


def test_the_documented_file_as_json(root):
    said = {"general": {"caption_extension": ".txt"}, "datasets": [{"subsets": [{"image_dir": str(root / "fuga")}]}]}
    pictures = opened(config(root, json.dumps(said), "dataset.json"))
    assert captions(pictures) == {"fuga/1.png": "first line"} and pictures.notes == ["1 folder: fuga 1."]


SEPARATED = """
[general]
flip_aug = true
color_aug = false
resolution = [1024, 1024]

[[datasets]]
batch_size = 6
enable_bucket = true
bucket_no_upscale = true
caption_extension = ".txt"
keep_tokens_separator= "|||"
shuffle_caption = SHUFFLE
caption_tag_dropout_rate = 0.0
secondary_separator = ";;;"
enable_wildcard = true

  [[datasets.subsets]]
  image_dir = "{root}/set"
  num_repeats = 1
  caption_prefix = "1girl, hatsune miku, vocaloid |||"
  caption_suffix = ", anime screencap ||| masterpiece, rating: general"
"""


def test_what_stays_in_front_and_behind(root):
    write(root, {"set/a.png": "stage, microphone;;;mic\nwhite shirt"})
    pictures = opened(config(root, SEPARATED.replace("SHUFFLE", "true")))
    texts = captions(pictures)["set/a.png"]
    around = "1girl, hatsune miku, vocaloid ||| {} , anime screencap ||| masterpiece, rating: general"
    assert texts == [around.format("stage, microphone,mic"), around.format("white shirt")]
    own = pictures.config(0, TrainConfig())
    assert (own.random_flip, own.resolution, own.uses_buckets(), own.bucket_no_upscale) == (True, 1024, True, True)
    seen = {varied(texts[0], own, np.random.default_rng(seed)) for seed in range(200)}
    assert len(seen) == 24  # orders of stage, microphone, mic and anime screencap
    first, last = "1girl, hatsune miku, vocaloid, ", ", masterpiece, rating: general"
    assert all(text.startswith(first) and text.endswith(last) and "|" not in text for text in seen)
    assert len(pictures.notes) == 5 and pictures.notes[1:4] == [
        "batch_size (data set 1) has no effect: a run has one batch size, --train_batch_size.",
        f"enable_wildcard ({root}/set) has effect in part: of the lines of a caption file one is drawn, "
        "{alternatives|in braces} stay as they are written.",
        f"secondary_separator ({root}/set) has effect in part: what it holds together is shuffled and dropped one by "
        "one.",
    ]
    pictures = opened(config(root, SEPARATED.replace("SHUFFLE", "false")))
    whole = "1girl, hatsune miku, vocaloid, {}, anime screencap, masterpiece, rating: general"
    assert captions(pictures)["set/a.png"] == [whole.format("stage, microphone, mic"), whole.format("white shirt")]


ALL = """
[[datasets]]
min_bucket_reso = 256
max_bucket_reso = 1024
resolution = [768, 512]
validation_split = 0.1

  [[datasets.subsets]]
  image_dir = "{root}/hoge"
  caption_prefix = "in front"
  caption_dropout_rate = 0.05
  caption_dropout_every_n_epochs = 2
  caption_tag_dropout_rate = 0.0
  color_aug = true
  random_crop = false
  face_crop_aug_range = [1.0, 3.0]
  alpha_mask = true
  token_warmup_min = 1
  token_warmup_step = 0
  resize_interpolation = "area"
  custom_attributes = {a = 1}
  cache_info = true
  flip_augg = true

  [[datasets.subsets]]
  image_dir = "{root}/hoge"

  [[datasets.subsets]]
  image_dir = "{root}/fuga"
  num_repeats = 0
"""


def test_what_cannot_be_honoured_is_said(root):
    write(root, {"hoge/2.png": "a second"})
    pictures = opened(config(root, ALL))
    assert captions(pictures) == {"hoge/1.png": "in front 1girl, hat, red", "hoge/2.png": "in front a second"}
    own = pictures.config(0, TrainConfig())
    assert (own.resolution, own.center_crop, own.uses_buckets()) == (624, True, True)
    assert (own.proportion_empty_prompts, own.image_interpolation_mode) == (0.05, "box")
    hoge = f"{root}/hoge"
    assert pictures.notes[1:] == [
        f"resolution 768x512 of subset {hoge} of dataset.toml is taken as 624, a square of that area.",
        "Without caption_extension, which kohya's scripts take from a flag too, texts of any usual suffix are read.",
        f"{hoge} comes twice in data set 1 of dataset.toml: the first counts, as for kohya's scripts.",
        f"{root}/fuga is left out, because its num_repeats is 0.",
        "min_bucket_reso (data set 1) has no effect: shapes follow resolution, with sides of at most 4 to 1.",
        "max_bucket_reso (data set 1) has no effect: shapes follow resolution, with sides of at most 4 to 1.",
        "validation_split (data set 1) has no effect: give --validation_split, or a data file of our own with a "
        "held-out folder.",
        f"caption_dropout_every_n_epochs ({hoge}) has no effect: captions are dropped at random, by "
        "caption_dropout_rate.",
        f"color_aug ({hoge}) has no effect: colours are never changed.",
        f"face_crop_aug_range ({hoge}) has no effect: faces are not sought.",
        f"custom_attributes ({hoge}) has no effect: nothing here reads them.",
        f"alpha_mask ({hoge}) has no effect: masks are used with --masked_loss.",
        f"flip_augg ({hoge}): not known, and without effect.",
        "hoge: 1 picture in its subfolders is not meant.",
    ]


def test_metadata_with_whole_paths_needs_no_folder(root):
    text = f'[[datasets]]\n[[datasets.subsets]]\nmetadata_file = "{root}/piyo/piyo_md.json"\nenable_wildcard = true\n'
    pictures = opened(config(root, text))
    both = ["a cartoon of a frog with the word frog on it", "test multiline caption1"]
    tags = ", open mouth, simple background, standing"
    assert captions(pictures) == {"piyo/frog.png": [text + tags for text in both]}


def test_masks_beside(root):
    write(root, {"masks/1.png": None})
    text = f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{root}/hoge"\nconditioning_data_dir = "{root}/masks"\n'
    pictures = opened(config(root, text + 'class_tokens = "x"'), masked_loss=True)
    assert pictures.mask_bytes(0) == (root / "masks/1.png").read_bytes() and pictures.mask_bytes(1) is None
    assert not any("masked_loss" in note for note in pictures.notes)


def test_a_relative_folder_is_sought_where_one_stands_then_beside_the_file(root, tmp_path_factory, monkeypatch):
    file = config(root, '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "fuga"')
    assert captions(opened(file)) == {"fuga/1.png": "first line"}
    here = tmp_path_factory.mktemp("here")
    write(here, {"fuga/9.png": "another"})
    monkeypatch.chdir(here)
    assert captions(opened(file)) == {"fuga/9.png": "another"}


SUBSET = "[[datasets]]\n[[datasets.subsets]]\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{SUBSET}num_repeats = 2", "A subset of data set 1 of dataset.toml has no image_dir: add it."),
        (
            SUBSET + "image_dir = '{root}/gone'",
            "dataset.toml, folder gone: There is no folder {root}/gone: correct its path.",
        ),
        (
            SUBSET + "image_dir = 'C:\\hoge'",
            "dataset.toml, folder hoge: There is no folder C:\\hoge: correct its path.",
        ),
        (
            SUBSET + "image_dir = '{root}/hoge'\nnum_repeats = '2'",
            "num_repeats of subset {root}/hoge of dataset.toml must be a whole number, not '2': correct it.",
        ),
        (
            SUBSET + "image_dir = '{root}/hoge'\nflip_aug = 1",
            "flip_aug of subset {root}/hoge of dataset.toml must be true or false, not 1: correct it.",
        ),
        (
            SUBSET + "image_dir = '{root}/hoge'\ncaption_extension = 'txt'",
            "caption_extension of subset {root}/hoge of dataset.toml must begin with a full stop, not be 'txt'.",
        ),
        (
            SUBSET + "image_dir = '{root}/hoge'\nresolution = [1, 2, 3]",
            "resolution of subset {root}/hoge of dataset.toml must be a number or a pair of numbers, not [1, 2, 3]:",
        ),
        (
            SUBSET + "image_dir = '{root}/hoge'\ncaption_dropout_rate = 2",
            "dataset.toml, folder hoge: proportion_empty_prompts must be at most 1, not 2",
        ),
        (
            SUBSET + "image_dir = '{root}/hoge'\nmetadata_file = 'x.json'",
            "dataset.toml, folder hoge: There is no metadata file {root}/x.json: correct metadata_file.",
        ),
        (
            SUBSET + "image_dir = '{root}/hoge'\nmetadata_file = '{root}/odd.json'",
            "dataset.toml, folder hoge: The metadata file {root}/odd.json names no pictures: correct metadata_file.",
        ),
        (SUBSET + "image_dir = '{root}/reg'\nis_reg = true", "dataset.toml leaves no folder to train on ({root}/reg"),
        (SUBSET + "image_dir = '{root}'", "dataset.toml, folder {root.name}: its pictures lie in subfolders, as fuga:"),
        ("datasets = 3", "dataset.toml is no data file that is known (our own, kohya's,"),
        ("datasets = [3]", "data set 1 of dataset.toml is 3: it must be a group with subsets."),
        ("[general]\n[[datasets", "dataset.toml is not TOML ("),
    ],
)
def test_what_is_wrong_is_one_sentence(root, text, sentence):
    (root / "odd.json").write_text("3")
    with pytest.raises(DataError) as caught:
        opened(config(root, text))
    assert str(caught.value).startswith(sentence.replace("{root.name}", root.name).replace("{root}", str(root)))


def test_metadata_alone(root):
    """meta_cap.json with names in every spelling: absolute, relative, bare, of another machine."""
    write(root, {"piyo/deep/x.png": None})
    said = {
        str(root / "piyo/frog.png"): FROG,
        "deep/x.png": {"caption": "deep"},
        "2.jpg": {"tags": "a, b"},
        "/home/somebody/pictures/frog2.png": {"caption": "of elsewhere"},
        "gone": {"caption": "nobody"},
    }
    write(root, {"piyo/frog2.png": None})
    (root / "piyo" / "meta_cap.json").write_text(json.dumps(said))
    pictures = opened(root / "piyo" / "meta_cap.json")
    frog = "{}, open mouth, simple background, standing"
    assert captions(pictures) == {
        "piyo/frog.png": [
            frog.format("a cartoon of a frog with the word frog on it"),
            frog.format("test multiline caption1"),
        ],
        "piyo/deep/x.png": "deep",
        "piyo/2.jpg.png": "a, b",
        "piyo/frog2.png": "of elsewhere",
    }
    assert pictures.faults == [
        ("piyo/gone", "piyo/gone is named in meta_cap.json, but there is no such picture: put it there.")
    ]
    assert pictures.notes == [
        "1 folder: piyo 4.",
        "piyo: meta_cap.json names pictures elsewhere (/home/somebody/pictures/frog2.png): those of the same names in "
        f"{root}/piyo are used.",
        "piyo: train_resolution in meta_cap.json has no effect: pictures are measured, and shapes found, anew.",
        "piyo: 1 of 4 pictures have several captions (5 in all): one is drawn anew each time; --caption_choice first "
        "keeps to the first.",
    ]
    assert captions(opened(root / "piyo" / "meta_cap.json", caption_lines="first"))["piyo/frog.png"] == frog.format(
        "a cartoon of a frog with the word frog on it"
    )


def test_a_folder_without_captions_whose_metadata_has_them_says_so(root):
    (root / "piyo" / "other.json").write_text("{}")
    told = "piyo_md.json in it is a data file, which --train_data_dir takes by itself): add them, or give a"
    with pytest.raises(DataError, match=re.escape(told)):
        opened(root / "piyo")
    (root / "piyo" / "piyo_md.json").write_text("{")
    with pytest.raises(DataError, match=r"has no captions at all \(no metadata\.jsonl, no metadata\.csv and no"):
        opened(root / "piyo")


def test_lines_of_json_and_pictures_in_several_folders(root):
    rows = [
        {"image_path": str(root / "fuga/1.png"), "caption": "one", "image_size": [8, 8]},
        {"image_path": str(root / "reg/1.png"), "caption": "two"},
    ]
    (root / "piyo" / "meta.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert captions(opened(root / "piyo" / "meta.jsonl")) == {"piyo/fuga/1.png": "one", "piyo/reg/1.png": "two"}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"gone": {"caption": "x"}}, "meta_cap.json, folder piyo: meta_cap.json names no picture that is there;"),
        ({"../fuga/1": {"caption": "x"}}, "meta_cap.json, folder piyo: meta_cap.json names '../fuga/1', which leads"),
        ({"frog": {"caption": 3}}, "meta_cap.json, folder piyo: The caption of frog in meta_cap.json is no text:"),
        ({"link": {"caption": "x"}}, "meta_cap.json, folder piyo: meta_cap.json names 'link', which leads out of"),
        ({"frog": {"tags": "\ud800"}}, "meta_cap.json, folder piyo: The caption of frog in meta_cap.json holds half"),
        ({"frog": {"train_resolution": [8, 8]}}, "Folder piyo has no captions at all: add them, or give it a"),
    ],
)
def test_what_is_wrong_with_metadata_is_one_sentence(root, said, sentence):
    (root / "piyo" / "link.png").symlink_to(root / "hoge" / "1.png")
    (root / "piyo" / "meta_cap.json").write_text(json.dumps(said))
    with pytest.raises(DataError) as caught:
        opened(root / "piyo" / "meta_cap.json")
    assert str(caught.value).startswith(sentence)
