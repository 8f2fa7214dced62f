"""One measured run in a process of its own: sdxl_nb's, or the unmodified diffusers script's.

    python -m benchmarks.child ours RESULT.json [--record NOISE.npz] FLAG ...
    python -m benchmarks.child copies RESULT.json FLAG ...           (ours, which fills its caches with copies)
    python -m benchmarks.child reference RESULT.json [--replay NOISE.npz] SCRIPT FLAG ...

Out: the process's CPU seconds (all threads, user and system) and the loss at the end of every step, and its peak
memory. With --record and --replay the script is given the random choices of our run: order of pictures, noise,
timesteps, first LoRA weights.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any


class Steps:
    """Losses, CPU seconds and moments on the clock, step by step; kept in a file at the end."""

    def __init__(self, path: str):
        self.path, self.losses, self.seconds, self.moments = path, [], [], []

    def add(self, loss: float) -> None:
        self.losses.append(loss)
        self.seconds.append(time.process_time())
        self.moments.append(time.monotonic())

    def save(self) -> None:
        import torch

        from sdxl_nb.system.memory import peak_memory

        # asked here: what the system tells a parent of its child counts what the parent itself held at the fork
        memory = peak_memory(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        told = {"losses": self.losses, "seconds": self.seconds, "moments": self.moments, "memory": memory}
        Path(self.path).write_text(json.dumps(told))


def ours(steps: Steps, noise: str | None, flags: list[str]) -> None:
    """What `python -m sdxl_nb.train` does."""
    from sdxl_nb.config.flags import read_flags, train_parser

    config, _ = read_flags(train_parser("bench", ""), flags)
    if noise:
        _record(noise, config)
    from sdxl_nb.train import train

    train(config, lambda event: steps.add(event["train_loss"]) if event["event"] == "step" else None)


def _record(path: str, config: Any) -> None:
    """Keep what our run draws, position by position."""
    import atexit

    import numpy as np

    from sdxl_nb.data import sampling
    from sdxl_nb.training import step

    drawn: dict[int, list[Any]] = {}
    order: list[tuple[int, int]] = []
    noise, noised = sampling.Choices.noise, step.Step._noised

    def recorded(choices: Any, shape: tuple[int, ...]) -> Any:
        values = noise(choices, shape)
        drawn.setdefault(choices.position, []).append(values)
        return values

    def ordered(self: Any, positions: Any, pictures: Any) -> Any:
        order.extend(zip(positions, pictures, strict=True))
        return noised(self, positions, pictures)

    def save() -> None:
        choices = [sampling.Choices.at(config.seed, p, timesteps=1000, empty_share=0) for p, _ in order]
        np.savez(
            path,
            pictures=[picture for _, picture in order],
            timesteps=[chosen.timestep for chosen in choices],
            latent=np.stack([drawn[position][0] for position, _ in order]),
            noise=np.stack([drawn[position][1] for position, _ in order]),
            seed=config.seed,
        )

    sampling.Choices.noise, step.Step._noised = recorded, ordered
    atexit.register(save)


def reference(steps: Steps, noise: str | None, script: str, flags: list[str]) -> None:
    """The script as it is, told only where torchvision's parts are; its own log tells the losses."""
    import importlib

    from accelerate import Accelerator

    from benchmarks import standin

    for name in ("transformers", "diffusers"):  # before the stand-in: they look whether a whole torchvision is there
        importlib.import_module(name)
    standin.install()
    log = Accelerator.log

    def logged(self: Any, values: dict[str, Any], *arguments: Any, **named: Any) -> None:
        if "train_loss" in values:
            steps.add(values["train_loss"])
        log(self, values, *arguments, **named)

    Accelerator.log = logged
    if noise:
        _replay(noise)
    sys.argv = [script, *flags]
    runpy.run_path(script, run_name="__main__")


def _replay(path: str) -> None:
    """Give the script our order of pictures, first weights, noise and timesteps, where it would draw its own."""
    import numpy as np
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from torch.utils import data

    kept = dict(np.load(path))
    place = {"order": 0, "drawn": 0, "many": 0}

    class Order(data.Sampler):
        def __init__(self, count: int):
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __iter__(self) -> Any:
            first = place["order"]
            place["order"] += self.count
            return iter(kept["pictures"][first : first + self.count].tolist())

    class Loader(data.DataLoader):
        def __init__(self, dataset: Any, *arguments: Any, shuffle: bool = False, **named: Any):
            super().__init__(dataset, *arguments, **named, **({"sampler": Order(len(dataset))} if shuffle else {}))

    def mine(name: str) -> Any:
        return torch.from_numpy(kept[name][place["drawn"] - place["many"] : place["drawn"]])

    def sample(self: Any, generator: Any = None) -> Any:
        place["many"] = len(self.mean)
        place["drawn"] += place["many"]
        return self.mean + self.std * mine("latent")

    add_adapter = UNet2DConditionModel.add_adapter

    def seeded(self: Any, *arguments: Any, **named: Any) -> None:
        torch.manual_seed(int(kept["seed"]))
        add_adapter(self, *arguments, **named)

    data.DataLoader, DiagonalGaussianDistribution.sample, UNet2DConditionModel.add_adapter = Loader, sample, seeded
    torch.randn_like, torch.randint = lambda *_, **__: mine("noise"), lambda *_, **__: mine("timesteps")


def main(which: str, result: str, *rest: str) -> None:
    steps, rest, noise = Steps(result), list(rest), None
    if rest and rest[0] in ("--record", "--replay"):
        noise, rest = rest[1], rest[2:]
    if which == "copies":
        from benchmarks import copies

        copies.install()
    reference(steps, noise, rest[0], rest[1:]) if which == "reference" else ours(steps, noise, rest)
    steps.save()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(*sys.argv[1:])
