#!/usr/bin/env bash
# diffusers' SDXL pipeline leaves out a VAE's shift_factor, which AutoencoderKL's own configuration has for every model.
#
# diffusers 0.42.1, torch 2.13.0 (CPU), random tiny weights. Latents go to the VAE as latents / scaling_factor; of
# latents_mean and latents_std the SDXL pipeline takes notice, of shift_factor only the SD 3 and Flux pipelines do. So a
# base whose VAE was saved with a shift draws with the wrong latents, without an error. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 \
    diffusers==0.42.1 transformers==5.23.0 numpy==2.4.6
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import diffusers
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

torch.manual_seed(0)
unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=4, addition_embed_type="text_time", addition_time_embed_dim=4,
    projection_class_embeddings_input_dim=32,
)  # fmt: skip
vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, scaling_factor=0.5).eval()
given = {
    "prompt_embeds": torch.zeros(1, 3, 8), "pooled_prompt_embeds": torch.zeros(1, 8), "guidance_scale": 1.0,
    "height": 8, "width": 8, "num_inference_steps": 1, "output_type": "np",
}  # fmt: skip


def drawn(**config):
    vae.register_to_config(**config)
    parts = {"text_encoder": None, "text_encoder_2": None, "tokenizer": None, "tokenizer_2": None}
    pipe = StableDiffusionXLPipeline(vae=vae, unet=unet, scheduler=EulerDiscreteScheduler(), **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe(**given, generator=torch.manual_seed(1)).images[0]


plain = drawn()
shifted = drawn(shift_factor=3.0)
meant = drawn(shift_factor=None, latents_mean=[3.0] * 4, latents_std=[1.0] * 4)
print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
print(f"largest difference with shift_factor 3: {abs(shifted - plain).max():.4f}")
print(f"largest difference with latents_mean 3: {abs(meant - plain).max():.4f}")
assert abs(shifted - plain).max() == 0 < abs(meant - plain).max()
print("as described: the shift is left out")
PYTHON
