"""The audit of a data file: each picture is judged by what its folder has for itself."""

import json

import pytest
from data_files import write
from PIL import Image

from sdxl_nb.audit.inspection import audit_dataset
from sdxl_nb.config.train_config import TrainConfig


@pytest.fixture
def file(tmp_path):
    write(tmp_path, {"style/a.png": "big_hat, red_coat", "style/b.png": "sks, a cat"}, size=(96, 96))
    write(tmp_path, {"faces/c.png": "a man", "faces/d.png": None}, size=(64, 64))
    Image.effect_noise((64, 64), 90).save(tmp_path / "faces" / "e.png")
    folders = [
        {"path": "style", "resolution": 64, "trigger_word": "sks", "clean_tags": True},
        {"path": "faces", "trigger_word": "zwx", "caption_prefix": "a photo of"},
    ]
    (tmp_path / "data.json").write_text(json.dumps({"folders": folders}))
    return str(tmp_path / "data.json")


def test_each_picture_is_judged_by_its_folder(file):
    config = TrainConfig(train_data_dir=file, pretrained_model_name_or_path="embedded:tiny-sdxl", resolution=128)
    report = audit_dataset(config, progress=False)
    found = {}
    for finding in report.findings:
        found.setdefault(finding.kind, set()).update(finding.files)
    assert found["trigger_word_alone"] == {"faces/d.png", "faces/e.png"}
    assert found["trigger_word"] == {"style/a.png", "faces/c.png", "faces/d.png", "faces/e.png"}
    assert found["too_small"] == {"faces/c.png", "faces/d.png", "faces/e.png"}
    assert "booru_tags" not in found
    assert "2 at 64x64" in report.buckets and "3 at 128x128" in report.buckets
    quick = audit_dataset(config, quick=True, progress=False)
    assert {f.kind for f in quick.findings} >= {"trigger_word_alone", "too_small"}


def test_one_folder_at_two_resolutions_holds_no_copies(file, tmp_path):
    Image.effect_noise((96, 96), 90).save(tmp_path / "style" / "a.png")
    (tmp_path / "style" / "b.png").write_bytes((tmp_path / "style" / "a.png").read_bytes())
    folders = [{"path": "style", "resolution": size} for size in (64, 96)]
    (tmp_path / "data.json").write_text(json.dumps({"folders": folders}))
    config = TrainConfig(train_data_dir=file, pretrained_model_name_or_path="embedded:tiny-sdxl")
    kinds = {finding.kind: set(finding.files) for finding in audit_dataset(config, progress=False).findings}
    assert kinds["exact_duplicate"] == {"style/a.png", "style/b.png"} and "near_duplicate" not in kinds


def test_what_is_held_out_and_trained_on_is_found(file, tmp_path):
    write(tmp_path, {"more/c.png": "a man"}, size=(64, 64))
    (tmp_path / "more" / "c.png").write_bytes((tmp_path / "faces" / "c.png").read_bytes())
    folders = [{"path": "faces", "trigger_word": "zwx"}, {"path": "more", "held_out": True}]
    (tmp_path / "data.json").write_text(json.dumps({"folders": folders}))
    config = TrainConfig(train_data_dir=file, pretrained_model_name_or_path="embedded:tiny-sdxl", resolution=64)
    kinds = {finding.kind: set(finding.files) for finding in audit_dataset(config, progress=False).findings}
    assert kinds["validation_overlap"] == {"faces/c.png"}
