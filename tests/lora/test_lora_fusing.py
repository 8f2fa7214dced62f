"""A LoRA inside a base; and the same pictures from both files, through our loader and through diffusers'."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from bases import configure_single_files, file, folder, scheduler
from random_sdxl import make_pipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_factored import KINDS, add
from test_lora import add_lora, encode, make_models, models_of, predict
from test_single_file import sgm_checkpoint

from sdxl_nb.drawing.generation import generate
from sdxl_nb.lora.command import main
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.writer import save_lora, save_one
from sdxl_nb.lora.fusing import fuse
from sdxl_nb.lora.layers import attach, collect, set_scale
from sdxl_nb.models.loading import load_pipeline
from sdxl_nb.models.objective.base_objective import of
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ModelError

pytestmark = pytest.mark.slow

BASE = "embedded:tiny-sdxl"
FAST = {"num_inference_steps": 2, "progress": False, "height": 64, "width": 64, "seeds": (0, 1)}
PROMPTS = ["a blueprint of a house", "a red circle"]


def pictures(pipeline, lora=None):
    return [np.asarray(picture) for picture in generate(pipeline, lora, PROMPTS, **FAST).pictures.values()]


def freeze(pipeline):
    """torch takes another convolution for weights that want gradients, which is up to one level of 255 apart."""
    for model in models_of(pipeline).values():
        model.requires_grad_(False)


@pytest.mark.parametrize("targets", ["all", pytest.param("attention", marks=pytest.mark.soak)])
def test_both_files_give_the_trained_pictures_bit_for_bit(tmp_path, targets):
    """The embedded base; what is trained counts as itself, and differs from the base's pictures."""
    trained = load_pipeline(BASE)
    plain = pictures(trained)
    add_lora(trained, targets, lora_alpha=6)
    freeze(trained)
    expected = pictures(trained)
    assert all(np.abs(a.astype(int) - b).max() > 5 for a, b in zip(plain, expected, strict=True))
    models = {name: getattr(trained, name) for name in ("unet", "text_encoder", "text_encoder_2")}
    fresh = load_pipeline(BASE)
    for path in save_lora(collect(**models), tmp_path, "style", {}):
        for ours, theirs in zip(pictures(fresh, path), expected, strict=True):
            assert np.array_equal(ours, theirs)
    theirs = load_pipeline(BASE)
    theirs.load_lora_weights(tmp_path)
    freeze(theirs)
    for one, other in zip(pictures(theirs), expected, strict=True):
        assert np.array_equal(one, other)


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """LoRA and DoRA, for the random base."""
    paths = {}
    for name, settings in {"lora": {"lora_alpha": 6}, "dora": {"use_dora": True}}.items():
        models = make_models()
        add_lora(models, "all", **settings)
        paths[name] = save_lora(collect(**models), tmp_path_factory.mktemp(name), "style", {})[1]
    return paths


ENDS = [pytest.param("lora", scale, marks=pytest.mark.soak) for scale in (0.0, 1.0)]


@pytest.mark.parametrize(("kind", "scale"), [("lora", 0.4), ("dora", 1.0), *ENDS])
def test_a_fused_base_is_the_base_with_the_lora(tmp_path, loras, kind, scale):
    live = make_pipeline()
    live.save_pretrained(tmp_path / "base")
    goal = fuse(tmp_path / "base", loras[kind], tmp_path / "fused", scale)
    attach(read_lora(loras[kind]), live)
    set_scale(live, {"default": scale})
    fused = load_pipeline(str(goal))
    for one, other in [
        (predict(fused.unet), predict(live.unet)),
        (encode(fused.text_encoder), encode(live.text_encoder)),
        (encode(fused.text_encoder_2), encode(live.text_encoder_2)),
    ]:
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert not any("lora" in name for model in models_of(fused).values() for name, _ in model.named_parameters())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "fused"]


def test_fuse_from_the_command_line_writes_nothing_over(tmp_path, capsys):
    embedded = load_pipeline(BASE)
    add_lora(embedded)
    models = {name: getattr(embedded, name) for name in ("unet", "text_encoder", "text_encoder_2")}
    path = save_lora(collect(**models), tmp_path / "run", "style", {})[1]
    arguments = ["fuse", BASE, str(path), str(tmp_path / "fused"), "--scale", "0.5", "--dtype", "float16"]
    assert main(arguments) == 0 and "with the LoRA at strength 0.5" in capsys.readouterr().out
    assert load_pipeline(str(tmp_path / "fused"), torch.float16).unet.dtype == torch.float16
    assert main(arguments) == 2 and "already holds something" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fused", "run"]


def test_a_lora_of_another_architecture_is_not_fused(tmp_path, loras):
    with pytest.raises(ModelError, match=r"another architecture|does not have"):
        fuse(BASE, loras["lora"], tmp_path / "fused")
    assert list(tmp_path.iterdir()) == []


