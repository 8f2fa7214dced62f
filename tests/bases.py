"""Bases of many kinds, made in milliseconds: folders of a random SDXL (small_runs.py), single files of the tiny one."""

import functools
import json
import shutil

import torch
from random_sdxl import make_pipeline
from safetensors.torch import load_file, save_file
from small_runs import home
from test_single_file import BASE, sgm_checkpoint

from sdxl_nb.models import files, loading, sources

EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_max": 80.0, "sigma_data": 0.5}
COSXL = {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction", "sigma_data": 1.0, "sigma_max": 120.0}
STATISTICS = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.5, 2.0, 1.0], "scaling_factor": 0.5}
DDPM = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def scheduler(name, **fields):
    """A scheduler_config.json of SDXL's betas."""
    return {"_class_name": name, **DDPM, "prediction_type": "epsilon", "trained_betas": None, **fields}


def folder(target, only_scheduler=None, tiny=False, **changes):
    """A copy of a base; changes are {"unet": {"field": value}} in its JSON files, `only_scheduler` is the whole one."""
    shutil.copytree(BASE if tiny else home()[0] / "base", target)
    if only_scheduler is not None:
        changes["index"] = {"scheduler": ["diffusers", only_scheduler["_class_name"]]} | changes.get("index", {})
    for part, fields in changes.items():
        name = {"index": "model_index.json", "scheduler": "scheduler/scheduler_config.json"}.get(part)
        path = target / (name or f"{part}/config.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    if only_scheduler is not None:
        (target / "scheduler" / "scheduler_config.json").write_text(json.dumps(only_scheduler))
    return target


def relative(target, **unet):
    """A base whose U-Net is built otherwise."""
    make_pipeline(**unet).save_pretrained(target)
    return target


def halves(target):
    """The small base with weights as fp16 alone."""
    folder(target)
    for path in list(target.rglob("*.safetensors")):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
        path.rename(path.with_suffix(".fp16.safetensors"))
    return target


@functools.cache
def checkpoint():
    """The tensors of the embedded base under the names of a single file."""
    return sgm_checkpoint(BASE)


def file(target, header=None, without=(), **more):
    """The embedded base as one file; `more` are marker tensors, by name with _ for a dot, as lists of numbers."""
    tensors = {name: tensor for name, tensor in checkpoint().items() if not name.startswith(tuple(without))}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors | {name: torch.as_tensor(value) for name, value in more.items()}, target, header)
    return target


def configure_single_files(monkeypatch):
    """Single files are of the embedded base here, not of full-size SDXL."""
    for module in (loading, sources, files):
        monkeypatch.setattr(module, "checkpoint_configs", lambda cache_dir=None: BASE)
