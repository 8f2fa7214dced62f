"""Plain LoRAs that draw without peft: the same function, at any strengths, and the pipeline as it was afterwards."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from random_sdxl import make_pipeline
from test_denoiser import called, inputs, weights

from sdxl_nb.drawing.denoiser import denoising
from sdxl_nb.drawing.loras import put_on
from sdxl_nb.lora.kinds.drawn import DrawnLora
from sdxl_nb.lora.layers import attach, detach, lora_modules, set_scale
from sdxl_nb.system.errors import ModelError

pytestmark = pytest.mark.slow


def read_by_both(pipeline):
    """What the U-Net and the text encoders make of some input."""
    given, named = inputs()
    tokens = torch.arange(1, 9)[None]
    with torch.no_grad():
        texts = [model(tokens)[0] for model in (pipeline.text_encoder, pipeline.text_encoder_2)]
    return [called(pipeline.unet, *given, **named), *texts]


def test_they_compute_what_pefts_layers_do_and_leave_no_trace():
    loras = {"one": weights("all"), "two": weights(seed=1)}
    ours, theirs = make_pipeline(), make_pipeline()
    modules = {name: id(module) for name, module in ours.unet.named_modules()}
    bare = read_by_both(ours)
    state = torch.random.get_rng_state()
    put_on(loras, ours)
    assert torch.equal(state, torch.random.get_rng_state())  # nothing was drawn
    for name, each in loras.items():
        attach(each, theirs, name)
    assert {type(module) for _, module in lora_modules(ours.unet)} == {DrawnLora}
    for scales in ({"one": 1.0, "two": 1.0}, {"one": 0.3, "two": -2.0}, {"two": 0.5}, {"one": 0.0}):
        for pipeline in (ours, theirs):
            set_scale(pipeline, scales)
        found, wanted = read_by_both(ours), read_by_both(theirs)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        given, named = inputs()
        with denoising(ours.unet) as short:
            assert short
            torch.testing.assert_close(called(ours.unet, *given, **named), wanted[0], rtol=1e-4, atol=1e-5)
    for name in loras:
        detach(ours, name)
    assert {name: id(module) for name, module in ours.unet.named_modules()} == modules
    assert all(torch.equal(one, other) for one, other in zip(read_by_both(ours), bare, strict=True))


def test_what_needs_peft_has_peft():
    mixed = make_pipeline()
    put_on({"plain": weights(), "dora": weights(seed=1, use_dora=True)}, mixed)
    carried = make_pipeline()
    attach(weights(), carried, "own")
    put_on({"plain": weights(seed=1)}, carried)
    for pipeline in (mixed, carried):
        layers = [module for _, module in lora_modules(pipeline.unet)]
        assert layers and all(isinstance(module, LoraLayer) and len(module.lora_A) == 2 for module in layers)


def test_nothing_is_put_on_where_one_does_not_fit():
    wrong = weights(seed=1)
    wrong.layers["unet.mid_block.attentions.7.proj_in"] = next(iter(wrong.layers.values()))
    pipeline = make_pipeline()
    with pytest.raises(ModelError, match=r"unet\.mid_block\.attentions\.7\.proj_in, which this base model does not"):
        put_on({"right": weights(), "wrong": wrong}, pipeline)
    assert not list(lora_modules(pipeline.unet))
