"""What a single file lacks comes with the package: SDXL's configurations, and CLIP's tokenizers, held to open_clip."""

import json
from pathlib import Path

import pytest

from sdxl_nb.models import architectures
from sdxl_nb.models.loading import CLASSES
from sdxl_nb.models.sources import checkpoint_configs
from sdxl_nb.system.errors import ModelError

FOLDER = checkpoint_configs()
RECORDED = json.loads(Path(__file__).with_name("clip_tokens.json").read_text("utf-8"))  # by open_clip's SimpleTokenizer
START, END = 49406, 49407


@pytest.fixture(scope="module")
def tokenizers():
    from transformers import CLIPTokenizer

    return [CLIPTokenizer.from_pretrained(FOLDER, subfolder=name) for name in ("tokenizer", "tokenizer_2")]


def test_both_tokenizers_are_clips(tokenizers):
    assert len(RECORDED) == 114
    for text, numbers in RECORDED:
        for tokenizer in tokenizers[: 1 if "!" in text else 2]:  # the second one's padding, which it takes for itself
            assert tokenizer(text, verbose=False).input_ids == [START, *numbers, END], text


def test_they_differ_in_what_fills_up(tokenizers):
    filled = [tokenizer("cat", padding="max_length").input_ids for tokenizer in tokenizers]
    assert filled == [[START, 2368, END] + [pad] * 74 for pad in (END, 0)]
    assert [tokenizer.model_max_length for tokenizer in tokenizers] == [77, 77]


def test_every_part_has_its_configuration():
    index = json.loads((FOLDER / "model_index.json").read_text())
    for part in CLASSES:
        name = "tokenizer_config" if part.startswith("tokenizer") else "config"
        assert json.loads((FOLDER / part / f"{name}.json").read_text())
        assert index[part] == list(CLASSES[part])


def test_the_unet_is_sdxls():
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(FOLDER, subfolder="unet")
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(config)
    assert sum(p.numel() for p in unet.parameters()) == 2_567_463_684
    assert {name: json.loads((FOLDER / "unet/config.json").read_text())[name] for name in architectures.UNET} == (
        architectures.UNET
    )


def test_nothing_is_fetched(monkeypatch, tmp_path):
    import huggingface_hub

    def never(*given, **options):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", never)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", never)
    from sdxl_nb.models.objective.base_objective import of
    from sdxl_nb.models.sources import Source

    with pytest.raises(ModelError, match=r"none\.safetensors does not exist"):
        of(Source(str(tmp_path / "none.safetensors")))
    assert Source("some.safetensors").config("vae/config.json")["scaling_factor"] == 0.13025
