"""One small DoRA layer, merged by the readers' own code: what dora.json holds. record.py --dora calls it."""

import json
from pathlib import Path

import torch


def dora_layer() -> dict[str, torch.Tensor]:
    """A small DoRA layer: weight (4, 6), alpha 3, rank 2, magnitudes a tenth off the norms of the rows."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=generator)
    down, up = torch.randn(2, 6, generator=generator), torch.randn(4, 2, generator=generator) * 0.1
    scale = weight.norm(dim=1, keepdim=True) * (1 + 0.1 * torch.randn(4, 1, generator=generator))
    return {
        "weight": weight,
        "lora_down.weight": down,
        "lora_up.weight": up,
        "alpha": torch.tensor(3.0),
        "dora_scale": scale,
    }


def merged_by(reader: str, checkout: Path, also) -> torch.Tensor:
    """The layer's weight with the LoRA, computed by the reader's own code."""
    layer = dora_layer()
    weight = layer.pop("weight").clone()
    file = {f"x.{part}": tensor for part, tensor in layer.items()}
    if reader == "comfyui":
        import comfy.lora

        patch = comfy.lora.load_lora(file, {"x": "x.weight"})["x.weight"]
        return comfy.lora.calculate_weight([(1.0, patch, 1.0, None, lambda a: a)], weight, "x.weight")
    if reader == "forge":
        from backend.patcher import lora

        patch = lora.load_lora(file, {"x": "x.weight"})[0]["x.weight"]
        return lora.merge_lora_to_weight([(1.0, patch, 1.0, None, None)], weight, "x.weight")
    import network
    import network_lora

    module = torch.nn.Linear(6, 4, bias=False)
    module.weight.data.copy_(weight)
    net = network.Network("x", None)
    net.te_multiplier = net.unet_multiplier = 1.0
    weights = network.NetworkWeights(network_key="x", sd_key="x", w=layer, sd_module=module)
    change, _ = network_lora.NetworkModuleLora(net, weights).calc_updown(module.weight.data)
    return weight + change


def record_dora(reader: str, label: str, commit: str, checkout: Path, also) -> None:
    goal = Path(__file__).with_name("dora.json")
    data = json.loads(goal.read_text()) if goal.exists() else {}
    layer = {name: tensor.tolist() for name, tensor in dora_layer().items()}
    merged = data.get("merged", {}) | {label: {"commit": commit, "weight": merged_by(reader, checkout, also).tolist()}}
    goal.write_text(json.dumps({"layer": layer, "merged": merged}) + "\n")
    print(goal.name, label)
