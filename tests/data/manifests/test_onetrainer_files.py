"""OneTrainer's concepts.json, as its ConceptConfig.py writes it."""

import copy
import json

import pytest
from data_files import captions, opened, settings, write

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.split import divide
from sdxl_nb.system.errors import DataError

CONCEPT = {  # the program's own defaults
    "__version": 2,
    "image": {
        "__version": 0,
        "enable_crop_jitter": True,
        "enable_random_flip": False,
        "enable_fixed_flip": False,
        "enable_random_rotate": False,
        "enable_fixed_rotate": False,
        "random_rotate_max_angle": 0.0,
        "enable_random_brightness": False,
        "enable_fixed_brightness": False,
        "random_brightness_max_strength": 0.0,
        "enable_random_contrast": False,
        "enable_fixed_contrast": False,
        "random_contrast_max_strength": 0.0,
        "enable_random_saturation": False,
        "enable_fixed_saturation": False,
        "random_saturation_max_strength": 0.0,
        "enable_random_hue": False,
        "enable_fixed_hue": False,
        "random_hue_max_strength": 0.0,
        "enable_resolution_override": False,
        "resolution_override": "512",
        "enable_random_circular_mask_shrink": False,
        "enable_random_mask_rotate_crop": False,
    },
    "text": {
        "__version": 0,
        "prompt_source": "sample",
        "prompt_path": "",
        "enable_tag_shuffling": False,
        "tag_delimiter": ",",
        "keep_tags_count": 1,
        "tag_dropout_enable": False,
        "tag_dropout_mode": "FULL",
        "tag_dropout_probability": 0.0,
        "tag_dropout_special_tags_mode": "NONE",
        "tag_dropout_special_tags": "",
        "tag_dropout_special_tags_regex": False,
        "caps_randomize_enable": False,
        "caps_randomize_mode": "capslock, title, first, random",
        "caps_randomize_probability": 0.0,
        "caps_randomize_lowercase": False,
    },
    "name": "",
    "path": "",
    "seed": -519387223,
    "enabled": True,
    "type": "STANDARD",
    "include_subdirectories": False,
    "image_variations": 1,
    "text_variations": 1,
    "balancing": 1.0,
    "balancing_strategy": "REPEATS",
    "loss_weight": 1.0,
    "concept_stats": {},
}
SEED = "has no effect: everything random follows --seed."


def concept(path, image=(), text=(), **changes):
    made = copy.deepcopy(CONCEPT) | {"path": str(path)} | changes
    made["image"] |= dict(image)
    made["text"] |= dict(text)
    return made


@pytest.fixture
def root(tmp_path):
    write(tmp_path, {"dog/a.png": "a dog, red, blue\na second caption", "dog/b_1.png": None, "dog/below/c.png": "deep"})
    write(tmp_path, {"dog/a-masklabel.png": None, "cat/1.png": "a cat", "cat/2.png": "cats", "cat/3.png": "kitten"})
    (tmp_path / "prompts.txt").write_text("one of many\n\nanother\n")
    return tmp_path


def file(root, *concepts):
    (root / "concepts.json").write_text(json.dumps(concepts))
    return root / "concepts.json"


def test_a_concept_as_it_is(root):
    pictures = opened(file(root, concept(root / "dog")))
    assert captions(pictures) == {"dog/a.png": ["a dog, red, blue", "a second caption"]}
    assert pictures.faults == [("dog/b_1.png", "dog/b_1.png has no caption: add one or remove the picture.")]
    assert pictures.repeats is None and pictures.weights is None and pictures.mask_bytes(0)
    assert pictures.notes[:2] == ["1 folder: dog 1.", f"seed (dog) {SEED}"]
    assert settings(pictures, "dog/a.png") == {
        "random_flip": False,
        "caption_lines": "captions",
        "keep_tokens": 1,
        "shuffle_caption": False,
        "caption_separator": ",",
        "folder_repeats": False,
    }


