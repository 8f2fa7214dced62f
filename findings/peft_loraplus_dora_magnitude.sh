#!/usr/bin/env bash
# peft's LoRA+ optimizer gives DoRA's magnitudes the raised rate of the up matrices on linear layers, and not on
# convolutions.
#
# peft 0.21.2, torch 2.13.0 (CPU). LoRA+ (arXiv 2402.12354) raises the rate of B alone. create_loraplus_optimizer puts
# into that group what is called lora_B or has one dimension: a linear layer's DoRA magnitude has one, a convolution's
# four. So in one model, as SDXL's U-Net with its convolutions, magnitudes learn at two rates. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 \
    peft==0.21.2 transformers==5.23.0 numpy==2.4.6
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import peft
import torch
from peft.optimizers import create_loraplus_optimizer


class Both(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.conv = torch.nn.Linear(8, 8), torch.nn.Conv2d(4, 4, 3)


model = peft.get_peft_model(Both(), peft.LoraConfig(target_modules=["linear", "conv"], use_dora=True, r=2))
optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)
rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
found = {}
for name, weight in model.named_parameters():
    if weight.requires_grad:
        layer = "linear" if ".linear." in name else "conv"
        kind = next(kind for kind in ("lora_A", "lora_B", "lora_magnitude_vector") if kind in name)
        found[layer, kind] = rates[id(weight)]
print(f"peft {peft.__version__}, torch {torch.__version__}, lr 0.001, ratio 16")
for (layer, kind), rate in found.items():
    print(f"{layer:>6} {kind:<22} {rate:g}")
assert found["linear", "lora_magnitude_vector"] == found["linear", "lora_B"] == 1e-3 * 16
assert found["conv", "lora_magnitude_vector"] == found["conv", "lora_A"] == 1e-3
print("as described: two rates for the magnitudes of one model")
PYTHON
