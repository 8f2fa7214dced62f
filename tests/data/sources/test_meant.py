"""A folder is what the person meant: layouts as programs write them, with what is used and what is said of the rest."""

import json
from pathlib import Path

import pytest
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.sources.listing import Texts
from sdxl_nb.system.errors import DataError


def write(root: Path, *names: str) -> None:
    """Files by name: pictures, texts (what follows "="), other files of a few bytes."""
    for told in names:
        name, _, text = told.partition("=")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg"):
            Image.new("RGB", (8, 8), "red").save(path, "PNG")
        else:
            path.write_text(text or "{}")


def opened(root, **settings):
    return open_dataset(TrainConfig(train_data_dir=str(root), **settings))


def left_out(pictures):
    """What is said of pictures that are not trained on."""
    return [str(note) for note in pictures.notes if getattr(note, "kind", "") in ("not_training_pictures", "beside")]


RUN = ("run/run.json", "run/config.json", "run/events.jsonl", "run/checkpoint-2/state.json")
DRAWN = ("run/validation/step-1/00-0.png", "run/validation/step-2/00-0.png")
SET = ("a.png", "a.txt=an apple", "b.png", "b.txt=a pear")
TO_USE = " A caption of its own makes a picture one of the set."

# what lies beside two captioned pictures -> (its files, what is said of them)
BESIDE = {
    "a run": ((*RUN, *DRAWN, "run/README.md"), "2 pictures in the folder not trained on: a run's own 2 (run/)."),
    "a run in the folder itself": (
        ("run.json", "config.json", "events.jsonl", "validation/step-1/00-0.png", "checkpoint-3/state.json"),
        "1 picture in the folder not trained on: a run's own 1 (validation/step-1/).",
    ),
    "a run that was cut off": (
        ("x/config.json", "x/events.jsonl", "x/validation/step-4/01-7.png"),
        "1 picture in the folder not trained on: a run's own 1 (x/).",
    ),
    "a LoRA of diffusers' script": (
        ("out/pytorch_lora_weights.safetensors", "out/image_0.png", "out/image_1.png"),
        "2 pictures in the folder not trained on: a run's own 2 (out/).",
    ),
    "class pictures": (
        ("class/class_pictures.json", "class/class-000000.png", "class/class-000001.png"),
        "2 pictures in the folder not trained on: drawn for a class 2 (class/).",
    ),
    "class pictures in the folder itself": (
        ("class_pictures.json", "class-000000.png", "class-000001.png"),
        "2 pictures in the folder not trained on: drawn for a class 2 (class-000000.png, class-000001.png).",
    ),
    "OneTrainer's masks": (
        ("a-masklabel.png", "b-masklabel.png", "b-condlabel.png"),
        "3 pictures in the folder not trained on: masks 2 (a-masklabel.png, b-masklabel.png), conditioning pictures 1 "
        "(b-condlabel.png).",
    ),
    "a mask with a caption by a captioner": (
        ("a-masklabel.png", "a-masklabel.txt=black and white"),
        "1 picture in the folder not trained on: masks 1 (a-masklabel.png).",
    ),
    "masks by name": (
        ("a_mask.png", "b.mask.png"),
        f"2 pictures in the folder not trained on: masks 2 (a_mask.png, b.mask.png).{TO_USE}",
    ),
    "a folder of masks": (
        ("masks/a.png", "masks/B.png", "masks/gone.png"),
        f"3 pictures in the folder not trained on: masks 3 (masks/B.png, masks/a.png, masks/gone.png).{TO_USE}",
    ),
    "conditioning pictures": (
        ("conditioning_images/a.jpg", "conditioning_images/b.jpg"),
        "2 pictures in the folder not trained on: conditioning pictures 2 (conditioning_images/a.jpg, "
        f"conditioning_images/b.jpg).{TO_USE}",
    ),
    "samples of kohya": (
        ("sample/lora_e000001_00_20240101.png", "sample/prompt.txt=a dog"),
        f"1 picture in the folder not trained on: samples 1 (sample/lora_e000001_00_20240101.png).{TO_USE}",
    ),
    "thumbnails": (
        (".thumbnails/a.png", "@eaDir/a.png", "thumbs/a.jpg", "b_thumb.jpg", "Thumbs.db"),
        "4 pictures in the folder not trained on: hidden 1 (.thumbnails/), kept by a system 1 (@eaDir/), thumbnails 2 "
        f"(b_thumb.jpg, thumbs/a.jpg).{TO_USE}",
    ),
    "caches": (
        ("a.npz", "_latent_cache/a.safetensors", "_latent_cache/x.png", "cache/x.png"),
        "2 pictures in the folder not trained on: caches 2 (_latent_cache/, cache/x.png)." + TO_USE,
    ),
    "previews of models": (
        ("lora.safetensors", "lora.preview.png", "lora.png"),
        f"2 pictures in the folder not trained on: previews of models 2 (lora.png, lora.preview.png).{TO_USE}",
    ),
    "what macOS leaves": (
        ("__MACOSX/a.png", "._a.png", ".DS_Store"),
        "2 pictures in the folder not trained on: hidden 1 (._a.png), kept by a system 1 (__MACOSX/).",
    ),
    "a Python environment": (
        ("env/pyvenv.cfg", "env/lib/matplotlib/home.png"),
        "1 picture in the folder not trained on: kept by a system 1 (env/).",
    ),
    "regularisation pictures": (
        ("reg/1_dog/x.png",),
        "1 picture in the folder not trained on: regularisation pictures 1 (reg/1_dog/x.png). Give regularisation "
        f"pictures as --class_data_dir.{TO_USE}",
    ),
}


