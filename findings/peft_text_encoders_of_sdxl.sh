#!/usr/bin/env bash
# PEFT's adapter files of SDXL's two text encoders have keys of two depths, though both are the same layers of one
# family of models, and an adapter of the older depth loads into the first without its weights, with a warning at most.
#
# transformers 5.23.0, peft 0.21.2, torch 2.13.0 (CPU). Since transformers 5.6 CLIPTextModel has its layers at
# encoder.layers, CLIPTextModelWithProjection still at text_model.encoder.layers. So one LoRA configuration saved from
# text_encoder and text_encoder_2 gives base_model.model.encoder... and base_model.model.text_model.encoder...; a file
# of an older transformers, which had text_model in both, no longer fits the first. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 \
    peft==0.21.2 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1 FOLDER="$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import os
import warnings
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

folder = Path(os.environ["FOLDER"])
sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
config = transformers.CLIPTextConfig(vocab_size=100, projection_dim=16, **sizes)
kinds = {"text_encoder": transformers.CLIPTextModel, "text_encoder_2": transformers.CLIPTextModelWithProjection}
print(f"transformers {transformers.__version__}, peft {peft.__version__}")
first = {}
for name, kind in kinds.items():
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(kind(config), lora).save_pretrained(folder / name)
    first[name] = min(load_file(folder / name / "adapter_model.safetensors"))
    print(f"{name:<15} {first[name]}")
assert first["text_encoder"].startswith("base_model.model.encoder.layers.0.")
assert first["text_encoder_2"].startswith("base_model.model.text_model.encoder.layers.0.")

path = folder / "text_encoder" / "adapter_model.safetensors"  # as an older transformers named its layers
older = {key.replace(".encoder.", ".text_model.encoder."): t for key, t in load_file(path).items()}
save_file(older, path)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    model = peft.PeftModel.from_pretrained(kinds["text_encoder"](config), folder / "text_encoder")
ups = [weight for name, weight in model.named_parameters() if "lora_B" in name]
wanted = [t for key, t in older.items() if "lora_B" in key]
taken = any(torch.equal(a, b) for a in ups for b in wanted)
print(f"older file loaded: weights taken {taken}, error none, warnings {len(said)}")
assert not taken
print("as described: two depths, and the older file's weights are left out")
PYTHON
