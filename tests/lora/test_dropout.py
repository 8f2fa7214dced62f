"""LoRA dropout as a function of picture and layer: kept as often as asked, and the same however it is computed."""

import torch
from torch import nn

from sdxl_nb.lora.dropout import KeyedDropout, Keys, keyed, mixed


def layer(keys, p=0.25, name="a", device="cpu"):
    made = Keys()
    made.set(keys, torch.device(device))
    return KeyedDropout(p, made, name)


def kept(*arguments, shape=(64, 1000), **named):
    return layer(*arguments, **named)(torch.ones(len(arguments[0]), *shape)) > 0


def test_as_much_is_dropped_as_asked_and_the_rest_is_scaled():
    values = torch.randn(3, 50, 400, dtype=torch.float64)
    out = layer([1, 2, 3], 0.25)(values)
    alive = out != 0
    assert torch.equal(out[alive], values[alive] / 0.75) and abs(alive.double().mean() - 0.75) < 0.005
    assert abs(kept(range(8), 0.9).double().mean() - 0.1) < 0.005


def test_masks_of_pictures_places_and_layers_are_apart():
    one = kept([7, 8, 2**32 - 1]).double()
    other = kept([7, 8, 2**32 - 1], name="b").double()
    rows = torch.cat([one.flatten(1), other.flatten(1), one.flatten(1).roll(1, 1), one.flatten(1).roll(64, 1)])
    apart = torch.corrcoef(rows) - torch.eye(len(rows))
    assert apart.abs().max() < 4.5 * (64 * 1000) ** -0.5
    bits = mixed(torch.arange(1 << 16))
    assert bits.min() >= 0 and bits.max() < 2**32 and len(bits.unique()) > 65_500
    share = torch.stack([(bits >> bit & 1).double().mean() for bit in range(32)])
    assert (share - 0.5).abs().max() < 4.5 * 0.5 / 256


def test_a_picture_has_its_mask_in_every_batch_and_dtype():
    together = kept([5, 6, 7])
    assert torch.equal(together[1:2], kept([6])) and torch.equal(together[:2], kept([5, 6]))
    half = layer([5, 6, 7])(torch.ones(3, 64, 1000, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16 and torch.equal(half > 0, together)
    assert torch.equal(layer([1]).eval()(torch.ones(4, 2)), torch.ones(4, 2))  # drawing needs no key


def test_pefts_dropout_is_replaced_where_there_is_any():
    from peft import LoraConfig, inject_adapter_in_model

    for p in (0.0, 0.3):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        inject_adapter_in_model(LoraConfig(r=2, lora_dropout=p, target_modules=["0", "1"]), model)
        keys = keyed({"unet": model})
        assert (keys is None) == (p == 0)
    keys.set([3], torch.device("cpu"))
    first = model(torch.ones(1, 4))
    assert torch.equal(first, model(torch.ones(1, 4)))
    assert keyed({"unet": model}) is not None  # again, as a second Step makes it
