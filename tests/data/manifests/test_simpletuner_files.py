"""SimpleTuner's multidatabackend.json, as documentation/DATALOADER.md shows it."""

import json

import pytest
from data_files import captions, opened, settings, write

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.split import divide
from sdxl_nb.system.errors import DataError

DOCUMENTED = {
    "id": "something-special-to-remember-by",
    "type": "local",
    "instance_data_dir": "/path/to/data/tree",
    "crop": True,
    "crop_style": "center",
    "crop_aspect": "square",
    "resolution": 1024,
    "minimum_image_size": 768,
    "maximum_image_size": 2048,
    "minimum_aspect_ratio": 0.50,
    "maximum_aspect_ratio": 3.00,
    "target_downsample_size": 1024,
    "resolution_type": "pixel_area",
    "prepend_instance_prompt": False,
    "instance_prompt": "something to label every image",
    "only_instance_prompt": False,
    "caption_strategy": "textfile",
    "cache_dir_vae": "/path/to/vaecache",
    "repeats": 0,
}
EMBEDS = {
    "id": "an example backend for text embeds.",
    "dataset_type": "text_embeds",
    "default": True,
    "type": "aws",
    "aws_bucket_name": "textembeds-something-yummy",
}


@pytest.fixture
def root(tmp_path):
    write(tmp_path, {"tree/a_red_dog.png": "one caption\nanother", "tree/deep/b.png": "deep"})
    return tmp_path


def file(root, *backends):
    (root / "multidatabackend.json").write_text(json.dumps([*backends, EMBEDS]))
    return root / "multidatabackend.json"


def backend(root, **changes):
    return {
        "id": "x",
        "type": "local",
        "instance_data_dir": str(root / "tree"),
        "caption_strategy": "textfile",
        **changes,
    }


def test_the_documented_file(root):
    pictures = opened(file(root, {**DOCUMENTED, "instance_data_dir": str(root / "tree")}))
    name = "something-special-to-remember-by"
    assert captions(pictures) == {f"{name}/a_red_dog.png": ["one caption", "another"], f"{name}/deep/b.png": "deep"}
    assert pictures.repeats is None
    own = pictures.config(0, TrainConfig())
    assert (own.resolution, own.center_crop, own.uses_buckets(), own.caption_prefix) == (1024, True, False, None)
    small = "the audit names pictures that are too small or too narrow, and none is left out"
    large = "large pictures are always made smaller before they are cropped"
    keys = {"minimum_image_size": small, "maximum_image_size": large, "minimum_aspect_ratio": small}
    keys |= {"maximum_aspect_ratio": small, "target_downsample_size": large}
    assert pictures.notes == [
        f"1 folder: {name} 2 (1024 px).",
        *(f"{key} ({name}) has no effect: {why}." for key, why in keys.items()),
        f"{name}: 1 of 2 pictures have several captions (3 in all): one is drawn anew each time; --caption_choice "
        "first keeps to the first.",
    ]


def test_repeats_are_added_and_captions_are_as_their_strategy_has_them(root):
    shuffle = {"enable": True, "count": 3, "split_on": "comma", "position_start": 1}
    named = {"caption_strategy": "filename", "repeats": 5, "prepend_instance_prompt": True, "instance_prompt": "p"}
    same = {"caption_strategy": "instanceprompt", "instance_prompt": "cat girls", "crop": False}
    same |= {"resolution": 1.0, "resolution_type": "area"}
    backends = [
        backend(root, id="name", **named),
        backend(root, id="same", **same),
        backend(root, id="whole", disable_multiline_split=True, caption_shuffle=shuffle, probability=0.5),
        backend(root, id="unseen", dataset_type="eval"),
    ]
    pictures = opened(file(root, *backends))
    assert captions(pictures) == {
        "name/a_red_dog.png": "p a red dog",
        "name/deep/b.png": "p b",
        "same/a_red_dog.png": "cat girls",
        "same/deep/b.png": "cat girls",
        "whole/a_red_dog.png": "one caption another",
        "whole/deep/b.png": "deep",
        "unseen/a_red_dog.png": ["one caption", "another"],
        "unseen/deep/b.png": "deep",
    }
    assert pictures.notes[:3] == [
        "4 folders: name 2 × 6, same 2 (1000 px), whole 2, held out unseen 2.",
        "probability (whole) has no effect: give repeats or, in a data file of our own, a loss_weight.",
        "caption_shuffle (whole) has effect in part: captions are shuffled anew each time, not in a number of ways.",
    ]
    assert settings(pictures, "same/deep/b.png")["aspect_ratio_buckets"] is True
    whole = settings(pictures, "whole/deep/b.png")
    assert (whole["shuffle_caption"], whole["keep_tokens"], whole["caption_separator"]) == (True, 1, ",")
    _, held = divide(TrainConfig(train_data_dir=str(root / "multidatabackend.json")), pictures)
    assert list(held.names) == ["unseen/a_red_dog.png", "unseen/deep/b.png"]


def test_what_is_left_out_is_said(root):
    backends = [
        backend(root),
        backend(root, id="off", disabled=True),
        backend(root, id="far", type="aws"),
        backend(root, id="reg", is_regularisation_data=True),
        backend(root, id="film", dataset_type="video"),
        backend(root, id="table", caption_strategy="parquet"),
        backend(root, id="odd", type="ftp"),
    ]
    assert opened(file(root, *backends)).notes[1:-1] == [
        "Data set off is left out, because it is disabled.",
        "Data set far is left out, because it is no local folder but aws: give that to --train_data_dir (s3://) or "
        "--dataset_name by itself.",
        "Data set reg is left out, because it is regularisation data: class pictures are given with "
        "--with_prior_preservation --class_data_dir.",
        "Data set film is left out, because it holds video, not training pictures.",
        "Data set table is left out, because its captions are in parquet: give that data set to --train_data_dir by "
        "itself.",
        "Data set odd is left out, because its type 'ftp' is not known: give local.",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"instance_data_dir": "gone"}, "multidatabackend.json, folder x: There is no folder {root}/gone: correct its"),
        ({"instance_data_dir": None}, "data set x of multidatabackend.json has no instance_data_dir: add it."),
        ({"dataset_type": "images"}, "dataset_type of data set x of multidatabackend.json is 'images', which is not"),
        ({"type": "aws"}, "multidatabackend.json leaves no folder to train on (Data set x is left out, because"),
        ({"repeats": -1}, "repeats of data set x of multidatabackend.json must be at least 0, not -1: correct it."),
        ({"repeats": 1.5}, "repeats of data set x of multidatabackend.json must be a whole number, not 1.5: correct"),
        ({"resolution": "big"}, "resolution of data set x of multidatabackend.json must be a number, not 'big':"),
        ({"resolution_type": "mp"}, "resolution_type of data set x of multidatabackend.json is 'mp': give pixel_area,"),
        ({"resolution": 1023}, "multidatabackend.json, folder x: resolution must be a multiple of 8, not 1023: use"),
        ({"caption_strategy": "poem"}, "caption_strategy of data set x of multidatabackend.json is 'poem', which is"),
        ({"caption_strategy": "instanceprompt"}, "data set x of multidatabackend.json takes its instance_prompt as"),
        ({"prepend_instance_prompt": True}, "data set x of multidatabackend.json has prepend_instance_prompt and no"),
    ],
)
def test_what_is_wrong_is_one_sentence(root, changes, sentence):
    with pytest.raises(DataError) as caught:
        opened(file(root, backend(root, **changes)))
    assert str(caught.value).startswith(sentence.format(root=root))