@pytest.mark.parametrize("case", BESIDE)
@pytest.mark.parametrize("word", [None, "sks"])
def test_beside_two_captioned_pictures(case, word, tmp_path):
    files, sentence = BESIDE[case]
    write(tmp_path, *SET, *files)
    pictures = opened(tmp_path, trigger_word=word)
    assert pictures.names == ["a.png", "b.png"]
    assert pictures.written == ["an apple", "a pear"] and not pictures.faults
    assert left_out(pictures) == [sentence]


# names that programs use, given by a person to pictures of the set -> (files, names that are trained on)
MEANT = {
    "a mask with a caption": ((*SET, "a_mask.png", "a_mask.txt=a carnival mask"), ["a.png", "a_mask.png", "b.png"]),
    "a folder of masks as a subject": (("masks/x.png", "masks/y.png"), ["masks/x.png", "masks/y.png"]),
    "masks without pictures of their names": ((*SET, "masks/x.png"), ["a.png", "b.png", "masks/x.png"]),
    "nothing but samples": (("samples/x.png",), ["samples/x.png"]),
    "captioned samples": ((*SET, "samples/x.png", "samples/x.txt=x"), ["a.png", "b.png", "samples/x.png"]),
    "a folder called validation": ((*SET, "validation/x.png"), ["a.png", "b.png", "validation/x.png"]),
    "a checkpoint of pictures": ((*SET, "checkpoint-3/x.png"), ["a.png", "b.png", "checkpoint-3/x.png"]),
    "class-1.png without a record": ((*SET, "class-000001.png"), ["a.png", "b.png", "class-000001.png"]),
    "a mask of nothing": ((*SET, "gas_mask.png"), ["a.png", "b.png", "gas_mask.png"]),
    "a folder of masks that metadata names": (
        ("a.png", "masks/a.png", 'metadata.jsonl={"file_name": "masks/a.png", "text": "x"}'),
        ["masks/a.png"],
    ),
}


@pytest.mark.parametrize("case", MEANT)
def test_a_name_alone_takes_nothing_away(case, tmp_path):
    files, names = MEANT[case]
    write(tmp_path, *files)
    pictures = opened(tmp_path, trigger_word="sks")
    assert sorted(pictures.names) == names and left_out(pictures) == []


def test_masks_are_known_to_the_listing(tmp_path):
    write(tmp_path, *SET, "a-masklabel.png", "10_dog/c.png", "10_dog/d.png", "masks/10_dog/c.png", "masks/d.png")
    pictures = opened(tmp_path, trigger_word="sks")
    masks = dict(zip(pictures.names, Texts(pictures.listing.masks), strict=True))
    of = {"a.png": "a-masklabel.png", "10_dog/c.png": "masks/10_dog/c.png", "10_dog/d.png": "masks/d.png"}
    assert masks == {name: str(tmp_path / of[name]) if name in of else None for name in pictures.names}
    some = pictures[1:].compact()
    assert Texts(some.masks) == list(masks.values())[1:]
    both = pictures.with_class(opened(tmp_path / "10_dog", trigger_word="sks")).compact()
    assert Texts(both.masks) == [*masks.values(), None, None]


