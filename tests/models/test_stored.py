"""Frozen layers in other numbers than they compute in: how far off they are, forwards, backwards and under LoRA."""

import copy
import shutil

import pytest
import torch
from small_runs import assert_same, small, train
from torch import nn

from sdxl_nb.lora.adapter import add_lora
from sdxl_nb.models.loading import load_text_encoder, load_unet
from sdxl_nb.models.sources import Source
from sdxl_nb.models.stored import Stored, apart, encoded, store_all, stored
from sdxl_nb.preflight.counting import count_step
from sdxl_nb.training.state.parameters import FlatParameters

pytestmark = pytest.mark.slow

TINY = Source("embedded:tiny-sdxl")
LAYERS = {
    "linear": (lambda: nn.Linear(12, 7), (3, 5, 12)),
    "no bias": (lambda: nn.Linear(12, 7, bias=False), (5, 12)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, 2, padding=1), (2, 4, 9, 8)),
    "1 x 1": (lambda: nn.Conv2d(4, 6, 1), (2, 4, 5, 5)),
}


def made(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    return make().requires_grad_(False), torch.randn(shape)


@pytest.mark.parametrize("shape", [(16, 300), (8, 4, 3, 3), (1500, 1000)])
def test_int8_is_off_by_half_a_step_and_no_more(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.rand(shape[0]).view(-1, *(1,) * (len(shape) - 1))
    weight[0] = 0
    kept = weight.clone()
    codes, scale = encoded(weight, torch.int8)
    rows = scale.view(-1, *(1,) * (len(shape) - 1))
    assert torch.equal(weight, kept) and codes.dtype == torch.int8 and codes.abs().max() == 127
    assert ((codes * rows - weight).abs() <= rows * 0.5001).all()
    assert not codes[0].any() and torch.isfinite(scale).all()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("precision", "dtype", "error"),
    [
        ("int8", torch.float32, 0.02),
        ("int8", torch.bfloat16, 0.03),
        ("int8", torch.float16, 0.02),
        ("fp8", torch.float32, 0.06),
        ("fp8", torch.float16, 0.06),
        ("bf16", torch.float32, 0.006),
        ("fp32", torch.bfloat16, 0.02),
    ],
)
def test_a_stored_layer_computes_what_its_weight_says(name, precision, dtype, error):
    plain, x = made(name)
    plain, x = plain.to(dtype), x.to(dtype)
    layer = copy.deepcopy(plain)
    stored(layer, precision)
    assert isinstance(layer, type(plain)) and layer.weight.dtype == dtype
    same = copy.deepcopy(plain)
    same.weight = nn.Parameter(layer.weight, requires_grad=False)
    results = []
    for module in (layer, same, plain):
        given = x.clone().requires_grad_()
        out = module(given)
        out.backward(torch.ones_like(out))
        results.append((out.detach().float(), given.grad.float()))
    for ours, exact, first in zip(*results, strict=True):
        largest = first.abs().max()
        assert (ours - exact).abs().max() <= largest * (1e-5 if dtype == torch.float32 else 0.02)
        assert (ours - first).abs().max() <= largest * error


@pytest.mark.parametrize("name", LAYERS)
def test_a_gradient_of_any_layout_is_scaled(name):
    """One number seen as many (of a sum), and every second one of a larger tensor; values in more than one piece."""
    layer, x = made(name)
    x = x.repeat(3000, *(1,) * (x.ndim - 1)).requires_grad_()
    stored(layer, "int8")
    y = layer(x)
    dense = torch.randn(y.shape[0], *y.shape[1:-1], 2 * y.shape[-1])[..., ::2]
    for grad in (torch.ones(()).expand(y.shape), dense):
        found = torch.autograd.grad(y, x, grad, retain_graph=True)[0]
        (expected,) = torch.autograd.grad(_plain(layer)(x), x, grad.contiguous())
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def _plain(layer):
    """An ordinary layer with the numbers that a stored one's codes stand for."""
    plain = copy.deepcopy(layer)
    weight = plain.weight
    plain.__class__ = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
    del plain.codes, plain.scale
    plain.weight = nn.Parameter(weight, requires_grad=False)
    return plain


def test_nothing_of_a_stored_layer_is_kept_for_the_backward_pass():
    layer, x = made("linear")
    stored(layer, "int8")
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x.requires_grad_())
    assert kept == [] and list(layer.parameters()) == [layer.bias]


def test_a_copy_is_stored_too_and_peft_gets_an_ordinary_layer_for_the_asking():
    layer, x = made("conv")
    stored(layer, "fp8")
    twin = copy.deepcopy(layer)
    assert isinstance(twin, Stored) and torch.equal(twin(x), layer(x))
    assert type(type(layer)(3, 2, kernel_size=1)) is nn.Conv2d


