"""The training loop: the same result however a step is cut up, precision, learning rates, and clear ends."""

import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import safe_open
from small_runs import ONCE, assert_same, fit_one_at_a_time, home, largest_difference, small, studio, train, whole

from sdxl_nb.config.layout import checkpoints
from sdxl_nb.data.sampling import Choices
from sdxl_nb.models import unet
from sdxl_nb.runs.events import EventLog
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import ConfigError, SdxlNbError
from sdxl_nb.training import setup as studios
from sdxl_nb.training.optimizing.stored_state import optimizer_state
from sdxl_nb.training.processes import Processes
from sdxl_nb.training.setup import Studio, prepare
from sdxl_nb.training.step import Numbers, Step
from sdxl_nb.training.trainer import Trainer

pytestmark = pytest.mark.slow

FLAT = {"learning_rate": 1e-3, "adam_epsilon": 1e-3}  # Adam turns rounding of tiny gradients into whole steps


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four pictures a step, computed at once."""
    return train(small(tmp_path_factory.mktemp("four"), train_batch_size=4, **FLAT, **ONCE))


@pytest.mark.parametrize("batch, accumulation", [(2, 2), pytest.param(1, 4, marks=pytest.mark.soak)])
def test_accumulation_is_a_larger_batch(tmp_path, four, batch, accumulation):
    changes = {"train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    run = train(small(tmp_path, **changes, **FLAT, **ONCE))
    assert run.losses()[1] == pytest.approx(four.losses()[1], rel=1e-5)
    assert largest_difference(tmp_path, four.folder) < 1e-5


def test_a_batch_too_large_for_memory_is_halved(tmp_path, four, monkeypatch):
    sizes = fit_one_at_a_time(monkeypatch)
    run = train(small(tmp_path, train_batch_size=4, **FLAT, **ONCE))
    assert sizes[:6] == [4, 2, 1, 1, 1, 1] and max(sizes[2:]) == 1
    said = "A batch does not fit into memory: from now on {} at a time, with the same result."
    assert [e["message"] for e in run.events("warning")] == [said.format(2), said.format(1)]
    assert run.losses()[1] == pytest.approx(four.losses()[1], rel=1e-5)
    assert largest_difference(tmp_path, four.folder) < 1e-6


def test_what_fits_into_memory_is_remembered(tmp_path, monkeypatch):
    """So that a resumed run cuts its steps as before, and sums in the same order."""
    predict, sizes = Studio.predict, []

    def a_moment_of_little_memory(studio, noisy, batch):
        sizes.append(len(noisy))
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(studio, noisy, batch)

    monkeypatch.setattr(Studio, "predict", a_moment_of_little_memory)
    changes = {"train_batch_size": 4, "lora_dropout": 0.3}
    whole = train(small(tmp_path / "whole", **changes))
    assert set(sizes[1:]) <= {2, 1}  # an epoch of seven pictures ends with three
    (said,) = (e["message"] for e in whole.events("warning"))
    assert said.endswith("from now on 2 at a time, with the same result.")
    shutil.copytree(whole.folder / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
    assert json.loads((tmp_path / "again" / "checkpoint-2" / "state.json").read_text())["micro_batch"] == 2
    train(small(tmp_path / "again", resume_from_checkpoint="latest", **changes))
    assert_same(whole.folder, tmp_path / "again")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        *(
            pytest.param(RuntimeError(said), marks=pytest.mark.soak)
            for said in (
                "MPS backend out of memory (MPS allocated: 17.9 GB)",
                "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory",
            )
        ),
    ],
)
def test_memory_that_ends_later_loses_no_work(tmp_path, four, monkeypatch, error):
    predict = Studio.predict

    def full_after_three_steps(studio, noisy, batch):
        if Run(tmp_path / "run").losses()[0][-1:] == [3]:
            raise error
        return predict(studio, noisy, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Studio, "predict", full_after_three_steps)
        with pytest.raises(SdxlNbError) as caught:
            train(small(tmp_path / "run", train_batch_size=4, **FLAT))
    said = str(caught.value)
    places = [said.index(word) for word in ("--gradient_checkpointing", "--mixed_precision fp16", "xformers", "--rank")]
    assert places == sorted(places) and said.endswith("; checkpoint-3 is saved.")
    saving = {"gradient_checkpointing": True, "train_batch_size": 1, "gradient_accumulation_steps": 4}
    run = train(small(tmp_path / "run", resume_from_checkpoint="latest", **saving, **FLAT))
    assert run.losses()[0] == [1, 2, 3, 4, 5, 6] and largest_difference(run.folder, four.folder) < 1e-5


def test_a_step_read_only_after_the_next_is_launched(tmp_path, monkeypatch):
    """As on CUDA, where reading at once would let the device run dry; a CPU computes nothing meanwhile."""
    plain, order = whole(), []
    original, take, read = Trainer.__init__, Step.take, Numbers.read
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "__init__", lambda self, *a: (original(self, *a), setattr(self, "lag", 1))[0])
        patch.setattr(Step, "take", lambda self, step, *a: (order.append(("take", step + 1)), take(self, step, *a))[1])
        patch.setattr(Numbers, "read", lambda self: (order.append("read"), read(self))[1])
        lagging = train(small(tmp_path / "lagging", checkpointing_steps=4))
        loss = Step._loss
        patch.setattr(Step, "_loss", lambda self, *at: loss(self, *at) * (float("nan") if self.step == 2 else 1.0))
        with pytest.raises(SdxlNbError, match="loss at step 3 is not a finite number"):
            train(small(tmp_path / "broken"))
    takes = [("take", n) for n in range(1, 7)]
    assert order[:12] == [*takes[:2], "read", takes[2], "read", takes[3], "read", "read", *takes[4:], "read", "read"]
    assert lagging.losses() == plain.losses()
    assert_same(lagging.folder, plain.folder)
    assert [path.name for path in checkpoints(tmp_path / "broken")] == ["checkpoint-2"]  # 4 would hold what is broken


@pytest.mark.parametrize(
    "changes", [pytest.param({}, marks=pytest.mark.soak), {"random_flip": True, "proportion_empty_prompts": 0.5}]
)
def test_caching_changes_no_loss(tmp_path, changes):
    changes = FLAT | ONCE | changes
    cached = train(small(tmp_path / "cached", **changes))
    live = train(small(tmp_path / "live", cache_latents=False, cache_text_embeddings=False, **changes))
    assert live.losses()[1] == pytest.approx(cached.losses()[1], abs=1e-6)
    assert largest_difference(cached.folder, live.folder) < 1e-6
    assert [e["pictures"] for e in cached.events("cache") if "kind" not in e] == [7]
    assert list(live.events("cache")) == []


def test_the_learning_rate_counts_optimizer_steps(tmp_path):
    changes = {"lr_scheduler": "linear", "lr_warmup_steps": 2, "learning_rate": 1e-3}
    run = train(small(tmp_path, train_batch_size=1, gradient_accumulation_steps=3, **changes, **ONCE))
    assert [e["lr"] for e in run.events("step")] == pytest.approx([0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_a_warm_up_longer_than_the_run_is_said(tmp_path):
    run = train(small(tmp_path, lr_scheduler="cosine", max_train_steps=1))
    (note,) = (e["message"] for e in run.events("warning"))
    assert note.startswith("lr_warmup_steps 500 is no less than the 1 steps of this run")


def test_bf16_keeps_lora_gradients_and_moments_in_fp32(tmp_path):
    seen = []

    def look(event):
        if event["event"] == "step":
            updates = trainers[0].updates
            seen.append({p.dtype for p in updates.flat.parameters} | {p.grad.dtype for p in updates.flat.parameters})
            seen.append({value.dtype for value in optimizer_state(updates.optimizer)[0].values()})

    trainers = []
    original = Trainer.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", lambda self, *a: (original(self, *a), trainers.append(self))[0])
        half = train(small(tmp_path / "half", mixed_precision="bf16", train_text_encoder=True, **FLAT, **ONCE), look)
    assert len(seen) == 12 and all(dtypes == {torch.float32} for dtypes in seen)
    assert next(trainers[0].studio.unet.parameters()).dtype == torch.bfloat16
    full = train(small(tmp_path / "full", train_text_encoder=True, **FLAT, **ONCE))
    assert next(iter(full.events("start")))["device"] == "cpu"
    difference = max(abs(a - b) for a, b in zip(half.losses()[1], full.losses()[1], strict=True))
    assert 0 < difference < 0.03


def test_encoders_are_gone_before_the_vae_and_the_unet_need_their_memory(tmp_path, monkeypatch):
    config, order, parts = small(tmp_path), [], {}
    folder = RunFolder(config)
    made = prepare(config, folder, False)
    load, load_vae, fill = studios.load_text_encoder, studios.load_vae_encoder, made._fill
    hollow = [parameter for parameter in made.unet.parameters() if not parameter.requires_grad]
    assert sum(parameter.untyped_storage().nbytes() for parameter in hollow) == 4 * len(hollow)

    def note(part, model=None):
        order.append((part, [name for name, loaded in parts.items() if loaded() is not None]))
        if model is not None:
            parts[part] = weakref.ref(model)
        return model

    monkeypatch.setattr(studios, "load_text_encoder", lambda source, part, *how: note(part, load(source, part, *how)))
    monkeypatch.setattr(studios, "load_vae_encoder", lambda *asked: note("vae", load_vae(*asked)))
    monkeypatch.setattr(made, "_fill", lambda device: (note("unet"), fill(device)))
    flat = Trainer(config, made, None, None, Processes()).updates.flat
    log = EventLog(folder.path, quiet=True)
    made.encode(log)
    log.close()
    folder.release()
    assert order == [("text_encoder", []), ("text_encoder_2", ["text_encoder"]), ("vae", []), ("unet", [])]
    flat.weights.data.fill_(0.25)  # the layers are views into it still
    assert {v for p in made.unet.parameters() if p.requires_grad for v in p.unique().tolist()} == {0.25}


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"gradient_checkpointing": True}])
def test_without_pefts_casts_bf16_gives_the_same_loss(tmp_path, changes):
    made = studio(small(tmp_path, mixed_precision="bf16", **changes))
    trainer = Trainer(made.config, made, None, None, Processes()).updates
    torch.manual_seed(1)
    trainer.flat.weights.data.normal_(std=0.02)
    layers = [m for m in made.unet.modules() if hasattr(m, "cast_input_dtype_enabled")]
    assert layers and {m.cast_input_dtype_enabled for m in layers} == {"use_dora" in changes}

    def loss_and_gradient():
        total = trainer._gradients(trainer.stream.positions(0), 2)
        return total.item(), trainer.flat.weights.grad.clone()

    ours = loss_and_gradient()
    for layer in layers:
        layer.cast_input_dtype_enabled = True
    theirs = loss_and_gradient()
    assert ours[0] == theirs[0] and ours[1].dtype == torch.float32 and ours[1].abs().max() > 0
    assert torch.allclose(ours[1], theirs[1], rtol=1e-2, atol=1e-2 * theirs[1].abs().max().item())


def test_time_ids_stay_exact_in_bf16(tmp_path, monkeypatch):
    sinusoid = unet.sinusoid
    made = studio(small(tmp_path, mixed_precision="bf16"))
    trainer = Trainer(made.config, made, None, None, Processes())
    positions = trainer.stream.positions(0)
    choices = [Choices.at(5, p, timesteps=1000, empty_share=0) for p in positions]
    batch = made.batch(trainer.stream.pictures(positions), choices)
    batch = batch._replace(time_ids=torch.tensor([[1023.0, 3021, 257, 511, 1023, 1023]] * 2))
    heard = []
    monkeypatch.setattr(unet, "sinusoid", lambda *a: (heard.append((a[0], sinusoid(*a))), heard[-1][1])[1])
    made.predict(batch.latents, batch)
    (ids, embedded) = next(pair for pair in heard if len(pair[0]) == 12)
    assert ids[:4].tolist() == [1023, 3021, 257, 511] and embedded.dtype == torch.float32


def test_gradient_checkpointing_changes_nothing(tmp_path):
    """Not even with text encoders, whose inputs are frozen."""
    plain, saving = (
        train(small(tmp_path / str(on), train_text_encoder=True, gradient_checkpointing=on, **FLAT, **ONCE)).folder
        for on in (False, True)
    )
    assert largest_difference(plain, saving) < 1e-6


def test_validation_never_changes_training(tmp_path):
    prompts = {"validation_prompt": ["a card", "b"], "num_validation_images": 2, "validation_inference_steps": 1}
    changes = {"lora_dropout": 0.2, "train_text_encoder": True, "validation_seed": 5, **ONCE}
    blind = train(small(tmp_path / "blind", **changes))
    looking = train(small(tmp_path / "looking", **changes, **prompts))
    assert list(looking.pictures()) == [0, 4, 6] and len(looking.pictures()[0]) == 4
    assert_same(blind.folder, looking.folder)


def test_the_folder_is_searched_for_pictures_only_when_they_are_due(tmp_path, monkeypatch):
    looked = []
    prompts = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}
    path_type = type(tmp_path)
    glob = path_type.glob
    monkeypatch.setattr(path_type, "glob", lambda self, pattern: (looked.append(pattern), glob(self, pattern))[1])
    train(small(tmp_path, **prompts))
    assert [p for p in looked if p.endswith(".png")] == [f"validation/step-{n}/*.png" for n in (0, 4, 6)]


def test_a_last_step_and_an_epoch_of_less_than_a_batch(tmp_path):
    run = train(small(tmp_path, train_batch_size=16, max_train_steps=None, num_train_epochs=3, debug_loss=True))
    (start,) = run.events("start")
    assert start["steps"] == 3 and start["epochs"] == 3 and start["pictures"] == 7
    for event in run.events("debug"):
        assert sorted(event["losses"]) == [f"{number}.png" for number in range(7)]


def test_pictures_that_are_not_square_are_noted_once(tmp_path):
    run = train(small(tmp_path, center_crop=False, aspect_ratio_buckets=False, max_train_steps=1))
    (note,) = (e["message"] for e in run.events("warning"))
    assert note.startswith("4 pictures are not square")


def test_objectives_train_and_differ(tmp_path):
    runs = [
        train(small(tmp_path / str(n), max_train_steps=1, **changes)).losses()[1]
        for n, changes in enumerate(
            [
                {},
                {"snr_gamma": 1.0},
                {"noise_offset": 0.5},
                {"prediction_type": "v_prediction"},
                {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "snr_gamma": 5.0},
                {"debiased_estimation_loss": True},
                {"loss_type": "huber"},
                {"loss_type": "smooth_l1", "huber_schedule": "exponential"},
            ]
        )
    ]
    assert len({losses[0] for losses in runs}) == 8
    with pytest.raises(ConfigError, match="needs --prediction_type v_prediction"):
        train(small(tmp_path / "zero", snr_gamma=5.0, rescale_betas_zero_snr=True))
    assert not (tmp_path / "zero").exists()


def test_the_header_says_what_the_base_predicts(tmp_path):
    base = shutil.copytree(home()[0] / "base", tmp_path / "base")
    scheduler = base / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}))
    changes = {"pretrained_model_name_or_path": str(base), "max_train_steps": 1}
    for name, kind, changed in [("v", "v", changes), ("epsilon", "epsilon", {"max_train_steps": 1})]:
        train(small(tmp_path / name, **changed))
        with safe_open(tmp_path / name / "small.safetensors", "pt") as file:
            assert file.metadata()["modelspec.prediction_type"] == kind