def test_folders_of_the_configuration_are_never_trained_on(tmp_path):
    held = {"held/x.png", "held/x.txt=x", "held/y.png", "held/y.txt=y"}
    write(tmp_path, *SET, *held, "out/tried.png", "class/mine.png", "class/mine.txt=mine")
    own = {"output_dir": "out", "validation_data_dir": "held"}
    prior = {"with_prior_preservation": True, "class_prompt": "a dog", "class_data_dir": str(tmp_path / "class")}
    pictures = opened(tmp_path, **{name: str(tmp_path / place) for name, place in own.items()}, **prior)
    assert pictures.names == ["a.png", "b.png"]
    assert left_out(pictures) == [
        "4 pictures in the folder not trained on: drawn for a class 1 (class/), held out 2 (held/), a run's own 1 "
        "(out/)."
    ]
    assert opened(tmp_path / "held", output_dir=str(tmp_path)).names == ["x.png", "y.png"]


def test_metadata_brings_nothing_back_that_is_held_out(tmp_path):
    rows = [{"file_name": name, "text": name} for name in ("a.png", "held/x.png", "run/validation/step-1/00-0.png")]
    write(tmp_path, "a.png", "held/x.png", *RUN, *DRAWN)
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pictures = opened(tmp_path, validation_data_dir=str(tmp_path / "held"))
    assert pictures.names == ["a.png"]
    assert left_out(pictures)[0] == (
        "2 pictures named in metadata files (held/x.png, run/validation/step-1/00-0.png) but never trained on: "
        "held out, a run's own."
    )


def test_a_run_inside_the_folder_changes_no_data(tmp_path):
    """Four pictures, then eight, then twelve: what a run draws into its folder would keep it from being resumed."""
    write(tmp_path, *SET)
    settings = {"output_dir": str(tmp_path / "run"), "trigger_word": "sks"}
    before = list(opened(tmp_path, **settings).names)
    write(tmp_path, *RUN, *DRAWN)
    assert opened(tmp_path, **settings).names == opened(tmp_path, trigger_word="sks").names == before


def test_a_folder_of_nothing_to_train_on_says_why(tmp_path):
    write(tmp_path, *RUN, *DRAWN)
    with pytest.raises(DataError) as caught:
        opened(tmp_path, trigger_word="sks")
    assert str(caught.value) == (
        f"{tmp_path} holds no pictures (.jpg, .jpeg, .jfif, .png, .webp, .gif, .bmp, .tif, .tiff, .avif); 2 pictures "
        "in the folder not trained on: a run's own 2 (run/): check --train_data_dir."
    )


# layouts of which one folder is meant -> (files, names, what is said)
CHOSEN = {
    "kohya's project": (
        ("img/10_sks dog/a.png", "reg/1_dog/r.png", "log/x.log", "model/l.safetensors", "model/sample/s.png"),
        ["10_sks dog/a.png"],
        "The pictures of img/ are used, 2 pictures beside it not (model/, reg/).",
    ),
    "kohya's project and a stray picture": (
        ("img/10_sks dog/a.png", "img/loose.png", "log/x.log", "cover.png"),
        ["10_sks dog/a.png", "loose.png"],
        "The pictures of img/ are used, 1 picture beside it not (cover.png).",
    ),
    "splits": (
        ("train/a.png", "test/x.png", "val/y.png", "README.md"),
        ["a.png"],
        "The pictures of train/ are used, 2 pictures beside it not (test/, val/).",
    ),
    "splits and a picture for the page": (
        ("Train/a.png", "Test/x.png", "thumbnail.png", "docs/readme.md"),
        ["a.png"],
        "The pictures of Train/ are used, 2 pictures beside it not (Test/, thumbnail.png).",
    ),
    "splits and a run": (
        ("train/a.png", "valid/x.png", *RUN, *DRAWN),
        ["a.png"],
        "The pictures of train/ are used, 3 pictures beside it not (run/, valid/).",
    ),
    "a folder called train among others": (
        ("train/a.png", "boats/x.png"),
        ["boats/x.png", "train/a.png"],
        None,
    ),
    "a folder called train beside pictures": (("train/a.png", "x.png"), ["train/a.png", "x.png"], None),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_the_folder_that_is_meant(case, tmp_path):
    files, names, sentence = CHOSEN[case]
    write(tmp_path, *files)
    pictures = opened(tmp_path, trigger_word="sks")
    assert pictures.names == names
    assert left_out(pictures) == ([sentence] if sentence else [])
