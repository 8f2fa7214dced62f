"""Pre-train the tiny U-Net and both text encoders together, on pictures encoded once by the frozen VAE.

    python -m sdxl_nb.tiny.pretrain_unet BASE --vae VAE

reads BASE/tokenizer and BASE/tokenizer_2 and writes BASE/{unet,text_encoder,text_encoder_2} (an exponential moving
average of the weights, fp32) every few hundred steps; a run that was stopped goes on from BASE/state.

Epsilon prediction with min-SNR weighting (Hang et al. 2023, arXiv 2303.09556), timesteps stratified over the batch,
one caption in ten replaced by zeros (SDXL's empty prompt), AdamW, cosine decay.
"""

import argparse
import copy
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTokenizer

from .architecture import make_scheduler, make_text_encoders, make_unet
from .draw import caption, photograph, random_scene

BATCH = 32
MIN_SNR_GAMMA = 5.0
EMA_DECAY = 0.998


class TinySDXL(nn.Module):
    """The trained parts in one module, so that one optimizer and one average hold them all."""

    def __init__(self, vocab_size: int, bos: int, eos: int):
        super().__init__()
        self.unet = make_unet()
        self.text_encoder, self.text_encoder_2 = make_text_encoders(vocab_size, bos, eos)
        for encoder in (self.text_encoder, self.text_encoder_2):
            nn.init.normal_(encoder.get_input_embeddings().weight, std=0.6)

    def text(self, ids_1: torch.Tensor, ids_2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Penultimate hidden states of both encoders (N, 32, 160) and the second's pooled embedding (N, 96)."""
        one = self.text_encoder(ids_1, output_hidden_states=True)
        two = self.text_encoder_2(ids_2, output_hidden_states=True)
        return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1), two.text_embeds

    def forward(self, noisy, timesteps, ids_1, ids_2, time_ids, kept):
        hidden, pooled = self.text(ids_1, ids_2)
        hidden, pooled = hidden * kept[:, None, None], pooled * kept[:, None]
        added = {"text_embeds": pooled, "time_ids": time_ids}
        return self.unet(noisy, timesteps, hidden, added_cond_kwargs=added, return_dict=False)[0]


def encode_pictures(count: int, folder: Path, vae: AutoencoderKL, tokenizers) -> dict[str, torch.Tensor]:
    """Draw `count` captioned pictures and encode them: scaled latent means (fp16), token ids, time ids."""
    cached = folder / f"pictures-{count}.safetensors"
    if cached.exists():
        return load_file(cached)
    rng, latents, captions, ids = random.Random(11), [], [], []
    for _ in range(0, count, 100):
        batch = []
        for _ in range(100):
            scene = random_scene(rng)
            picture, time_ids = photograph(scene, rng)
            batch.append(np.asarray(picture))
            captions.append(caption(scene, rng))
            ids.append(time_ids)
        pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            latents.append((vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor).half())
    tokens = [
        t(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(torch.int16)
        for t in tokenizers
    ]
    made = {
        "latents": torch.cat(latents).contiguous(),
        "ids_1": tokens[0],
        "ids_2": tokens[1],
        "time_ids": torch.tensor(ids, dtype=torch.float32),
    }
    save_file(made, cached)
    return made


def batch_at(step: int, data: dict[str, torch.Tensor], size: int = BATCH) -> dict[str, torch.Tensor]:
    """The pictures, noise and stratified timesteps of one step; a pure function of the step."""
    count = len(data["latents"])
    per_epoch = count // size
    order = torch.randperm(count, generator=torch.Generator().manual_seed(step // per_epoch))
    index = order[(step % per_epoch) * size :][:size]
    generator = torch.Generator().manual_seed(1_000_000 + step)
    stratum = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
    return {
        "latents": data["latents"][index].float(),
        "ids_1": data["ids_1"][index].long(),
        "ids_2": data["ids_2"][index].long(),
        "time_ids": data["time_ids"][index],
        "noise": torch.randn(size, *data["latents"].shape[1:], generator=generator),
        "timesteps": (stratum * 1000).long(),
        "kept": (torch.rand(size, generator=generator) >= 0.1).float(),
        "index": index,
    }


def weighted_loss(model: TinySDXL, batch: dict[str, torch.Tensor], alphas: torch.Tensor) -> torch.Tensor:
    """min-SNR-weighted squared error of the predicted noise."""
    alpha = alphas[batch["timesteps"]][:, None, None, None]
    noisy = alpha.sqrt() * batch["latents"] + (1 - alpha).sqrt() * batch["noise"]
    noisy = noisy.to(memory_format=torch.channels_last)
    predicted = model(noisy, batch["timesteps"], batch["ids_1"], batch["ids_2"], batch["time_ids"], batch["kept"])
    snr = alphas[batch["timesteps"]] / (1 - alphas[batch["timesteps"]])
    weight = snr.clamp(max=MIN_SNR_GAMMA) / snr
    return (weight * (predicted - batch["noise"]).square().mean(dim=(1, 2, 3))).mean()


def learning_rate(step: int, steps: int, peak: float = 1e-3, warm_up: int = 100) -> float:
    """So many steps of warm-up, constant to 40 %, then cosine to a hundredth of the peak."""
    decay = max(0.0, (step / steps - 0.4) / 0.6)
    return peak * min(1, (step + 1) / warm_up) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * decay)))


def save(model: TinySDXL, average: TinySDXL, optimizer: torch.optim.Optimizer, step: int, folder: Path) -> None:
    """Write the averaged parts for use, and all that is needed to go on."""
    for name in ("unet", "text_encoder", "text_encoder_2"):
        getattr(average, name).save_pretrained(folder / name)
    state = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    state |= {f"average.{k}": v.contiguous() for k, v in average.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{k}": v.contiguous() for k, v in moments.items()}
    (folder / "state").mkdir(exist_ok=True)
    save_file(state, folder / "state" / "new.safetensors", metadata={"step": str(step)})
    (folder / "state" / "new.safetensors").rename(folder / "state" / "last.safetensors")


def resume(model: TinySDXL, average: TinySDXL, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Load the last state, if there is one; returns the number of steps done."""
    path = folder / "state" / "last.safetensors"
    if not path.exists():
        return 0
    from safetensors import safe_open

    state = load_file(path)
    for prefix, part in (("model.", model), ("average.", average)):
        part.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    own = optimizer.state_dict()
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            own["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(own)
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--steps", type=int, default=6500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile: faster steps after minutes of waiting")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    tokenizers = [CLIPTokenizer.from_pretrained(args.base / name) for name in ("tokenizer", "tokenizer_2")]
    model = TinySDXL(len(tokenizers[0]), tokenizers[0].bos_token_id, tokenizers[0].eos_token_id)
    model.unet.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    first = resume(model, average, optimizer, args.base)
    data = encode_pictures(args.pictures, args.base, AutoencoderKL.from_pretrained(args.vae), tokenizers)
    print(
        f"{len(data['latents'])} pictures, latents' std {data['latents'].float().std():.3f}, from step {first}",
        flush=True,
    )
    alphas = make_scheduler().alphas_cumprod
    if args.compile:
        model.unet.compile()
    begun, losses = time.monotonic(), []
    for step in range(first, args.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, args.steps)
        loss = weighted_loss(model, batch_at(step, data), alphas)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            rate = (time.monotonic() - begun) / (step + 1 - first)
            print(f"step {step + 1} of {args.steps} loss {np.mean(losses[-50:]):.4f} {rate:.2f} s a step", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            save(model, average, optimizer, step + 1, args.base)


if __name__ == "__main__":
    main()
