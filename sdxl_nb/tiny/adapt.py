"""Retrain the embedded base's U-Net for another objective, so that what trains on such bases can be seen to learn.

    python -m sdxl_nb.tiny.adapt FOLDER --kind edm

writes a whole base into FOLDER: the embedded one with the scheduler and VAE statistics of Playground 2.5 (edm), with
rectified flow's scheduler (flow), or with nine input channels (inpainting). Its text encoders and VAE are the embedded
ones; the U-Net goes on from what it knows. Noise and targets are those of a run on such a base
(training/noise/noising.py), batches and the course of the learning rate pre-training's (pretrain_unet.py). EDM is too
far from epsilon for that alone (noise with a minus, other numbers for the time): the embedded base teaches it
(teacher.py).
"""

import argparse
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..models.inpainting import draw_hole, hollowed, mask_of
from ..models.loading import load
from ..models.objective import base_objective
from ..models.sources import EMBEDDED, Source
from ..training.noise.noising import Noising
from .draw import caption, photograph, random_scene
from .pretrain_unet import batch_at, encode_pictures, learning_rate
from .teacher import Teacher

SCHEDULERS: dict[str, dict[str, Any]] = {
    "edm": {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_max": 80.0, "sigma_data": 0.5},
    "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0},
}


class Course(NamedTuple):
    """How a base is retrained: on so many pictures, in steps of `batch`, at a rate of at most `peak`."""

    pictures: int
    steps: int
    batch: int
    peak: float
    warm_up: int
    decay: float  # of the average of the weights
    taught: bool = False  # by the embedded base (teacher.py), not by the pictures themselves


COURSES = {
    "edm": Course(2400, 150, 16, 1e-3, 20, 0.96, taught=True),
    "flow": Course(8000, 1200, 32, 5e-4, 100, 0.99),
    "inpainting": Course(8000, 1200, 32, 5e-4, 100, 0.99),
}


def outline(folder: Path, kind: str) -> None:
    """The embedded base with the configuration files of this kind."""
    shutil.copytree(EMBEDDED["embedded:tiny-sdxl"], folder, dirs_exist_ok=True)
    if kind == "inpainting":
        _with_more_inputs(folder)
        return
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULERS[kind]))
    _change(folder / "model_index.json", scheduler=["diffusers", SCHEDULERS[kind]["_class_name"]])


def _change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields, indent=2) + "\n")


def _with_statistics(folder: Path, latents: torch.Tensor, factor: float) -> None:
    """Write the mean and deviation of each channel of the VAE's latents into its configuration, as Playground does."""
    found = {"latents_mean": latents.mean((0, 2, 3)).tolist(), "latents_std": latents.std((0, 2, 3)).tolist()}
    _change(folder / "vae" / "config.json", scaling_factor=factor, **found)


