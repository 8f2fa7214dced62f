"""Merging and resizing, against sums that are built in full; and the commands that call them."""

import subprocess
import sys

import pytest
import torch
from test_lora import add_lora, make_models

from sdxl_nb.lora.changes.arithmetic import merge, resize
from sdxl_nb.lora.command import main
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import collect, delta
from sdxl_nb.system.errors import ModelError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair():
    models = make_models(text=False)
    add_lora(models, "all", lora_alpha=8, seed=1)
    one = collect(**models)
    add_lora(models, "attention", adapter="two", seed=2, r=2, lora_alpha=2)
    return one, collect(**models, adapter_name="two")


@pytest.fixture(scope="module")
def files(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return [
        save_lora(lora, folder / name, name, {"modelspec.title": name})[1]
        for lora, name in zip(pair, "ab", strict=True)
    ]


def test_a_merge_of_full_rank_is_the_weighted_sum(pair):
    one, two = pair
    merged = merge([(one, 0.5), (two, -2.0)], rank=6)
    assert merged.kept == pytest.approx(1, abs=1e-12) and merged.weights.layers.keys() == one.layers.keys()
    for path, layer in merged.weights.layers.items():
        expected = 0.5 * delta(one.layers[path])
        if path in two.layers:
            expected = expected - 2 * delta(two.layers[path])
        torch.testing.assert_close(delta(layer), expected, atol=1e-6, rtol=1e-5)


def test_a_lower_rank_is_the_best_one_and_says_what_it_kept(pair):
    reduced = resize(pair[0], 2)
    for path, layer in reduced.weights.layers.items():
        full = delta(pair[0].layers[path]).flatten(1).double()
        values = torch.linalg.svdvals(full)
        assert layer.rank == 2
        lost = (full - delta(layer).flatten(1)).square().sum()
        torch.testing.assert_close(lost, values[2:].square().sum(), atol=1e-6, rtol=1e-4)
        assert reduced.kept_by_module[path] == pytest.approx(1 - float(lost / full.square().sum()), abs=1e-5)
    assert 0.5 < reduced.kept < 1
    assert resize(pair[1], 4).weights.layers == pair[1].layers


def test_what_cannot_be_merged_is_a_sentence(pair):
    with pytest.raises(ModelError, match="rank of 1 or more"):
        merge([(pair[0], 1.0)], 0)
    models = make_models(text=False)
    add_lora(models, use_dora=True)
    with pytest.raises(ModelError, match="is a DoRA layer"):
        resize(collect(**models), 2)


def test_commands(files, pair, tmp_path, capsys):
    assert main(["check", str(files[0])]) == 0
    assert "base model" in capsys.readouterr().out
    assert main(["info", str(files[0])]) == 0
    assert "158 unet" in capsys.readouterr().out
    goal = tmp_path / "converted.safetensors"
    assert main(["convert", str(files[0]), str(goal), "--to", "diffusers"]) == 0
    assert LoraFile(goal).info().naming == "diffusers" and LoraFile(goal).metadata["modelspec.title"] == "a"
    assert all(torch.equal(layer.up, pair[0].layers[path].up) for path, layer in read_lora(goal).layers.items())
    small = tmp_path / "small.safetensors"
    assert main(["resize", str(files[0]), str(small), "--rank", "1", "--dtype", "float16"]) == 0
    assert LoraFile(small).info().ranks == (1,) and "kept " in capsys.readouterr().out
    both = tmp_path / "both.safetensors"
    assert main(["merge", f"{files[0]}=0.5", str(files[1]), "--rank", "6", "--output", str(both)]) == 0
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    expected = 0.5 * delta(pair[0].layers[path]) + delta(pair[1].layers[path])
    torch.testing.assert_close(delta(read_lora(both).layers[path]), expected, atol=1e-6, rtol=1e-5)
    assert main(["convert", str(files[0]), str(tmp_path / "x.ckpt")]) == 2
    assert main(["info", str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_alpha_is_folded_for_readers_that_ignore_it(files, pair, tmp_path):
    goal = tmp_path / "folded.safetensors"
    assert main(["convert", str(files[0]), str(goal), "--fold_alpha"]) == 0
    folded = read_lora(goal)
    assert pair[0].layers.keys() == folded.layers.keys()
    for path, layer in folded.layers.items():
        assert (layer.alpha, layer.rank) == (4.0, 4) and torch.equal(layer.down, pair[0].layers[path].down)
        assert torch.equal(layer.up, 2 * pair[0].layers[path].up)  # its alpha was 8
    assert LoraFile(goal).info().alphas == (4.0,)
    said = [note for note in LoraFile(files[0]).check().notes if "--fold_alpha" in note]
    assert len(said) == 1 and not [note for note in LoraFile(goal).check().notes if "--fold_alpha" in note]


def test_the_module_is_a_command(files):
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "sdxl_nb.lora", "info", str(files[0])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "rank           4" in result.stdout, result.stderr
