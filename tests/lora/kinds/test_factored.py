"""LoHa and LoKr: peft's own layers as the reference, through files, onto models, into bases, as LoRA."""

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model
from safetensors.torch import save_file
from test_lora import add_lora, make_models, predict

from sdxl_nb.lora.changes.arithmetic import as_lora, merge, resize
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import attach, collect, delta, detach, set_scale
from sdxl_nb.lora.targets import target_modules, text_target_modules
from sdxl_nb.system.errors import ModelError

pytestmark = pytest.mark.slow

KINDS = {
    "loha": (LoHaConfig, {}),
    "loha of Tucker": (LoHaConfig, {"use_effective_conv2d": True}),
    "lokr": (LoKrConfig, {}),
    "lokr of two and Tucker": (LoKrConfig, {"use_effective_conv2d": True, "decompose_both": True, "r": 1}),
    "lokr of 4": (LoKrConfig, {"decompose_factor": 4}),
}


def add(models, kind, adapter="default", **settings):
    """peft's layers of a kind on the models, with random values everywhere."""
    config, options = KINDS[kind]
    for name, model in models.items():
        modules = target_modules("all", model) if name == "unet" else text_target_modules("attention")
        one = config(target_modules=modules, **{"r": 2, "alpha": 3, "init_weights": False, **options, **settings})
        inject_adapter_in_model(one, model, adapter_name=adapter)
    return {
        f"{name}.{'' if name == 'unet' or path.startswith('text_model.') else 'text_model.'}{path}": module
        for name, model in models.items()
        for path, module in model.named_modules()
        if hasattr(module, "lokr_w1") or hasattr(module, "hada_w1_a")
    }


def change(module):
    """What peft merges; 1 in the place of its scale where both of LoKr's factors are whole, as LyCORIS has it."""
    whole = getattr(module, "lokr_w1", None) and getattr(module, "lokr_w2", None)
    found = module.get_delta_weight("default").detach()
    return found / module.scaling["default"] if whole else found


CORNERS = ("loha", "lokr", "lokr of two and Tucker")
INNER = [pytest.param(kind, marks=pytest.mark.soak) for kind in KINDS if kind not in CORNERS]


@pytest.mark.parametrize("kind", [*CORNERS, *INNER])
def test_both_files_hold_what_peft_trained_and_go_back_on_models(tmp_path, kind):
    text = kind == "lokr"  # once with text encoders
    models = {name: model for name, model in make_models(text).items() if model is not None}
    changes = {path: change(module) for path, module in add(models, kind).items()}
    for path in save_lora(collect(**models), tmp_path, "style", {}):
        weights = read_lora(path)
        assert weights.layers.keys() == changes.keys() and weights.algo == kind[:4]
        for name, layer in weights.layers.items():
            torch.testing.assert_close(delta(layer, changes[name]), changes[name], atol=1e-6, rtol=1e-5)
        table = LoraFile(path).check()
        assert table.unknown == [] and table.faults == ()
        fresh = make_models(text)
        attach(weights, fresh)
        pair = collect(**fresh).layers, weights.layers
        for name, layer in pair[1].items():
            assert all(torch.equal(pair[0][name].parts[part], each) for part, each in layer.parts.items())
            assert pair[0][name].scale == layer.scale


def test_attached_it_draws_what_its_merged_weights_draw_and_is_gone_when_taken_off(tmp_path):
    models, plain = make_models(), predict(make_models()["unet"])
    add(models, "lokr", decompose_factor=4, alpha=2)
    path, _ = save_lora(collect(**models), tmp_path, "style", {})
    fresh = make_models()
    attach(read_lora(path), fresh, "style")
    drawn = predict(fresh["unet"])
    assert not torch.allclose(drawn, plain)
    torch.testing.assert_close(predict(models["unet"]), drawn, atol=1e-5, rtol=1e-4)
    set_scale(fresh, {"style": 0.0})
    assert torch.equal(predict(fresh["unet"]), plain)
    detach(fresh, "style")
    assert torch.equal(predict(fresh["unet"]), plain)
    merged = make_models()
    for name, layer in read_lora(path).layers.items():
        module = merged["unet"].get_submodule(name.removeprefix("unet.")) if name.startswith("unet.") else None
        if module is not None:
            module.weight.data += delta(layer, module.weight)
    torch.testing.assert_close(predict(merged["unet"]), drawn, atol=1e-5, rtol=1e-4)