def test_what_concepts_say(root):
    text = {"enable_tag_shuffling": True, "keep_tags_count": 2, "tag_dropout_enable": True, "tag_delimiter": ";"}
    text |= {"tag_dropout_mode": "RANDOM", "tag_dropout_probability": 0.25}
    image = {"enable_random_flip": True, "enable_crop_jitter": False}
    image |= {"enable_resolution_override": True, "resolution_override": "768"}
    first = concept(root / "dog", image, text, name="my dog", include_subdirectories=True, balancing=3.0)
    named = concept(root / "cat", text={"prompt_source": "filename"}, loss_weight=0.5, name="by name")
    same = concept(root / "cat", text={"prompt_source": "concept", "prompt_path": str(root / "prompts.txt")}, name="c")
    unseen = concept(root / "cat", name="unseen", type="VALIDATION")
    old = {"path": str(root / "cat"), "name": "old", "repeats": 2, "validation_concept": True, "text": {}}
    pictures = opened(file(root, first, named, same, unseen, old))
    assert captions(pictures) == {
        "my dog/a.png": ["a dog, red, blue", "a second caption"],
        "my dog/below/c.png": "deep",
        **{f"by name/{n}.png": f"{n}" for n in (1, 2, 3)},
        **{f"c/{n}.png": ["one of many", "another"] for n in (1, 2, 3)},
        **{
            f"{name}/{n}.png": text
            for name in ("unseen", "old")
            for n, text in ((1, "a cat"), (2, "cats"), (3, "kitten"))
        },
    }
    assert pictures.notes[0] == (
        "5 folders: my dog 2 × 3 (768 px), by name 3 (loss weight 0.5), c 3, held out unseen 3, held out old 3."
    )
    told = "Pictures of unseen are held out and trained on too, so that their loss says little."
    assert f"by name: {told}" in pictures.notes and f"my dog: {told}" not in pictures.notes
    assert pictures.weights.tolist() == [1] * 2 + [0.5] * 3 + [1] * 9
    own = pictures.config(0, TrainConfig())
    assert (own.random_flip, own.center_crop, own.uses_buckets(), own.resolution) == (True, True, True, 768)
    assert (own.shuffle_caption, own.keep_tokens, own.caption_tag_dropout_rate) == (True, 2, 0.25)
    assert own.caption_separator == ";"
    _, held = divide(TrainConfig(train_data_dir=str(root / "concepts.json")), pictures)
    assert {name.split("/")[0] for name in held.names} == {"unseen", "old"}


def test_balancing(root):
    def repeats(**changes):
        pictures = opened(file(root, concept(root / "cat", **changes)))
        return pictures.repeats.tolist(), pictures.notes[0], [note for note in pictures.notes if "fewer" in note]

    assert repeats(balancing=2.5) == ([3, 2, 2], "1 folder: cat 3 (7 an epoch).", [])
    assert repeats(balancing=10, balancing_strategy="SAMPLES") == ([4, 3, 3], "1 folder: cat 3 (10 an epoch).", [])
    pictures = opened(file(root, concept(root / "cat", balancing=0.5)))
    assert pictures.repeats is None
    assert "cat: 1 picture an epoch is fewer than its 3, each of which is seen once instead." in pictures.notes


