"""What differs between two LoRAs, block by block, against changes built in full; the table and the picture."""

import pytest
import torch
from test_factored import add
from test_lora import add_lora, make_models

from sdxl_nb.lora import difference
from sdxl_nb.lora.base import SDXL
from sdxl_nb.lora.changes.difference import block_of
from sdxl_nb.lora.command import main
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import LoraWeights, collect, delta
from sdxl_nb.lora.names import SDXL as LAYOUT
from sdxl_nb.system.errors import ModelError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair():
    models = make_models()
    add_lora(models, "attention", seed=1)
    one = collect(**models)
    other = LoraWeights({path: layer for path, layer in one.layers.items() if "mid_block" not in path}, one.base)
    for path, layer in other.layers.items():
        if "up_blocks" in path:
            other.layers[path] = layer.scaled(-1)
    return one, other


def test_a_block_is_the_norm_of_the_changes_in_it(pair):
    one, other = pair
    found = difference(one, other)
    assert [block.name for block in found.blocks] == [
        "text encoder 1", "text encoder 2", "in 3", "in 5", "mid", "out 0", "out 1", "out 2", "out 3",
    ]  # fmt: skip
    for block in found.blocks:
        paths = [path for path in one.layers if block_of(path, one.base.layout) == block.name]
        norm = sum(float(delta(one.layers[path]).square().sum()) for path in paths) ** 0.5
        assert block.first == pytest.approx(norm, rel=1e-5)
        relative = {"mid": 1.0, "out": 2.0}.get(block.name.partition(" ")[0], 0.0)
        assert block.relative == pytest.approx(relative, abs=1e-9)
        counts = (0, len(paths), 0) if block.name == "mid" else (len(paths), 0, 0)
        assert (block.both, block.first_alone, block.second_alone) == counts
    assert found.whole.both == len(other.layers) and found.whole.first_alone == len(one.layers) - len(other.layers)


def test_kinds_are_compared_by_what_they_change():
    models = make_models(text=False)
    add({"unet": models["unet"]}, "lokr")
    one = collect(**models)
    assert difference(one, one).whole.difference == 0
    add_lora(models, "attention", adapter="two")
    found = difference(one, collect(**models, adapter_name="two"))
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    alone = [LoraWeights({path: lora.layers[path]}, one.base) for lora in (one, collect(**models, adapter_name="two"))]
    expected = (delta(alone[0].layers[path]) - delta(alone[1].layers[path])).norm()
    assert difference(*alone).whole.difference == pytest.approx(float(expected), rel=1e-5)
    assert found.whole.first_alone == 158 - 80


def test_the_command_prints_a_table_and_draws_a_bar_for_each_block(pair, tmp_path, capsys):
    files = [str(save_lora(lora, tmp_path / name, name)[1]) for lora, name in zip(pair, "ab", strict=True)]
    assert main(["diff", *files, "--picture", str(tmp_path / "blocks.png")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "1st a.safetensors, 2nd b.safetensors" and said[-1] == "wrote blocks.png"
    assert [line.split()[-1] for line in said if line.strip().startswith("mid")] == ["1"]
    assert (tmp_path / "blocks.png").read_bytes().startswith(b"\x89PNG")
    found = difference(*pair, ("a<b>", "b"))
    bars = found.figure().axes[0].patches
    assert [bar.get_height() for bar in bars] == [block.relative for block in found.blocks]
    assert "a&lt;b&gt;" in found._repr_html_() and found._repr_html_().count("<tr>") == len(found.blocks) + 2


def test_what_cannot_be_compared_is_one_sentence(pair):
    models = make_models(text=False)
    add_lora(models, use_dora=True)
    with pytest.raises(ModelError, match="convert --plain --base makes a plain LoRA"):
        difference(collect(**models), pair[0])
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = pair[0].layers[path]
    wide = LoraWeights({path: type(layer)(torch.ones(4, 99), layer.up, 4.0)}, pair[0].base)
    with pytest.raises(ModelError, match="different widths"):
        difference(pair[0], wide)
    with pytest.raises(ModelError, match="different base models"):
        difference(pair[0], LoraWeights(dict(pair[0].layers), SDXL))


def test_blocks_are_those_of_lora_block_weights():
    for path, block in {
        "unet.conv_in": "in 0",
        "unet.down_blocks.2.attentions.1.proj_in": "in 8",
        "unet.mid_block.resnets.1.conv1": "mid",
        "unet.up_blocks.0.upsamplers.0.conv": "out 2",
        "unet.time_embedding.linear_1": "outside",
        "text_encoder_2.text_projection": "text encoder 2",
    }.items():
        assert block_of(path, LAYOUT) == block
