"""Our U-Net is diffusers': names, outputs and gradients; and its LoRA is peft's, in a step and in a picture."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from random_sdxl import make_pipeline, make_unet

from sdxl_nb.lora.acceleration import is_compiler, not_compiled
from sdxl_nb.lora.fast import LoraFast, is_plain
from sdxl_nb.models.loading import load_unet
from sdxl_nb.models.sources import Source
from sdxl_nb.models.unet import Block, Resnet, SdxlUNet, covers
from sdxl_nb.system.errors import ModelError
from sdxl_nb.training.state.parameters import FlatParameters

pytestmark = pytest.mark.slow

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERYWHERE = [*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut"]
EVERYWHERE += ["time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "conv_out", "linear_1"]
ARCHITECTURES = [
    {},
    {"layers_per_block": 2, "transformer_layers_per_block": 2, "attention_head_dim": 2, "norm_num_groups": 2},
    {
        "block_out_channels": (8, 24),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "transformer_layers_per_block": (2, 1),
        "attention_head_dim": (4, 2),
        "norm_eps": 1e-4,
    },
]


def inputs(side=8, many=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    added = {"text_embeds": drawn(many, 32), "time_ids": drawn(many, 6).float().abs() * 1000}
    return (drawn(many, 4, side, side), torch.tensor([7, 900])[:many], drawn(many, 5, 64)), {"added_cond_kwargs": added}


def both(**changes):
    theirs = make_unet(**changes)
    ours = SdxlUNet(theirs.config)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours.requires_grad_(False).eval()


def with_lora(unet, targets=ATTENTION, **settings):
    torch.manual_seed(1)
    config = {"r": 3, "lora_alpha": 5, "init_lora_weights": False, **settings}
    inject_adapter_in_model(LoraConfig(target_modules=targets, **config), unet)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return unet.train()


def fast(unet):
    flat = FlatParameters({"unet": unet})
    assert is_plain(unet)
    unet.fast = LoraFast(unet, flat)
    return flat


def gradient(unet, flat, times=1, scale=1.0):
    flat.zero_grad()
    for _ in range(times):
        given, named = inputs(dtype=unet.dtype)
        (unet(*given, **named).sample.float().square().sum() * scale).backward()
    return flat.named(flat.weights.grad)


def assert_close(ours, theirs, share=1e-5):
    assert ours.keys() == theirs.keys()
    least = 0.05 * max(wanted.norm().item() for wanted in theirs.values())  # small ones are sums of large ones
    for name, wanted in theirs.items():
        assert (ours[name] - wanted).norm() <= share * max(wanted.norm().item(), least), name


@pytest.mark.parametrize("changes", ARCHITECTURES)
def test_names_order_and_outputs_are_diffusers(changes):
    theirs, ours = both(**changes)
    assert covers(theirs.config)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in theirs.named_parameters()]
    for side in (8, 10, 9):
        given, named = inputs(side)
        with torch.no_grad():
            assert torch.equal(ours(*given, **named).sample, theirs(*given, **named).sample)
            assert torch.equal(ours(*given, **named)[0][:1], ours(*given, **named, return_dict=False)[0][:1])


@pytest.mark.parametrize("changes", ARCHITECTURES)
def test_gradients_of_every_weight_are_diffusers(changes):
    found = []
    for unet in both(**changes):
        given, named = inputs()
        unet.requires_grad_(True).train()
        unet(*given, **named).sample.square().sum().backward()
        found.append({name: parameter.grad for name, parameter in unet.named_parameters()})
    assert_close(found[1], found[0])


@pytest.mark.parametrize(
    ("targets", "settings"),
    [
        pytest.param(ATTENTION, {}, marks=pytest.mark.soak),
        (["to_q", "to_v", "to_out.0"], {"use_rslora": True}),
        (EVERYWHERE, {"rank_pattern": {"to_k": 2, "conv1": 1}, "alpha_pattern": {"to_v": 11}}),
    ],
)
def test_a_fast_step_is_pefts(targets, settings):
    theirs, ours = (with_lora(unet, targets, **settings) for unet in both())
    given, named = inputs()
    pefts, flat = FlatParameters({"unet": theirs}), fast(ours)
    assert pefts.names == flat.names and torch.equal(pefts.weights, flat.weights)  # the same first values
    torch.testing.assert_close(ours(*given, **named).sample, theirs(*given, **named).sample, atol=3e-6, rtol=1e-5)
    wanted = gradient(theirs, pefts)
    once = gradient(ours, flat)
    assert_close(once, wanted, share=5e-5)
    for policy in ("selective", "whole"):
        ours.enable_gradient_checkpointing(policy)
        again = gradient(ours, flat)
        assert all(torch.equal(again[name], tensor) for name, tensor in once.items())
    assert_close(gradient(ours, flat, times=2), gradient(theirs, pefts, times=2), share=5e-5)


def test_pictures_are_drawn_by_pefts_layers_bit_for_bit():
    theirs, ours = (with_lora(unet) for unet in both())
    flat = fast(ours)
    gradient(ours, flat)
    given, named = inputs()
    with torch.no_grad():
        assert torch.equal(ours.eval()(*given, **named).sample, theirs.eval()(*given, **named).sample)


def test_a_step_follows_the_weights_and_bf16_has_fp32_masters():
    theirs, ours = (with_lora(unet) for unet in both())
    pefts, flat = FlatParameters({"unet": theirs}), None
    low = copy.deepcopy(ours)
    for parameter in low.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    flat, low_flat = fast(ours), fast(low)
    for one in (pefts, flat, low_flat):
        gradient({id(pefts): theirs, id(flat): ours}.get(id(one), low), one)
        one.weights.data.add_(one.weights.grad, alpha=-1e-4)
    wanted = gradient(theirs, pefts)
    assert_close(gradient(ours, flat), wanted)
    again = gradient(low, low_flat)
    assert low_flat.weights.dtype == low_flat.weights.grad.dtype == torch.float32
    total = torch.cat([tensor.flatten() for tensor in wanted.values()])
    difference = torch.cat([(again[name] - tensor).flatten() for name, tensor in wanted.items()])
    assert 0 < difference.norm() < 0.05 * total.norm()
    assert_close(gradient(low, low_flat, times=2, scale=0.5), again, share=0.02)


def test_two_forward_passes_may_wait_for_their_backward():
    unet = with_lora(both()[1])
    for parameter in unet.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    flat = fast(unet)
    twice = gradient(unet, flat, times=2)
    flat.zero_grad()
    given, named = inputs(dtype=torch.bfloat16)
    first, second = (unet(*given, **named).sample.float().square().sum() for _ in range(2))
    first.backward()
    second.backward()
    assert_close(flat.named(flat.weights.grad), twice)


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}])
def test_what_the_fast_way_does_not_cover_is_pefts(settings):
    theirs, ours = (with_lora(unet, **settings) for unet in both())
    assert not is_plain(ours) and not is_plain(both()[1])
    found = []
    for unet in (theirs, ours):
        torch.manual_seed(3)
        found.append(gradient(unet, FlatParameters({"unet": unet})))
    assert_close(found[1], found[0])
    ours.enable_gradient_checkpointing("whole")  # dropout's draws are made again
    torch.manual_seed(3)
    assert_close(gradient(ours, FlatParameters({"unet": ours})), found[0])


def test_gradients_reach_the_prompt():
    theirs, ours = (with_lora(unet) for unet in both())
    fast(ours)
    grads = []
    for unet in (theirs, ours):
        (latents, when, prompt), named = inputs()
        prompt.requires_grad_()
        unet(latents, when, prompt, **named).sample.square().sum().backward()
        grads.append(prompt.grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_linear_projection": False},
        {"class_embed_type": "timestep"},
        {"upcast_attention": True},
        {"cross_attention_dim": [64, 64, 64]},
        {"resnet_time_scale_shift": "scale_shift"},
        {"down_block_types": ("DownBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D")},
    ],
)
def test_other_architectures_are_left_to_diffusers(changes):
    assert not covers({**make_unet().config, **changes})


def test_a_base_gets_our_unet_or_diffusers(tmp_path):
    make_pipeline(norm_eps=1e-4).save_pretrained(tmp_path / "covered")
    make_pipeline(resnet_out_scale_factor=2.0).save_pretrained(tmp_path / "other")
    source = Source(str(tmp_path / "covered"))
    ours, theirs = load_unet(source), load_unet(source, ours=False)
    assert isinstance(ours, SdxlUNet) and type(theirs).__name__ == "UNet2DConditionModel"
    assert type(load_unet(Source(str(tmp_path / "other")))).__name__ == "UNet2DConditionModel"
    assert load_unet(source, torch.bfloat16).dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    weights = tmp_path / "covered" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="truncated"):
        load_unet(source)


def test_policies_name_the_parts():
    unet = both()[1]
    unet.enable_gradient_checkpointing("whole")
    whole = {type(part) for part in unet.modules() if getattr(part, "recomputed", False)}
    unet.enable_gradient_checkpointing("selective")
    parts = [name for name, part in unet.named_modules() if getattr(part, "recomputed", False)]
    blocks = sum(isinstance(part, Block) for part in unet.modules())
    assert whole == {Resnet, Block} and len(parts) == 2 * blocks
    assert {name.rpartition(".")[2] for name in parts} == {"attn2", "ff"}


@pytest.mark.soak
def test_compiled_blocks_compute_the_same_and_a_compiler_that_fails_is_named():
    plain = with_lora(both()[1])
    compiled = copy.deepcopy(plain)
    compiled.compile_repeated_blocks(backend="eager")
    given, named = inputs()
    torch.testing.assert_close(compiled(*given, **named).sample, plain(*given, **named).sample)

    def broken(graph, examples):
        raise RuntimeError("no compiler here")

    torch._dynamo.reset()
    plain.compile_repeated_blocks(backend=broken)
    with pytest.raises(RuntimeError) as caught:
        plain(*given, **named)
    assert is_compiler(caught.value) and not is_compiler(RuntimeError("out of memory"))
    assert "drop the flag" in str(not_compiled(caught.value))


def test_arguments_that_mean_nothing_here_are_refused():
    given, named = inputs()
    with pytest.raises(TypeError, match="timestep_cond"):
        both()[1](*given, **named, timestep_cond=torch.zeros(1))