def test_what_cannot_be_honoured_is_said(root):
    image = {"enable_random_rotate": True, "enable_random_hue": True, "enable_fixed_flip": True}
    image |= {"random_rotate_max_angle": 5.0, "enable_resolution_override": True, "resolution_override": "512, 768"}
    text = {"caps_randomize_enable": True, "tag_dropout_enable": True, "tag_dropout_probability": 0.1}
    text |= {"tag_dropout_special_tags_mode": "WHITELIST"}
    shy = concept(root / "dog", name="dog", image_variations=4, other=1, image=image, text=text)
    off = concept(root / "gone", name="off", enabled=False)
    prior = concept(root / "cat", name="prior", type="PRIOR_PREDICTION")
    none = concept(root / "cat", name="none", balancing=0)
    pictures = opened(file(root, shy, off, prior, none))
    assert settings(pictures, "dog/a.png")["resolution"] == 512
    assert pictures.notes[1:14] == [
        "Concept off is left out, because it is not enabled.",
        "Concept prior (PRIOR_PREDICTION) is left out: class pictures are given with --with_prior_preservation "
        f"--class_data_dir {root}/cat.",
        "Concept none is left out, because its balancing is 0.",
        f"seed (dog, none) {SEED}",
        "image_variations (dog) has no effect: --cached_variants keeps several crops of each picture.",
        "enable_fixed_flip (dog) has no effect: pictures are mirrored at random or not at all.",
        "enable_random_rotate (dog) has no effect: pictures are never rotated.",
        "enable_random_hue (dog) has no effect: colours are never changed.",
        "tag_dropout_special_tags_mode (dog) has no effect: all tags after the first keep_tags_count may be dropped.",
        "caps_randomize_enable (dog) has no effect: captions keep their capitals.",
        "resolution_override (dog) has effect in part: of several resolutions the first is used.",
        "tag_dropout_mode (dog) has effect in part: tags are dropped one by one, each with the same chance.",
        "other (dog): not known, and without effect.",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"path": ""}, "concept x of concepts.json has no path: choose its folder, or disable it."),
        ({"path": "gone"}, "concepts.json, folder x: There is no folder {root}/gone: correct its path."),
        ({"type": "TEST"}, "type of concept x of concepts.json is 'TEST', which is not known: give STANDARD or"),
        ({"balancing": "two"}, "balancing of concept x of concepts.json must be a number, not 'two': correct it."),
        ({"balancing": -1}, "balancing of concept x of concepts.json must be at least 0, not -1: correct it."),
        ({"balancing_strategy": "X"}, "balancing_strategy of concept x of concepts.json is 'X': give REPEATS or"),
        ({"text": {"prompt_source": "sky"}}, "prompt_source of concept x of concepts.json is 'sky': give sample,"),
        (
            {"text": {"prompt_source": "concept", "prompt_path": "no.txt"}},
            "concept x of concepts.json takes its captions from prompt_path 'no.txt', which is no file: correct it.",
        ),
        (
            {"image": {"enable_resolution_override": True, "resolution_override": "big"}},
            "resolution_override of concept x of concepts.json is 'big': give one number, the side in pixels.",
        ),
        (
            {"image": {"enable_resolution_override": True, "resolution_override": "500"}},
            "concepts.json, folder x: resolution must be a multiple of 8, not 500: use 496 or 504.",
        ),
        ({"image": 3}, "image of concept x of concepts.json must be a group, not 3: correct it."),
        ({"enabled": False}, "concepts.json leaves no folder to train on (Concept x is left out, because it is"),
        ({"path": "{root}/empty"}, "concepts.json, folder x: {root}/empty holds no pictures"),
    ],
)
def test_what_is_wrong_is_one_sentence(root, changes, sentence):
    (root / "empty").mkdir()
    changes = {key: each.format(root=root) if isinstance(each, str) else each for key, each in changes.items()}
    with pytest.raises(DataError) as caught:
        opened(file(root, {**concept(root / "cat", name="x"), **changes}))
    assert str(caught.value).startswith(sentence.format(root=root))


def test_the_whole_configuration(root):
    (root / "config.json").write_text(json.dumps({"concepts": [concept(root / "cat")], "concept_file_name": "x"}))
    assert len(opened(root / "config.json")) == 3
    (root / "config.json").write_text(json.dumps({"concept_file_name": "training_concepts/concepts.json"}))
    with pytest.raises(
        DataError, match=r"config\.json is OneTrainer's configuration, whose pictures its concepts\.json"
    ):
        opened(root / "config.json")