@pytest.mark.parametrize(
    ("precision", "dtype", "kept"),
    [
        ("bf16", torch.bfloat16, None),
        (None, torch.float32, None),
        ("bf16", torch.float32, "bf16"),
        ("int8", torch.bfloat16, "int8"),
    ],
)
def test_a_precision_that_is_that_of_computing_stores_nothing(precision, dtype, kept):
    assert apart(precision, dtype) == kept


def gradient(unet, config):
    """The gradient of a LoRA that does something already, by the short way."""
    from sdxl_nb.lora.acceleration import lay_out, make_ready, take_the_short_way

    add_lora(config, unet)
    flat = FlatParameters({"unet": unet.train()})
    torch.manual_seed(1)
    flat.weights.data.normal_(std=0.02)
    make_ready(unet, config, torch.device("cpu"), [])
    lay_out(unet, torch.device("cpu"))
    take_the_short_way(unet, flat, config)
    width = unet.config["projection_class_embeddings_input_dim"] - 6 * unet.config["addition_time_embed_dim"]
    added = {"text_embeds": torch.randn(2, width), "time_ids": torch.full((2, 6), 64.0)}
    hidden = torch.randn(2, 7, unet.config["cross_attention_dim"])
    added["text_embeds"], hidden = added["text_embeds"].to(unet.dtype), hidden.to(unet.dtype)
    out = unet(torch.randn(2, 4, 8, 8).to(unet.dtype), torch.tensor([10, 500]), hidden, added).sample
    out.float().square().mean().backward()
    return flat.weights.grad.clone()


@pytest.mark.parametrize("precision", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_loras_gradient_is_near_to_that_on_the_whole_base(tmp_path, precision, dtype):
    config = small(tmp_path, gradient_checkpointing=True, target_modules="all")
    whole = gradient(load_unet(TINY, dtype), config)
    ours = gradient(load_unet(TINY, dtype, precision=precision), config)
    assert torch.nn.functional.cosine_similarity(whole, ours, dim=0) > (0.99 if precision == "int8" else 0.97)
    assert 0.9 < ours.norm() / whole.norm() < 1.1


def test_text_encoders_are_stored_as_asked():
    encoder = load_text_encoder(TINY, "text_encoder", torch.float32, "int8")
    plain = load_text_encoder(TINY, "text_encoder", torch.float32)
    linears = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    assert linears and all(isinstance(module, Stored) and module.codes.dtype == torch.int8 for module in linears)
    ids = torch.tensor([[1, 5, 9, 2] + [0] * 28])
    ours, theirs = (model(ids, output_hidden_states=True).hidden_states[-2] for model in (encoder, plain))
    assert 0 < (ours - theirs).abs().max() < 0.05 * theirs.abs().max()


def test_estimates_count_the_codes(tmp_path):
    unet = load_unet(TINY)
    sizes = {}
    for precision in (None, "int8", "bf16"):
        config = small(tmp_path, base_precision=precision)
        sizes[precision] = count_step(config, dict(unet.config), 8, 77, pictures=1, cuda=False).frozen
    store_all(unet, "int8")
    held = sum(t.numel() * t.element_size() for t in (*unet.parameters(), *unet.buffers()))
    assert sizes["int8"] == held < 0.3 * sizes[None] < sizes["bf16"] < 0.6 * sizes[None]


@pytest.mark.parametrize("changes", [{"base_precision": "int8"}, {"base_precision": "int8", "use_dora": True}])
def test_a_run_in_8_bits_is_resumed_bit_for_bit(tmp_path, changes):
    whole = train(small(tmp_path / "whole", **changes))
    shutil.copytree(whole.folder, tmp_path / "cut")
    for name in ("checkpoint-4", "checkpoint-6"):
        shutil.rmtree(tmp_path / "cut" / name)
    for file in (tmp_path / "cut").glob("*.safetensors"):
        file.unlink()
    train(small(tmp_path / "cut", resume_from_checkpoint="latest", **changes))
    assert_same(whole.folder, tmp_path / "cut")


def test_what_8_bit_encoders_made_is_not_taken_for_what_whole_ones_make(tmp_path):
    cache = {"latents_cache_dir": str(tmp_path / "cache"), "max_train_steps": 2}
    plain = train(small(tmp_path / "plain", **cache)).losses()
    eight = train(small(tmp_path / "eight", base_precision="int8", **cache)).losses()
    assert len(list((tmp_path / "cache" / "prompts").iterdir())) == 2
    assert len(list((tmp_path / "cache" / "latents").iterdir())) == 1
    assert plain != eight and eight[1] == pytest.approx(plain[1], rel=0.02)
