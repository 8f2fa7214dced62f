"""TIES, DARE and pruning by magnitude: by hand, and against peft's own functions on full changes."""

import zlib

import pytest
import torch
from peft.utils import merge_utils

from sdxl_nb.lora.base import SDXL
from sdxl_nb.lora.changes.arithmetic import merge, resize
from sdxl_nb.lora.changes.pruning import METHODS, Method
from sdxl_nb.lora.layers import Layer, LoraWeights, delta
from sdxl_nb.system.errors import ModelError

PATH = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
OTHER = PATH.replace("to_q", "to_k")


def lora(*seeds, rank=3):
    """Layers 12 x 10 for PATH and OTHER, as many as there are seeds."""
    layers = {}
    for path, seed in zip((PATH, OTHER), seeds, strict=False):
        generator = torch.Generator().manual_seed(seed)
        down, up = torch.randn(rank, 10, generator=generator), torch.randn(12, rank, generator=generator)
        layers[path] = Layer(down, up, 6.0)
    return LoraWeights(layers, SDXL)


def test_ties_by_hand():
    """Half of four numbers stay, signs are by the sum, and those that agree are averaged: worked out on paper."""
    one, two = torch.tensor([[4.0, -3.0, 1.0, 0.5]]), torch.tensor([[-2.0, -5.0, 0.1, 6.0]])
    merged = Method("ties", 0.5).merged([one, two], [1.0, 2.0], PATH)
    # kept: 4, -3 and -5, 6; signs +, -, (0 counts as +), +; weighted and averaged: 4, (-3 - 10) / 2, 0, 12
    assert torch.equal(merged, torch.tensor([[4.0, -6.5, 0.0, 12.0]]))
    pruned = Method("magnitude_prune", 0.5).merged([one, two], [1.0, 2.0], PATH)
    assert torch.equal(pruned, torch.tensor([[4.0, -13.0, 0.0, 12.0]]))


@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("name", [method for method in METHODS if method != "sum"])
def test_a_merge_is_pefts_on_the_whole_changes(name, density):
    """Rank 10 is all that a module of ten inputs can have, so that nothing is cut."""
    loras, weights = [lora(1, 2), lora(3), lora(4, 5)], [1.0, 0.5, -0.7]
    merged = merge(list(zip(loras, weights, strict=True)), 10, method=Method(name, density, seed=7))
    for path in (PATH, OTHER):
        held = [
            (delta(one.layers[path]), weight) for one, weight in zip(loras, weights, strict=True) if path in one.layers
        ]
        torch.manual_seed(7 + zlib.crc32(path.encode()))
        with pytest.warns(UserWarning, match="no pruning") if density == 1.0 else _nothing():
            expected = getattr(merge_utils, name)([d for d, _ in held], torch.tensor([w for _, w in held]), density)
        found = delta(merged.weights.layers[path])
        torch.testing.assert_close(found, expected, atol=1e-6 * float(expected.abs().max()), rtol=1e-6)


def _nothing():
    import contextlib

    return contextlib.nullcontext()


def test_dare_keeps_the_sum_on_average_and_its_masks_are_the_seeds():
    change = torch.ones(200, 200)
    one, same, other = (Method("dare_linear", 0.25, seed).merged([change], [1.0], PATH) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert set(one.unique().tolist()) == {0.0, 4.0} and float(one.mean()) == pytest.approx(1, abs=0.05)
    state = torch.random.get_rng_state()
    Method("dare_ties").merged([change], [1.0], PATH)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_energy_cuts_merges_and_single_loras():
    whole = merge([(lora(1, 2), 1.0), (lora(3, 4), 1.0)], energy=1.0)
    assert [layer.rank for layer in whole.weights.layers.values()] == [6, 6]
    some = resize(lora(1, 2), energy=0.8, per_layer=True)
    for path, layer in lora(1, 2).layers.items():
        values = torch.linalg.svdvals(delta(layer).double())
        shares = (values**2).cumsum(0) / (values**2).sum()
        assert some.weights.layers[path].rank == int((shares < 0.8).sum()) + 1
        assert some.kept_by_module[path] == pytest.approx(float(shares[some.weights.layers[path].rank - 1]), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "slerp"}, "no way to merge called 'slerp': choose one of sum, ties"),
        ({"name": "ties", "density": 0.0}, "share of numbers kept"),
        ({"name": "ties", "density": float("nan")}, "not nan"),
    ],
)
def test_wrong_methods_are_one_sentence(options, sentence):
    with pytest.raises(ModelError, match=sentence):
        Method(**options)
