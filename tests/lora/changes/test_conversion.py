"""LoHa, LoKr and DoRA as plain LoRA: the same changes, exactly where there is a rank for them."""

import pytest
from small_runs import home
from test_extraction import distance
from test_factored import add
from test_lora import add_lora, live_modules, make_models

from sdxl_nb.lora import to_lora
from sdxl_nb.lora.changes.cutting import Cut
from sdxl_nb.lora.command import main
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import collect, delta
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ModelError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kind", "most"), [("loha", 4), ("lokr", 16)])
def test_loha_and_lokr_are_exact(tmp_path, capsys, kind, most):
    models = make_models(text=False)
    add({"unet": models["unet"]}, kind)
    weights = collect(**models)
    path = save_lora(weights, tmp_path / "run", "style", {})[1]
    assert main(["convert", str(path), str(tmp_path / "plain.safetensors"), "--plain"]) == 0
    assert "kept 100.00% of the energy" in capsys.readouterr().out
    found = read_lora(tmp_path / "plain.safetensors")
    assert found.algo == "lora" and max(layer.rank for layer in found.layers.values()) <= most
    assert main(["check", str(tmp_path / "plain.safetensors")]) == 0
    for name, layer in weights.layers.items():
        expected = delta(layer).flatten(1)
        assert distance(delta(found.layers[name]), expected) < 1e-5, name


def test_a_dora_is_cut_with_its_base(tmp_path, capsys):
    """The small base's own models carry it; peft's merge is the reference."""
    models = make_models()
    add_lora(models, ["to_q", "conv1"], use_dora=True)
    modules = live_modules(models)
    path = save_lora(collect(**models), tmp_path / "run", "style", {})[1]
    base, goal = str(home()[0] / "base"), tmp_path / "plain.safetensors"
    weights = read_lora(path)
    with pytest.raises(ModelError, match="depends on the base model: give the base too"):
        to_lora(weights)
    with pytest.raises(ModelError, match="has no low rank: give a rank, or the share"):
        to_lora(weights, Source(base))
    assert main(["convert", str(path), str(goal), "--plain", "--base", base, "--energy", "0.99", "--per_layer"]) == 0
    said = capsys.readouterr().out
    found = LoraFile(goal).weights()
    assert "kept 99." in said and LoraFile(goal).info().kind == "LoRA" and found.layers.keys() == modules.keys()
    whole = to_lora(weights, Source(base), Cut(64)).weights  # more than any has rows
    for name, module in modules.items():
        expected = delta(weights.layers[name], module.get_base_layer().weight)
        assert distance(delta(whole.layers[name]), expected) < 1e-5, name
        assert distance(delta(found.layers[name]), expected) ** 2 < 0.0101, name
    assert main(["convert", str(path), str(goal), "--rank", "2"]) == 2
    assert "of convert --plain" in capsys.readouterr().err


def test_layers_that_are_lora_stay():
    models = make_models(text=False)
    add_lora(models, ["to_q"])
    weights = collect(**models)
    assert to_lora(weights).weights.layers.keys() == weights.layers.keys()
    assert all(layer is weights.layers[path] for path, layer in to_lora(weights).weights.layers.items())
