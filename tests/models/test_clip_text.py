"""The text encoders of clip_text.py are transformers' own, bit for bit, and are used wherever their files allow."""

import json

import pytest
import torch
import transformers
from random_sdxl import make_pipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdxl_nb.models.clip_text import ClipTextEncoder, covers
from sdxl_nb.models.loading import load_text_encoder
from sdxl_nb.models.sources import Source

SMALL = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "projection_dim": 24, "num_hidden_layers": 3}
SMALL |= {"num_attention_heads": 4, "max_position_embeddings": 12, "eos_token_id": 49}
KINDS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
IDS = torch.tensor([[1, 7, 49, 49, 49, 49], [3, 3, 9, 12, 4, 49]])
EXACT = {"rtol": 0, "atol": 0} if int(transformers.__version__.split(".")[0]) > 4 else {}  # 4 gives SDPA a mask


def assert_same(found, expected):
    for mine, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)
    if found.text_embeds is not None:
        torch.testing.assert_close(found.text_embeds, expected.text_embeds, **EXACT)


@pytest.mark.parametrize("part", KINDS)
@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu", "eos_token_id": 2, "layer_norm_eps": 1e-3}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_it_is_the_encoder_of_transformers_bit_for_bit(part, changes, dtype):
    torch.manual_seed(0)
    theirs = KINDS[part](CLIPTextConfig(**SMALL | changes)).eval()
    assert covers(theirs.config.to_dict())
    for parameter in theirs.parameters():
        parameter.normal_(std=0.3)
    mine = ClipTextEncoder(theirs.config.to_dict(), part == "text_encoder_2")
    weights = {name.removeprefix("text_model."): value for name, value in theirs.state_dict().items()}
    outer = {name if name.startswith("text_projection") else f"text_model.{name}": weights[name] for name in weights}
    mine.load_state_dict({name: value for name, value in outer.items() if "position_ids" not in name})
    mine, theirs = mine.eval().to(dtype), theirs.to(dtype)
    found = mine(IDS)
    assert_same(found, theirs(IDS, output_hidden_states=True))
    assert (found.text_embeds is None) == (part == "text_encoder") and len(found.hidden_states) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"model_type": "clip"},
        {"hidden_act": "relu"},
        {"eos_token_id": None},
        {"num_attention_heads": 5},
        {"_attn_implementation": "eager"},
        {"quantization_config": {"load_in_8bit": True}},
    ],
)
def test_what_it_does_not_cover_is_known(other):
    config = CLIPTextConfig(**SMALL).to_dict()
    assert covers(config) and not covers(config | other)
    del config["layer_norm_eps"]
    assert not covers(config)


@pytest.mark.parametrize("part", KINDS)
@torch.no_grad()
def test_a_base_gives_it_for_prompts_and_transformers_where_more_is_asked(tmp_path, part):
    make_pipeline().save_pretrained(tmp_path)
    source = Source(str(tmp_path))
    lean, whole = (load_text_encoder(source, part, torch.float32, None, None, each) for each in (False, True))
    assert isinstance(lean, ClipTextEncoder) and isinstance(whole, KINDS[part])
    assert not lean.training and not any(parameter.requires_grad for parameter in lean.parameters())
    assert_same(lean(IDS), whole(IDS, output_hidden_states=True))
    assert load_text_encoder(source, part, torch.bfloat16, None, None, False)(IDS).hidden_states[0].dtype == (
        torch.bfloat16
    )
    stored = load_text_encoder(source, part, torch.bfloat16, "int8", None, False)
    changed = load_text_encoder(source, part, torch.float32, None, lambda name, value: value, False)
    assert isinstance(stored, KINDS[part]) and isinstance(changed, KINDS[part])
    file = tmp_path / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "gelu_new"}))
    assert isinstance(load_text_encoder(source, part, torch.float32, None, None, False), KINDS[part])
