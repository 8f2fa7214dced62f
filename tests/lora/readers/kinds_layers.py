"""Small LoHa and LoKr layers of every layout, changed by the readers' own code: what kinds.json holds.

    python tests/lora/readers/record.py comfyui   CHECKOUT --kinds [--file LORA ...]
    python tests/lora/readers/record.py sdscripts CHECKOUT --kinds [--file LORA ...]   (lycoris-lora on PYTHONPATH)

sd-scripts has no LoHa and LoKr of its own: its --network_module lycoris.kohya is LyCORIS' code. With files it also says
how far the change of each of their layers, by the reader's code, is from ours.
"""

import json
from pathlib import Path

import torch

from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.layers import delta

LAYOUTS = {  # kind, and the shapes of a weight (12, 8) or (12, 8, 2, 2) with alpha 3
    "loha": ((12, 8), {"hada_w1_a": (12, 2), "hada_w1_b": (2, 8), "hada_w2_a": (12, 2), "hada_w2_b": (2, 8)}),
    "loha of a convolution": (
        (12, 8, 2, 2),
        {"hada_w1_a": (12, 2), "hada_w1_b": (2, 32), "hada_w2_a": (12, 2), "hada_w2_b": (2, 32)},
    ),
    "loha of Tucker": (
        (12, 8, 2, 2),
        {
            **{"hada_w1_a": (2, 12), "hada_w1_b": (2, 8), "hada_t1": (2, 2, 2, 2)},
            **{"hada_w2_a": (2, 12), "hada_w2_b": (2, 8), "hada_t2": (2, 2, 2, 2)},
        },
    ),
    "lokr": ((12, 8), {"lokr_w1": (3, 2), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 4)}),
    "lokr of two": (
        (12, 8),
        {"lokr_w1_a": (3, 1), "lokr_w1_b": (1, 2), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 4)},
    ),
    "lokr, whole": ((12, 8), {"lokr_w1": (3, 2), "lokr_w2": (4, 4)}),
    "lokr of a convolution": ((12, 8, 2, 2), {"lokr_w1": (3, 2), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 16)}),
    "lokr, a whole convolution": ((12, 8, 2, 2), {"lokr_w1": (3, 2), "lokr_w2": (4, 4, 2, 2)}),
    "lokr of Tucker": (
        (12, 8, 2, 2),
        {"lokr_w1": (3, 2), "lokr_w2_a": (1, 4), "lokr_w2_b": (1, 4), "lokr_t2": (1, 1, 2, 2)},
    ),
}


def layers() -> dict[str, dict[str, torch.Tensor]]:
    """Layout -> its tensors, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: {part: torch.randn(shape, generator=generator) for part, shape in parts.items()}
        | {"alpha": torch.tensor(3.0)}
        for name, (_, parts) in LAYOUTS.items()
    }


def changed_by(reader: str, parts: dict[str, torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    """The change of a weight of this shape that the reader's own code makes of a layer's tensors."""
    if reader == "comfyui":
        import comfy.lora

        file = {f"x.{part}": tensor for part, tensor in parts.items()}
        patch = comfy.lora.load_lora(file, {"x": "x.weight"})["x.weight"]
        return comfy.lora.calculate_weight([(1.0, patch, 1.0, None, lambda a: a)], torch.zeros(shape), "x.weight")
    from lycoris.modules import get_module, make_module

    conv = len(shape) == 4
    module = torch.nn.Conv2d(shape[1], shape[0], shape[2:]) if conv else torch.nn.Linear(shape[1], shape[0])
    file = {f"x.{part}": tensor for part, tensor in parts.items()}
    made = make_module(*get_module(file, "x"), "x", module)
    module.weight.data.zero_()
    module.bias.data.zero_()
    made.apply_to()
    made.multiplier = 1.0
    made.eval()
    with torch.no_grad():  # what it adds to the output of pictures of one 1 each is the weight, column by column
        if not conv:
            return module(torch.eye(shape[1])).T.contiguous()
        size = (shape[2], shape[3])
        ones = torch.eye(shape[1] * size[0] * size[1]).view(-1, shape[1], *size)
        return module(ones)[:, :, 0, 0].T.reshape(shape).contiguous()


def _changes(reader: str, parts: dict[str, torch.Tensor], shape: tuple[int, ...]):
    """The change as lists; None where the reader fails, or goes on without it after an error in its log."""
    try:
        change = changed_by(reader, parts, shape)
    except (AttributeError, RuntimeError) as error:
        print(f"  fails: {error}")
        return None
    return change.double().mul(1e7).round().div(1e7).tolist() if change.any() else None


def record_kinds(reader: str, label: str, commit: str, files: list[Path]) -> None:
    goal = Path(__file__).with_name("kinds.json")
    data = json.loads(goal.read_text()) if goal.exists() else {}
    made = {name: _changes(reader, parts, LAYOUTS[name][0]) for name, parts in layers().items()}
    data[label] = {"commit": commit, "changes": made}
    goal.write_text(json.dumps(data) + "\n")
    print(goal.name, label)
    for file in files:
        weights, far = read_lora(file), 0.0
        for path, layer in weights.layers.items():
            module = weights.base.inventory[path]
            weight = torch.zeros(module.outputs, *module.down_shape)
            parts = {**layer.parts, "alpha": torch.tensor(layer.alpha)}
            theirs = changed_by(reader, parts, tuple(weight.shape))
            far = max(far, (theirs - delta(layer, weight)).abs().max().item())
        print(f"{file.name}: {len(weights.layers)} layers, largest difference {far:.1e}")
