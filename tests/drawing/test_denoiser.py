"""A U-Net that draws with fewer operations draws the same, and is as it was afterwards."""

import numpy as np
import pytest
import torch
from random_sdxl import make_pipeline, make_unet
from test_lora import add_lora, make_models

from benchmarks.operations import tally
from sdxl_nb.drawing.denoiser import denoising
from sdxl_nb.drawing.generation import generate
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import attach, collect, set_scale

pytestmark = pytest.mark.slow

FAST = {"num_inference_steps": 3, "progress": False, "height": 64, "width": 48, "seeds": [5]}
PROMPTS = ["a red circle", "two squares"]


def weights(targets="attention", seed=0, **changes):
    models = make_models()
    torch.manual_seed(seed)
    add_lora(models, targets, lora_alpha=8, **changes)
    return collect(**models)


def inputs():
    generator = torch.Generator().manual_seed(0)
    drawn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    added = {"text_embeds": drawn(2, 32), "time_ids": torch.full((2, 6), 40.0)}
    return (drawn(2, 4, 8, 6), torch.tensor(500)), {
        "encoder_hidden_states": drawn(2, 5, 64),
        "added_cond_kwargs": added,
    }


def called(unet, *given, **named):
    with torch.no_grad():
        return unet(*given, return_dict=False, **named)[0]


@pytest.mark.parametrize(
    ("loras", "scales"),
    [
        ([], {}),
        ([weights], {"0": 0.7}),
        ([weights, lambda: weights(seed=1)], {"0": 1.0, "1": -0.4}),
        ([weights, lambda: weights(seed=1)], {"0": 0.0, "1": 2.0}),
        ([lambda: weights("all")], {"0": 1.0}),  # convolutions among them
        ([lambda: weights(use_dora=True)], {"0": 1.0}),
    ],
    ids=["none", "one", "two", "one of two", "everywhere", "dora"],
)
def test_diffusers_unet_is_the_same_function_with_any_lora(loras, scales):
    unet = make_unet()
    for number, made in enumerate(loras):
        found = made()
        found.layers = {path: layer for path, layer in found.layers.items() if path.startswith("unet.")}
        attach(found, unet, str(number))
    if scales:
        set_scale(unet, scales)
    before = {name: (id(p), p.detach().clone()) for name, p in unet.named_parameters()}
    given, named = inputs()
    wanted = called(unet, *given, **named)
    with denoising(unet) as short:
        assert short
        for _ in range(2):  # what is kept is that of this prompt
            torch.testing.assert_close(called(unet, *given, **named), wanted, rtol=1e-4, atol=1e-5)
        other = named | {"encoder_hidden_states": named["encoder_hidden_states"] * 2}
        found = called(unet, *given, **other)
        named["added_cond_kwargs"]["time_ids"].add_(30)  # changed in place
        later = called(unet, *given, **named)
    torch.testing.assert_close(
        found,
        called(unet, *given, **other | {"added_cond_kwargs": inputs()[1]["added_cond_kwargs"]}),
        rtol=1e-4,
        atol=1e-5,
    )
    torch.testing.assert_close(later, called(unet, *given, **named), rtol=1e-4, atol=1e-5)
    assert "forward" not in vars(unet)
    assert {name: id(p) for name, p in unet.named_parameters()} == {name: each[0] for name, each in before.items()}
    assert all(torch.equal(p, before[name][1]) for name, p in unet.named_parameters())


def test_what_looks_inside_is_left_alone():
    for change in (
        lambda unet: unet.mid_block.register_forward_hook(lambda *_: None),
        lambda unet: unet.fuse_qkv_projections(),
        lambda unet: unet.enable_freeu(s1=0.9, s2=0.2, b1=1.1, b2=1.2),
        lambda unet: unet.train(),
        lambda unet: setattr(unet, "forward", unet.forward),
    ):
        unet = make_unet()
        change(unet)
        with denoising(unet) as short:
            assert not short


def test_operations_are_few():
    unet = make_unet()
    found = weights()
    found.layers = {path: layer for path, layer in found.layers.items() if path.startswith("unet.")}
    attach(found, unet, "a")
    given, named = inputs()
    counts = []
    for block in (lambda unet: torch.no_grad(), denoising):
        with block(unet):
            called(unet, *given, **named)
            with tally() as counted:
                called(unet, *given, **named)
            counts.append(counted.operations)
    assert counts[1] * 1.9 < counts[0]


def test_pictures_are_those_of_diffusers_with_the_lora_loaded(tmp_path):
    path = save_lora(weights(), tmp_path, "style", {})[0]
    ours, theirs = make_pipeline(), make_pipeline()
    grid = generate(ours, path, PROMPTS, scales=(1.0, 0.5), **FAST)
    theirs.load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name="style")
    for scale in (1.0, 0.5):
        theirs.set_adapters("style", scale)
        for prompt in PROMPTS:
            numbers = {"num_inference_steps": 3, "height": 64, "width": 48, "guidance_scale": 5.0}
            (wanted,) = theirs(prompt, generator=torch.Generator("cpu").manual_seed(5), **numbers).images
            found = np.asarray(grid.at(prompt, f"scale {scale:g}")).astype(int)
            assert np.abs(found - np.asarray(wanted)).max() <= 2
