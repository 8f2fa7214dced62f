"""The number of trainable parameters, counted without a model: the same as peft's layers have."""

import pytest
from small_runs import small

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora.adapter import add_lora
from sdxl_nb.lora.base import SDXL
from sdxl_nb.lora.sizes import base_of, trainable_parameters
from sdxl_nb.models.loading import load
from sdxl_nb.models.sources import Source

CHANGES = [
    {},
    {"rank": 3, "use_dora": True},
    {"target_modules": "attention"},
    {"lora_kind": "loha", "target_modules": ["to_q", "conv1", "proj_in"]},
    {"lora_kind": "lokr", "lokr_factor": 4, "rank": 2, "target_modules": "all"},
    {"target_modules": "attention+ff", "train_text_encoder": True},
    {"target_modules": ["to_q", "conv1", "q_proj"], "train_text_encoder": True},
    {"target_modules": r".*mid_block.*to_(q|k)", "rank_pattern": {"attn2.to_k": 7}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_as_many_as_peft_makes(changes):
    config = TrainConfig.preset("tiny", **changes)
    source = Source.of(config)
    unet = load(source, "unet")
    encoders = tuple(load(source, name) for name in ("text_encoder", "text_encoder_2"))
    add_lora(config, unet, encoders)
    models = (unet, *encoders)
    made = sum(
        p.numel()
        for model in models
        for n, p in model.named_parameters()
        if any(k in n for k in ("lora_", "hada_", "lokr_"))
    )
    assert trainable_parameters(config) == made > 0


def test_real_sdxl_from_its_shapes():
    config = TrainConfig(rank=4)
    assert base_of(config) is SDXL
    assert trainable_parameters(config) == 5_806_080  # what diffusers' script trains by default, 23 MB in fp32
    assert base_of(small("nowhere")) is not SDXL
