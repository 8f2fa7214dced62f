"""Pre-train the tiny VAE, in two stages that can overlap with the U-Net's pre-training.

    python -m sdxl_nb.tiny.pretrain_vae OUT --stage 1     encoder and decoder, on 32 px crops, then 64 px pictures
    python -m sdxl_nb.tiny.pretrain_vae OUT --stage 2     decoder alone at 64 px, its encoder frozen

Stage 1 fixes the latent space, so that the U-Net may start; stage 2 sharpens the decoder, as Stability AI did with
its `ft-mse` VAE. Pictures are drawn fresh for every step.
"""

import argparse
import math
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw

from .architecture import make_vae
from .draw import SIDE, photograph, random_scene

KL_WEIGHT = 1e-3


def scribble(rng: random.Random) -> Image.Image:
    """Lines, grids, polygons, gradients and noise in any colour: keeps the VAE from knowing only our drawings."""

    def colour():
        return tuple(rng.randrange(256) for _ in range(3))

    def point():
        return rng.randrange(-8, SIDE + 8), rng.randrange(-8, SIDE + 8)

    corners = Image.new("RGB", (2, 2))
    corners.putdata([colour() for _ in range(4)])
    picture = (
        corners.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        if rng.random() < 0.5
        else Image.new("RGB", (SIDE, SIDE), colour())
    )
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.randrange(7)):
        pen.polygon([point() for _ in range(rng.randrange(3, 6))], fill=colour(), outline=colour())
    for _ in range(rng.randrange(9)):
        pen.line([point(), point()], fill=colour(), width=rng.choice([1, 1, 2, 3]))
    if rng.random() < 0.3:
        step, ink = rng.randrange(5, 17), colour()
        for at in range(rng.randrange(step), SIDE, step):
            pen.line([(at, 0), (at, SIDE)], fill=ink)
            pen.line([(0, at), (SIDE, at)], fill=ink)
    if rng.random() < 0.2:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(4, 25), (SIDE, SIDE, 3))
        picture = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    return picture


def pictures(count: int, rng: random.Random) -> torch.Tensor:
    """Fresh training pictures, (count, 3, 64, 64) in [-1, 1]: three in four are scenes, one is a scribble."""
    drawn = [photograph(random_scene(rng), rng)[0] if rng.random() < 0.75 else scribble(rng) for _ in range(count)]
    return torch.from_numpy(np.stack([np.asarray(p) for p in drawn])).permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """L1 + MSE + half the L1 of the differences between neighbouring pixels, which keeps edges sharp."""
    loss = F.l1_loss(made, real) + F.mse_loss(made, real)
    for axis in (2, 3):
        loss = loss + 0.25 * F.l1_loss(made.diff(dim=axis), real.diff(dim=axis))
    return loss


def random_crop(batch: torch.Tensor, side: int, rng: random.Random) -> torch.Tensor:
    top, left = rng.randrange(0, SIDE - side + 1, 4), rng.randrange(0, SIDE - side + 1, 4)
    return batch[:, :, top : top + side, left : left + side]


def train(vae: AutoencoderKL, *, stage: int, steps: int, seed: int) -> None:
    """AdamW, batches of 32; learning rate constant for 30 % of the steps, then cosine to nearly 0."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    vae.encoder.requires_grad_(stage == 1)
    vae.quant_conv.requires_grad_(stage == 1)
    peak = 2e-3 if stage == 1 else 1e-3
    optimizer = torch.optim.AdamW(
        [p for p in vae.parameters() if p.requires_grad], lr=peak, betas=(0.9, 0.99), weight_decay=0.01
    )
    for step in range(steps):
        done = step / steps
        decay = 0.5 + 0.5 * math.cos(math.pi * max(0, done - 0.3) / 0.7)
        optimizer.param_groups[0]["lr"] = peak * min(1, (step + 1) / 50) * decay + 1e-6
        real = pictures(32, rng)
        if stage == 1 and done < 0.85:
            real = random_crop(real, 32, rng)
        posterior = vae.encode(real).latent_dist
        loss = reconstruction_loss(vae.decode(posterior.sample()).sample, real)
        if stage == 1:
            loss = loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"stage {stage} step {step} of {steps} loss {loss.item():.4f}", flush=True)


@torch.no_grad()
def latent_std(vae: AutoencoderKL) -> float:
    """Standard deviation of sampled latents of 256 scenes; SDXL's scaling_factor is its inverse."""
    return vae.encode(pictures(256, random.Random(1))).latent_dist.sample().std().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the VAE; stage 2 continues from <out> and writes <out>-final")
    parser.add_argument("--stage", type=int, choices=[1, 2], required=True)
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vae = make_vae() if args.stage == 1 else AutoencoderKL.from_pretrained(args.out)
    vae.to(memory_format=torch.channels_last)
    train(vae, stage=args.stage, steps=args.steps, seed=args.stage)
    if args.stage == 1:
        vae.register_to_config(scaling_factor=round(1 / latent_std(vae), 5))
    vae.save_pretrained(args.out if args.stage == 1 else Path(f"{args.out}-final"))
    real = pictures(256, random.Random(2))
    with torch.no_grad():
        error = (vae.decode(vae.encode(real).latent_dist.mean).sample - real).abs().mean().item() * 127.5
    print(f"scaling_factor {vae.config.scaling_factor}; mean reconstruction error {error:.2f} of 255")


if __name__ == "__main__":
    main()