@torch.no_grad()
def _embedded(source: Source, ids: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and pooled embeddings of every caption, fp16."""
    hidden, pooled = [], []
    one, two = (load(source, part) for part in ("text_encoder", "text_encoder_2"))
    for first, second in zip(ids["ids_1"].split(256), ids["ids_2"].split(256), strict=True):
        a = one(first.long(), output_hidden_states=True)
        b = two(second.long(), output_hidden_states=True)
        hidden.append(torch.cat([a.hidden_states[-2], b.hidden_states[-2]], dim=-1).half())
        pooled.append(b.text_embeds.half())
    return torch.cat(hidden), torch.cat(pooled)


class Pictures:
    """The pictures of pre-training as this base's U-Net sees them, and what they are called."""

    def __init__(self, folder: Path, kind: str, count: int):
        source = Source(str(folder))
        self.vae, self.kind = load(source, "vae"), kind
        tokenizers = [load(source, name) for name in ("tokenizer", "tokenizer_2")]
        self.data = encode_pictures(count, folder, self.vae, tokenizers)
        raw = self.data["latents"].float() / self.vae.config.scaling_factor
        if kind == "edm":
            _with_statistics(folder, raw, SCHEDULERS["edm"]["sigma_data"])
        self.objective = base_objective.of(source)
        self.data["latents"] = self.objective.latents.scaled(raw)
        self.hidden, self.pooled = _embedded(source, self.data)
        self.pixels = drawn_again(count) if kind == "inpainting" else None

    def around(self, index: torch.Tensor, step: int) -> torch.Tensor:
        """Mask and latents around a hole (N, 5, h, w) of these pictures at a step."""
        assert self.pixels is not None
        generator = np.random.default_rng(step)
        holes = [draw_hole(*self.pixels.shape[-2:], generator) for _ in index]
        left = [hollowed(self.pixels[i], hole) for i, hole in zip(index.tolist(), holes, strict=True)]
        with torch.no_grad():
            latents = self.vae.encode(torch.from_numpy(np.stack(left))).latent_dist.mean
        scale = self.pixels.shape[-1] // latents.shape[-1]
        masks = torch.from_numpy(np.stack([mask_of(hole, scale) for hole in holes]))
        return torch.cat([masks, self.objective.latents.scaled(latents)], dim=1)


def drawn_again(count: int) -> np.ndarray:
    """The pixels (N, 3, 64, 64) in [-1, 1] of the pictures that `encode_pictures` encoded."""
    rng, found = random.Random(11), []
    for _ in range(count):
        scene = random_scene(rng)
        found.append(np.asarray(photograph(scene, rng)[0]))
        caption(scene, rng)  # draws from the same numbers
    return np.stack(found).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1


def _with_more_inputs(folder: Path) -> None:
    """Nine input channels: those that are new say nothing yet."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    first = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([first, first.new_zeros(first.shape[0], 5, 3, 3)], dim=1)
    save_file(weights, path, {"format": "pt"})
    _change(folder / "unet" / "config.json", in_channels=9)


def adapt(folder: Path, kind: str, *, course: Course | None = None, progress: int = 20) -> Path:
    """Write the base of this kind into `folder` and return it; every `progress` steps a line says how far it is."""
    course = course or COURSES[kind]
    outline(folder, kind)
    known = Pictures(folder, kind, course.pictures)
    unet, noising = load(Source(str(folder)), "unet").float(), Noising.of(known.objective)
    unet.train().requires_grad_().to(memory_format=torch.channels_last)
    teacher = _taught(unet, noising, known, kind) if course.taught else None
    weights = list(unet.parameters())
    average = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    begun, losses = time.monotonic(), []
    for step in range(course.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, course.steps, course.peak, course.warm_up)
        loss = _loss(unet, noising, known, batch_at(step, known.data, course.batch), step, teacher)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1 - min(course.decay, (step + 1) / (step + 10)))
        losses.append(loss.item())
        if (step + 1) % progress == 0:
            each, mean = (time.monotonic() - begun) / (step + 1), sum(losses[-progress:]) / progress
            print(f"{kind}: step {step + 1} of {course.steps}, loss {mean:.4f}, {each:.2f} s a step", flush=True)
    with torch.no_grad():
        for weight, mean in zip(weights, average, strict=True):
            weight.copy_(mean)
    unet.half().save_pretrained(folder / "unet")
    return folder


def _taught(unet: Any, noising: Noising, known: Pictures, kind: str) -> Teacher:
    """The teacher of this U-Net, which begins with its knowledge."""
    teacher = Teacher(known.objective, noising, SCHEDULERS[kind].get("sigma_data", 1.0))
    missed = teacher.prepare(unet)
    print(f"{kind}: the time is told in other words, {missed:.1%} of its meaning lost", flush=True)
    return teacher


def _loss(
    unet: Any, noising: Noising, known: Pictures, batch: dict[str, torch.Tensor], step: int, teacher: Teacher | None
) -> torch.Tensor:
    """The mean squared error at one step."""
    x0, noise, kept, index = batch["latents"], batch["noise"], batch["kept"], batch["index"]
    added = {"text_embeds": known.pooled[index].float() * kept[:, None], "time_ids": batch["time_ids"]}
    text = known.hidden[index].float() * kept[:, None, None]
    if teacher is not None:
        when = teacher.table[batch["timesteps"]]
        more = torch.randn(noise.shape, generator=torch.Generator().manual_seed(2_000_000 + step))
        seen, wanted = teacher.lesson(x0, (noise, more), when, text, added)
    else:
        when = batch["timesteps"] * len(noising) // 1000
        seen, wanted = noising.noisy(x0, noise, when), noising.target(x0, noise, when)
    if known.pixels is not None:
        seen = torch.cat([seen, known.around(index, step)], dim=1)
    seen = seen.to(memory_format=torch.channels_last)
    predicted = unet(seen, noising.times(when), text, added_cond_kwargs=added, return_dict=False)[0]
    return (predicted - wanted).square().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=[*SCHEDULERS, "inpainting"], required=True)
    parser.add_argument("--steps", type=int, help="fewer or more than its course has")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    course = COURSES[args.kind]
    course = course._replace(steps=args.steps or course.steps)
    print(f"A base in {adapt(args.folder, args.kind, course=course)}")


if __name__ == "__main__":
    main()
