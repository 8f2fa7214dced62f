"""Extraction from two full-size single files: 7 GB each (mostly holes on disk), in less memory than one. Minutes."""

import json
import os
import subprocess
import sys

import pytest
import torch

from sdxl_nb.lora.changes.reading import _text_encoder, _unet, _vae
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.layers import delta
from sdxl_nb.models.checkpoint_names import place
from sdxl_nb.models.sources import checkpoint_configs
from sdxl_nb.models.streaming import Hollow

MAKERS = {"unet": _unet, "text_encoder": _text_encoder, "text_encoder_2": _text_encoder, "vae": _vae}
MIDDLE = "mid_block.attentions.0.transformer_blocks.0", "middle_block.1.transformer_blocks.0"
CHANGED = {  # a layer of each of the larger shapes: as diffusers names it, as the file does
    **{
        f"unet.{MIDDLE[0]}.{layer}": f"{MIDDLE[1]}.{layer}"
        for layer in ("attn1.to_q", "attn2.to_k", "ff.net.0.proj", "ff.net.2")
    },
    "unet.up_blocks.0.resnets.0.conv1": "output_blocks.0.0.in_layers.2",
    "unet.up_blocks.1.resnets.0.conv_shortcut": "output_blocks.3.0.skip_connection",
}


def layout():
    """Key -> shape of every tensor in a single file of SDXL."""
    shapes = {}
    for part, make in MAKERS.items():
        config = json.loads((checkpoint_configs() / part / "config.json").read_text())
        made = make(part, config)
        with Hollow():
            model = made()
        for name, parameter in model.named_parameters():
            where, shape = place(part, name, config), tuple(parameter.shape)
            shape = shape[::-1] if where.transposed else shape
            shape = (*shape, 1, 1) if where.convolution else shape
            shapes[where.key] = (3 * shape[0], *shape[1:]) if where.third is not None else shape
    return shapes


def written(path, shapes, tensors):
    """A file of fp16 zeros, which are holes, but for these tensors."""
    header, end = {}, 0
    for key, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()  # bytes
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        for key, tensor in tensors.items():
            file.seek(8 + len(text) + header[key]["data_offsets"][0])
            file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return end


@pytest.mark.soak
def test_two_full_size_files_fit_in_little_memory(tmp_path):
    shapes, generator = layout(), torch.Generator().manual_seed(0)
    tensors = {}
    for key in CHANGED.values():
        shape = shapes[f"model.diffusion_model.{key}.weight"]
        thin = [torch.randn(n, 8, generator=generator) for n in (shape[0], torch.Size(shape[1:]).numel())]
        tensors[f"model.diffusion_model.{key}.weight"] = (0.01 * thin[0] @ thin[1].T).reshape(shape).half()
    files = [tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"]
    sizes = [written(path, shapes, held) for path, held in zip(files, ({}, tensors), strict=True)]
    assert sizes[0] == sizes[1] > 6.9e9 and files[1].stat().st_blocks * 512 < 1e9
    script = "import resource, sys; from sdxl_nb.lora.command import main; status = main(sys.argv[1:]); "
    script += "print(resource.getrusage(resource.RUSAGE_SELF)); sys.exit(status)"
    goal = tmp_path / "lora.safetensors"
    asked = ["extract", "--base", str(files[0]), "--tuned", str(files[1]), "--output", str(goal), "--rank", "8"]
    done = subprocess.run([sys.executable, "-c", script, *asked], capture_output=True, text=True, env=os.environ)
    print(done.stdout, done.stderr[-2000:])
    assert done.returncode == 0
    peak = int(done.stdout.rpartition("ru_maxrss=")[2].partition(",")[0])
    assert peak * 1024 < 3e9, peak
    found = read_lora(goal)
    assert found.layers.keys() == CHANGED.keys()
    for path, key in CHANGED.items():
        expected = tensors[f"model.diffusion_model.{key}.weight"].float()
        assert float((delta(found.layers[path]) - expected).norm() / expected.norm()) < 1e-3, path  # fp16's rounding