def headed(path, **settings):
    """The same LoRA with settings of a run in its header."""
    header = {"sdxl_nb_config": json.dumps(settings)}
    return save_one(read_lora(path), path.with_name("headed.safetensors"), "kohya", header)


V_ZERO = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def test_a_fused_folder_keeps_all_but_the_weights(tmp_path, loras):
    base = folder(
        tmp_path / "base",
        only_scheduler=scheduler("LCMScheduler"),
        index={"force_zeros_for_empty_prompt": False},
        vae={"shift_factor": 0.25},
    )
    goal = fuse(base, loras["lora"], tmp_path / "fused")
    for name in ("model_index.json", "scheduler/scheduler_config.json", "vae/config.json"):
        assert (goal / name).read_bytes() == (base / name).read_bytes()
    assert replace(of(Source(str(goal))), remarks=()) == replace(of(Source(str(base))), remarks=())


def test_a_lora_of_another_objective_makes_a_base_of_that(tmp_path, loras):
    base = folder(tmp_path / "base")
    found = of(Source(str(fuse(base, headed(loras["lora"], **V_ZERO), tmp_path / "fused"))))
    assert (found.prediction, found.zero_snr, found.remarks) == ("v_prediction", True, ())


@pytest.fixture(scope="module")
def tiny_loras(tmp_path_factory):
    """LoRA, DoRA, LoHa and LoKr on every kind of module, for the embedded base."""
    paths = {}
    for name, settings in {"lora": {"lora_alpha": 6}, "dora": {"use_dora": True}, "loha": {}, "lokr": {}}.items():
        models = models_of(load_pipeline(BASE))
        if name in KINDS:
            add(models, name)
        else:
            add_lora(models, "all", **settings)
        paths[name] = save_lora(collect(**models), tmp_path_factory.mktemp(name), "style", {})[1]
    return paths


@pytest.mark.parametrize(("kind", "scale"), [("lora", 0.4), ("dora", 1.0), ("loha", 0.4), ("lokr", 0.4)])
def test_a_fused_file_is_the_fused_folder(tmp_path, monkeypatch, tiny_loras, kind, scale):
    configure_single_files(monkeypatch)
    base = file(tmp_path / "base.safetensors", {"title": "mine", "modelspec.hash_sha256": "0x0"}, v_pred=[], ztsnr=[])
    goal = fuse(base, tiny_loras[kind], tmp_path / "fused.safetensors", scale, torch.float32)
    expected = sgm_checkpoint(fuse(BASE, tiny_loras[kind], tmp_path / "fused", scale))
    found = load_file(goal)
    assert found.keys() == load_file(base).keys() == expected.keys() | {"v_pred", "ztsnr"}
    for name, tensor in expected.items():
        assert torch.allclose(found[name].float(), tensor.float(), atol=2e-6), name
    moved = [name for name, tensor in load_file(base).items() if not torch.equal(tensor.float(), found[name].float())]
    assert len(moved) > 100 and not any(name.startswith("first_stage_model.") for name in moved)
    with safe_open(goal, "pt") as opened:
        assert opened.metadata() == {"title": "mine"}
    assert of(Source(str(goal))) == of(Source(str(base)))


def test_a_fused_file_has_the_dtypes_of_its_base_and_the_markers_of_the_lora(tmp_path, monkeypatch, tiny_loras):
    configure_single_files(monkeypatch)
    base = file(tmp_path / "base.safetensors")
    goal = fuse(base, headed(tiny_loras["lora"], **V_ZERO), tmp_path / "fused.safetensors")
    before, after = load_file(base), load_file(goal)
    assert after.keys() - before.keys() == {"v_pred", "ztsnr"}
    assert all(after[name].dtype == tensor.dtype for name, tensor in before.items())
    assert of(Source(str(goal))).why == "its tensors v_pred and ztsnr say so"
    assert fuse(base, tiny_loras["lora"], tmp_path / "half.safetensors", 0.0).exists()
    same = load_file(tmp_path / "half.safetensors")
    assert all(torch.equal(same[name], tensor) for name, tensor in before.items())


def test_what_cannot_be_fused_into_a_file_leaves_none(tmp_path, monkeypatch, loras, tiny_loras):
    configure_single_files(monkeypatch)
    base, goal = file(tmp_path / "base.safetensors"), tmp_path / "fused.safetensors"
    with pytest.raises(ModelError, match="becomes a folder"):
        fuse(BASE, tiny_loras["lora"], goal)
    with pytest.raises(ModelError, match="is there already"):
        fuse(base, tiny_loras["lora"], base)
    eight = tmp_path / "eight.safetensors"
    save_file({name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(base).items()}, eight)
    with pytest.raises(ModelError, match="weights of 8 bits, which would lose the LoRA"):
        fuse(eight, tiny_loras["lora"], goal)
    with pytest.raises(ModelError, match=r"another base|names no module|does not have"):
        fuse(base, loras["lora"], goal)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.safetensors", "eight.safetensors"]
