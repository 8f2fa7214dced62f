"""Captions from files to training: lines, prefix and suffix, clean tags, what pictures and JSON files carry."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdxl_nb.audit.inspection import audit_dataset
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.captions import dressed, varied
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.editing import save_caption
from sdxl_nb.data.sources.folders import folders
from sdxl_nb.system.errors import DataError

KEPT = Path(__file__).parent / "captions"
SAID = "A black cat – “Mia” – sleeps on a café chair."


def folder(place, texts):
    place.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(place / f"{number}.png")
        if text is not None:
            (place / f"{number}.txt").write_text(text)
    return place


def opened(place, **settings):
    return open_dataset(TrainConfig(seed=0, train_data_dir=str(place), **settings))


def test_tags_of_gallery_dl_are_tags_and_can_be_shuffled(tmp_path):
    place = folder(tmp_path / "a", ["1girl\nsolo\nlong_hair\n", "cat\nhat\n"])
    found = opened(place)
    assert found.captions == ["1girl, solo, long_hair", "cat, hat"] and found.further is None
    assert any("each line is a tag" in note for note in found.notes)
    config = TrainConfig(seed=0, shuffle_caption=True)
    orders = {varied(found.captions[0], config, np.random.default_rng(seed)) for seed in range(40)}
    assert len(orders) == 6


def test_lines_that_are_captions_are_several(tmp_path):
    place = folder(tmp_path / "a", ["A cat sleeps here.\nA black cat is asleep.\n", "A dog."])
    found = opened(place, trigger_word="zwx")
    assert found.captions == ["zwx, A cat sleeps here.", "zwx, A dog."]
    assert found.alternatives(0) == ["zwx, A cat sleeps here.", "zwx, A black cat is asleep."]
    assert opened(place, caption_lines="join").captions[0] == "A cat sleeps here. A black cat is asleep."
    assert opened(place, caption_choice="first").further is None


def test_prefix_and_suffix_are_around_every_caption_and_stay_there(tmp_path):
    place = folder(tmp_path / "a", ["red, blue, green", "", None])
    ends = {"caption_prefix": "photo of", "caption_suffix": "35 mm, grain"}
    found = opened(place, trigger_word="zwx", **ends)
    assert found.captions == [f"photo of zwx{more} 35 mm, grain" for more in (", red, blue, green", "", "")]
    assert found.written == ["red, blue, green", "", None]
    config = TrainConfig(seed=0, shuffle_caption=True, trigger_word="zwx", caption_tag_dropout_rate=0.3, **ends)
    seen = [varied(found.captions[0], config, np.random.default_rng(seed)) for seed in range(30)]
    assert (
        all(text.startswith("photo of zwx") and text.endswith(" 35 mm, grain") for text in seen) and len(set(seen)) > 5
    )
    dropped = config.replace(caption_tag_dropout_rate=1.0, trigger_word=None)
    assert varied("photo of red, blue 35 mm, grain", dropped, np.random.default_rng(0)) == "photo of 35 mm, grain"
    assert varied("photo of 35 mm, grain", dropped, np.random.default_rng(0)) == "photo of 35 mm, grain"


def test_a_trigger_word_in_the_prefix_is_not_doubled():
    config = TrainConfig(seed=0, trigger_word="zwx", caption_prefix="a photo of zwx,")
    assert dressed("red", config, "zwx") == "a photo of zwx, red" and dressed(None, config, None) is None
    assert dressed(None, config.replace(caption_prefix="a photo of"), "zwx") == "a photo of zwx"


def test_tags_are_cleaned_on_request(tmp_path):
    place = folder(tmp_path / "a", ["hatsune_miku_\\(vocaloid\\), ^_^, score_9, my_style"])
    assert opened(place).captions[0] == "hatsune_miku_\\(vocaloid\\), ^_^, score_9, my_style"
    clean = opened(place, clean_tags=True, trigger_word="my_style")
    assert clean.captions[0] == "hatsune miku (vocaloid), ^_^, score_9, my_style"
    assert clean.written[0] == "hatsune_miku_\\(vocaloid\\), ^_^, score_9, my_style"


def carrying(place):
    place.mkdir()
    for name in ("xmp.jpg", "iptc.jpg", "parameters.png", "camera.jpg"):
        shutil.copy(KEPT / name, place / name)
    return place


def test_captions_inside_pictures_are_hinted_at_and_read_on_request(tmp_path):
    place = carrying(tmp_path / "a")
    with pytest.raises(DataError, match=r"3 of 4 pictures without a caption carry .*--caption_source picture"):
        opened(place)
    found = opened(place, caption_source="picture")
    assert dict(zip(found.names, found.captions, strict=True)) == {
        "iptc.jpg": SAID,
        "parameters.png": "a lighthouse at night, (stars:1.2)",
        "xmp.jpg": SAID,
    }
    assert found.faults.names == ["camera.jpg"] and any("XMP description: 1" in note for note in found.notes)
    assert any("--caption_source picture" in note for note in opened(place, trigger_word="zwx").notes)


def test_json_beside_pictures_is_hinted_at_and_read_on_request(tmp_path):
    place = folder(tmp_path / "a", [None, None, "kept"])
    (place / "0.json").write_text(json.dumps({"tag_string": "1girl long_hair"}))
    (place / "1.png.json").write_text(json.dumps({"captions": ["a cat", "Mia asleep"]}))
    hint = next(note for note in opened(place).notes if "JSON" in note)
    assert "2 of 2 pictures" in hint and "--caption_source json" in hint
    found = opened(place, caption_source="json", clean_tags=True)
    assert found.captions == ["1girl, long hair", "a cat", "kept"]
    assert found.alternatives(1) == ["a cat", "Mia asleep"]


def test_new_settings_at_their_defaults_are_no_part_of_a_run():
    names = ("caption_source", "caption_lines", "caption_prefix", "caption_suffix", "clean_tags")
    plain = TrainConfig(seed=0)
    assert not set(names) & set(plain.identity())
    changed = plain.replace(caption_lines="join", caption_prefix="a", clean_tags=True)
    assert changed.fingerprint() != plain.fingerprint()
    assert set(changed.differences(plain)) == {"caption_lines", "caption_prefix", "clean_tags"}


def test_an_edited_caption_leaves_the_others_of_its_file(tmp_path):
    place = folder(tmp_path / "a", ["A cat sleeps here.\nA black cat is asleep.\n", "1girl\nsolo\n"])
    config = TrainConfig(seed=0, train_data_dir=str(place))
    save_caption(config, "0.png", "Mia sleeps.")
    save_caption(config, "1.png", "1girl, hat")
    assert (place / "0.txt").read_text() == "Mia sleeps.\nA black cat is asleep.\n"
    assert (place / "1.txt").read_text() == "1girl, hat\n"


def test_glued_lines_do_not_pass(tmp_path, monkeypatch):
    """The fault of case 18 put back: then the tests above fail."""
    monkeypatch.setattr(folders, "lined", lambda text: " ".join(text.split()))
    with pytest.raises(AssertionError):
        test_tags_of_gallery_dl_are_tags_and_can_be_shuffled(tmp_path / "tags")
    with pytest.raises(AssertionError):
        test_lines_that_are_captions_are_several(tmp_path / "captions")


def test_the_audit_tells_of_each_fault_of_captions(tmp_path):
    texts = ["a photo of [trigger]", "I'm sorry, I can't help with that.", '{"caption": "a"}', "long_hair, blue_eyes"]
    place = folder(tmp_path / "a", [*texts, "a cat"])
    config = TrainConfig.preset("tiny", train_data_dir=str(place), dataset_name=None, seed=0)
    report = audit_dataset(config, quick=True, progress=False)
    found = {kind: report.files(kind) for kind in ("placeholder", "refusal", "json_in_caption", "booru_tags")}
    expected = {"placeholder": {"0.png"}, "refusal": {"1.png"}, "json_in_caption": {"2.png"}, "booru_tags": {"3.png"}}
    assert found == expected
    (booru,) = (finding for finding in report.findings if finding.kind == "booru_tags")
    assert "--clean_tags" in booru.advice and "tokens instead of" in booru.advice