def test_a_lora_and_a_lokr_on_one_model_add_up():
    both = {}
    for name, put in (("a", lambda models: add_lora(models, "all")), ("b", lambda models: add(models, "lokr"))):
        models = {"unet": make_models(text=False)["unet"]}
        put(models)
        both[name] = collect(models["unet"])
    fresh, merged = make_models(text=False)["unet"], make_models(text=False)["unet"]
    plain = predict(fresh)
    for name in "ab":
        attach(both[name], fresh, name)
    set_scale(fresh, {"a": 1.0, "b": 0.5})
    for name, scale in (("a", 1.0), ("b", 0.5)):
        for path, layer in both[name].layers.items():
            module = merged.get_submodule(path.removeprefix("unet."))
            module.weight.data += scale * delta(layer, module.weight)
    torch.testing.assert_close(predict(merged), predict(fresh), atol=1e-4, rtol=1e-3)
    assert collect(fresh, adapter_name="a").layers.keys() == both["a"].layers.keys()
    models = {"unet": make_models(text=False)["unet"]}
    add(models, "loha")
    with pytest.raises(ModelError, match="A LoHa and a LoKr cannot be on one model at once"):
        attach(collect(models["unet"]), fresh, "c")
    with pytest.raises(ModelError, match="A LoRA must be put on a model before a LoHa or LoKr"):
        attach(both["a"], fresh, "d")
    for name in "ab":
        detach(fresh, name)
    assert torch.equal(predict(fresh), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_as_lora_it_is_the_same_change_and_can_be_cut_and_summed(kind):
    models = make_models(text=False)
    unet = {"unet": models["unet"]}
    add(unet, kind)
    weights = collect(unet["unet"])
    inventory = weights.base.inventory
    for path, layer in weights.layers.items():
        shape = (inventory[path].outputs, *inventory[path].down_shape)
        again = delta(as_lora(layer, inventory[path]))
        torch.testing.assert_close(again, layer.change().reshape(shape), atol=1e-5, rtol=1e-4)
    whole = resize(weights, 1024)
    assert whole.kept == pytest.approx(1) and whole.weights.algo == "lora"
    cut = merge([(weights, 0.5), (weights, 0.5)], 3)
    assert {layer.rank for layer in cut.weights.layers.values()} <= {1, 2, 3} and 0 < cut.kept <= 1 + 1e-9


# ------------------------------------------------------------------------------------ files that LyCORIS wrote

PATH = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "unet.down_blocks.0.resnets.0.conv1"
NAMES = {
    PATH: "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
    CONV: "lora_unet_input_blocks_1_0_in_layers_2",
}
R = torch.randn


def foreign(tmp_path, module, **parts):
    tensors = {f"{NAMES[module]}.{name}": tensor for name, tensor in parts.items()}
    save_file(tensors, tmp_path / "a.safetensors", {"ss_network_module": "lycoris.kohya"})
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize(
    ("parts", "scale"),
    [
        ({"lokr_w1": R(16, 16), "lokr_w2": R(40, 40), "alpha": torch.tensor(7.0)}, 1.0),
        ({"lokr_w1": R(16, 16), "lokr_w2": R(40, 40)}, 1.0),
        ({"lokr_w1": R(4, 8), "lokr_w2_a": R(160, 2), "lokr_w2_b": R(2, 80), "alpha": torch.tensor(1.0)}, 0.5),
        ({"lokr_w1_a": R(8, 3), "lokr_w1_b": R(3, 8), "lokr_w2": R(80, 80), "alpha": torch.tensor(1.5)}, 0.5),
    ],
)
def test_lokr_of_any_layout_is_read_at_lycoris_scale(tmp_path, parts, scale):
    (layer,) = read_lora(foreign(tmp_path, PATH, **parts)).layers.values()
    first = parts.get("lokr_w1") if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    second = parts["lokr_w2"] if "lokr_w2" in parts else parts["lokr_w2_a"] @ parts["lokr_w2_b"]
    torch.testing.assert_close(layer.change(), torch.kron(first, second) * scale, rtol=1e-6, atol=1e-5)
    assert layer.change().shape == (640, 640)


def test_tucker_and_flat_convolutions_are_the_same_change(tmp_path):
    t, a, b, w1 = R(2, 2, 3, 3), R(2, 20), R(2, 20), R(16, 16)
    tucker = read_lora(
        foreign(tmp_path, CONV, lokr_w1=w1, lokr_t2=t, lokr_w2_a=a, lokr_w2_b=b, alpha=torch.tensor(2.0))
    )
    second = torch.einsum("ijkl,ip,jr->prkl", t, a, b).contiguous()
    flat = read_lora(foreign(tmp_path, CONV, lokr_w1=w1, lokr_w2=second))
    for weights in (tucker, flat):
        weight = torch.zeros(320, 320, 3, 3)
        assert torch.allclose(delta(weights.layers[CONV], weight), torch.kron(w1[..., None, None], second), atol=1e-4)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"lokr_w1": R(16, 16)}, "are no whole LoKr, or do not fit together"),
        ({"lokr_w1": R(16, 16), "lokr_w2_a": R(40, 2), "lokr_w2_b": R(3, 40)}, "are no whole LoKr, or do not fit"),
        ({"hada_w1_a": R(640, 2), "hada_w1_b": R(2, 640)}, "are no whole LoHa, or do not fit together"),
        ({"lokr_w1": R(16), "lokr_w2": R(40, 40)}, "are no whole LoKr"),
        ({"lokr_w1": R(16, 16), "lokr_w2": R(40, 40), "lora_down.weight": R(2, 640)}, "is a LoKr and holds down too"),
        ({"lokr_w1": R(16, 16), "lokr_w2": R(40, 40), "dora_scale": R(640, 1)}, "is a LoKr with DoRA's magnitudes"),
        ({"lokr_w1": R(16, 16), "lokr_w2": R(40, 40), "alpha": R(2)}, "is 2 numbers, not one"),
    ],
)
def test_what_is_not_whole_is_refused_in_one_sentence(tmp_path, parts, said):
    with pytest.raises(ModelError) as error:
        read_lora(foreign(tmp_path, PATH, **parts))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_lokr_of_another_width_does_not_fit(tmp_path):
    path = foreign(tmp_path, PATH, lokr_w1=R(16, 16), lokr_w2=R(20, 40))
    with pytest.raises(ModelError, match="is 320x640, the base model's is 640x640: another architecture"):
        resize(read_lora(path), 4)
