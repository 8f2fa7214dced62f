"""Held-out pictures: which, their loss, the best checkpoint, early stopping, and the average that they measure."""

import math
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from small_runs import assert_same, fit_one_at_a_time, home, largest_difference, small, studio, train, whole

from sdxl_nb.config.layout import checkpoints, step_of
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.split import divide
from sdxl_nb.system.errors import ConfigError, DataError, SdxlNbError
from sdxl_nb.training import heldout, saving
from sdxl_nb.training.processes import PeerError, Processes
from sdxl_nb.training.setup import Studio
from sdxl_nb.training.state import checkpoint
from sdxl_nb.training.trainer import Trainer

pytestmark = pytest.mark.slow

HALF = {"validation_split": 0.4}


def losses(run):
    return {event["step"]: event["loss"] for event in run.events("heldout")}


def steps(folder):
    return [step_of(path) for path in checkpoints(folder)]


def test_the_same_pictures_are_held_out_in_every_run_and_folder(tmp_path):
    config = small(tmp_path, **HALF)
    trained, held = divide(config, open_dataset(config))
    assert len(trained) == 4 and len(held) == 3
    assert sorted([*trained.names, *held.names]) == [f"{number}.png" for number in range(7)]
    moved = shutil.copytree(home()[0] / "pictures", tmp_path / "moved")
    for kind in ("png", "txt"):
        (moved / f"0.{kind}").rename(moved / f"z.{kind}")
    shutil.copy(moved / "3.png", moved / "copy.png")
    (moved / "copy.txt").write_text("the same picture")
    other = config.replace(train_data_dir=str(moved), seed=99)
    again = divide(other, open_dataset(other))[1]
    sides = {name.replace("z.", "0.") for name in again.names}
    assert sides - {"copy.png"} == set(held.names) and ("copy.png" in sides) == ("3.png" in sides)


def test_too_few_pictures_to_divide(tmp_path):
    (tmp_path / "one").mkdir()
    for name in ("0.png", "0.txt"):
        shutil.copy(home()[0] / "pictures" / name, tmp_path / "one")
    config = small(tmp_path / "run", train_data_dir=str(tmp_path / "one"), **HALF)
    with pytest.raises(DataError, match=r"validation_split 0\.4 leaves none of the 1 pictures"):
        train(config)
    with pytest.raises(DataError, match="--validation_data_dir"):
        train(small(tmp_path / "run", validation_data_dir=str(tmp_path / "nowhere")))
    assert not (tmp_path / "run").exists()


def test_the_loss_is_the_same_however_it_is_computed(tmp_path):
    measured = []
    for changes in (
        {},
        {"train_batch_size": 1, "seed": 6},
        {"lora_dropout": 0.5, "snr_gamma": 1.0, "noise_offset": 0.5},
    ):
        made = studio(small(tmp_path / str(len(measured)), center_crop=True, **HALF | changes))
        measured.append(heldout.measure(Trainer(made.config, made, None, None, Processes()).updates))
        assert made.unet.training
    assert measured[0] == pytest.approx(measured[1], rel=1e-6) and measured[0] == pytest.approx(measured[2], rel=1e-6)

    class Third(Processes):
        def gather(self, value):
            if value is None:  # no failure to tell
                return [None]
            parts.append(value)
            return parts

    parts: list[list[float]] = []
    for index in range(3):
        processes = Third(3, index)
        loss = heldout.measure(Trainer(made.config, made, None, None, processes).updates)
    assert loss == pytest.approx(measured[2], rel=1e-6) and [len(part) for part in parts] == [4, 4, 4]


BF16 = {"mixed_precision": "bf16", **HALF}


@pytest.mark.parametrize(
    "changes",
    [
        {"train_text_encoder": True},
        *(pytest.param(changes, marks=pytest.mark.soak) for changes in ({}, {"lora_dropout": 0.5}, {"use_dora": True})),
        pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.soak),
    ],
)
def test_in_bf16_it_is_the_loss_of_fp32_but_for_rounding(tmp_path, changes):
    measured = []
    for precision in ("no", "bf16"):
        made = studio(small(tmp_path / precision, **HALF | changes | {"mixed_precision": precision}))
        step = Trainer(made.config, made, None, None, Processes()).updates
        torch.manual_seed(1)
        step.flat.weights.data.normal_(std=0.05)
        measured.append(heldout.measure(step))
        assert made.unet.training
    assert measured[0] != measured[1] and measured[0] == pytest.approx(measured[1], rel=3e-3)


def test_plain_lora_is_measured_with_the_arithmetic_of_training(tmp_path):
    made = studio(small(tmp_path, **BF16))
    step = Trainer(made.config, made, None, None, Processes()).updates
    step.flat.weights.data.normal_(std=0.05)
    seen, errors = [], step.errors
    step.errors = lambda batch, noise: (seen.append((batch, errors(batch, noise))), seen[-1][1])[1]
    heldout.measure(step)
    for batch, loss in seen:
        assert torch.equal(errors(batch, batch.noise).detach(), loss)


def test_what_does_not_fit_into_memory_is_measured_in_halves(tmp_path, monkeypatch):
    whole = train(small(tmp_path / "whole", train_batch_size=4, max_train_steps=1, **HALF))
    sizes = fit_one_at_a_time(monkeypatch)
    run = train(small(tmp_path / "halves", train_batch_size=4, max_train_steps=1, **HALF))
    assert sizes[:3] == [4, 2, 1] and max(sizes[2:]) == 1  # at step 0: the training steps need not find out again
    said = "A batch does not fit into memory: from now on {} at a time, with the same result."
    assert [e["message"] for e in run.events("warning")] == [said.format(2), said.format(1)]
    assert list(losses(run).values()) == pytest.approx(list(losses(whole).values()), rel=1e-5)
    fitting = Studio.predict
    monkeypatch.setattr(Studio, "predict", lambda *a: fitting(*a) if torch.is_grad_enabled() else full())
    with pytest.raises(SdxlNbError, match=r"for one picture at a time: .* or --rank\.$"):
        train(small(tmp_path / "none", train_batch_size=1, **HALF))


def full():
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("precision", [pytest.param("no", marks=pytest.mark.soak), "bf16"])
def test_a_whole_run_that_looks(tmp_path, precision):
    """Losses, pictures and the best checkpoint of an average; and looking never changes training."""
    looking = {"heldout_steps": 2, "early_stopping_patience": 9, "load_best_model_at_end": True, "use_ema": True}
    looking |= {"validation_prompt": ["a card"], "num_validation_images": 1, "validation_inference_steps": 1}
    run = train(small(tmp_path / "looking", **HALF | looking, mixed_precision=precision))
    assert list(losses(run)) == [0, 2, 4, 6] and all(map(math.isfinite, losses(run).values()))
    assert run.status == "completed" and list(run.pictures()) == [0, 2, 4, 6]
    best = min((2, 4, 6), key=losses(run).get)
    assert best in steps(run.folder) and largest_difference(run.folder / f"checkpoint-{best}", run.folder) == 0
    blind = train(small(tmp_path / "blind", **HALF, use_ema=True, mixed_precision=precision))
    assert blind.losses() == run.losses()
    assert_same(blind.folder / "checkpoint-6", run.folder / "checkpoint-6")


def test_a_process_that_cannot_measure_is_heard_by_all(tmp_path):
    class First(Processes):
        def gather(self, value):
            return [value, ("DataError", "picture 7 is gone.")]

    made = studio(small(tmp_path, lora_dropout=0.1, **HALF))
    with pytest.raises(PeerError, match=r"picture 7 is gone\."):
        heldout.measure(Trainer(made.config, made, None, None, First(2)).updates)
    assert made.unet.training


def test_by_hand(tmp_path):
    """The loss of a model that predicts nothing is the mean square of the noise."""
    made = studio(small(tmp_path, **HALF))
    step = Trainer(made.config, made, None, None, Processes()).updates
    noises = []
    batch = made.batch
    made.batch = lambda *a: (noises.append(batch(*a)), noises[-1])[1]
    made.predict = lambda noisy, batch: torch.zeros_like(noisy)
    loss = heldout.measure(step)
    every = torch.cat([b.noise for b in noises])
    assert len(every) == 3 * 4 and loss == pytest.approx(every.square().mean().item(), rel=1e-5)
    assert torch.cat([b.timesteps for b in noises]).tolist() == [125, 375, 625, 875] * 3


def test_measured_when_pictures_would_be_or_every_so_many_steps(tmp_path):
    run = train(small(tmp_path / "epochs", **HALF))
    assert list(losses(run)) == [0, 2, 4, 6] and next(run.events("start"))["heldout"] == 3
    assert next(run.events("start"))["pictures"] == 4
    other = tmp_path / "others"
    shutil.copytree(home()[0] / "pictures", other)
    apart = train(small(tmp_path / "steps", validation_data_dir=str(other), heldout_steps=4))
    assert list(losses(apart)) == [0, 4, 6] and next(apart.events("start"))["heldout"] == 7
    blind = whole()
    assert_same(apart.folder, blind.folder)  # looking never changes training


def scripted(monkeypatch, values):
    """Held-out losses as given, one after the other, and then an error."""
    numbers = iter(values)

    def measure(step):
        for number in numbers:
            return number
        raise RuntimeError("no more losses")

    monkeypatch.setattr(heldout, "measure", measure)


def test_the_best_checkpoint_outlives_the_newer_ones(tmp_path, monkeypatch):
    scripted(monkeypatch, [9.0, 5.0, 4.0, 6.0, 7.0, 8.0])
    changes = {"checkpoints_total_limit": 1, "heldout_steps": 1, "max_train_steps": 5, "load_best_model_at_end": True}
    run = train(small(tmp_path, **HALF, **changes))
    assert [e["best"] for e in run.events("heldout")] == [False, True, True, False, False, False]
    assert steps(tmp_path) == [2, 5]  # 1 was there only while it was the best
    assert largest_difference(tmp_path / "checkpoint-2", tmp_path) == 0
    assert largest_difference(tmp_path / "checkpoint-5", tmp_path) > 0


EARLY = {"heldout_steps": 1, "early_stopping_patience": 2, "max_train_steps": 20, "checkpointing_steps": 100, **HALF}


def test_early_stopping(tmp_path, monkeypatch):
    scripted(monkeypatch, [9.0, 5.0, 6.0, 4.0, 4.5, math.nan, 1.0])
    run = train(small(tmp_path, **EARLY))
    assert run.status == "completed" and run.losses()[0] == [1, 2, 3, 4, 5] and steps(tmp_path) == [3, 5]
    (end,) = run.events("end")
    assert end["reason"] == (
        "Early stopping after step 5 of 20: 2 held-out losses in a row were no new best; the best was 4.0000 at step 3."
    )
    assert end["reason"] in (tmp_path / "log.txt").read_text() and (tmp_path / "small.safetensors").is_file()
    again = train(small(tmp_path, resume_from_checkpoint="latest", **EARLY))
    assert again.losses()[0] == [1, 2, 3, 4, 5] and again.status == "completed"  # and asks for no further loss


def test_patience_survives_a_kill(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        scripted(patch, [9.0, 5.0, 6.0])
        with pytest.raises(RuntimeError, match="no more losses"):  # at step 3: what a checkpoint lacks is saved
            train(small(tmp_path, **EARLY))
    assert steps(tmp_path) == [1, 3]
    scripted(monkeypatch, [7.0, 1.0])
    run = train(small(tmp_path, resume_from_checkpoint="latest", **EARLY))
    assert run.losses()[0] == [1, 2, 3] and list(losses(run).values()) == [9.0, 5.0, 6.0, 7.0]


def test_a_threshold_says_what_counts_as_better():
    record = heldout.Record()
    taken = [record.take(step, loss, 0.1) for step, loss in enumerate([9.0, 1.0, 0.95, 0.94, 0.8], start=0)]
    assert taken == [False, True, True, True, True]
    assert (record.best_step, record.best_loss, record.waited) == (4, 0.8, 0)
    record.take(5, 0.79, 0.1)
    assert record.best_step == 5 and record.waited == 1


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"validation_split": 0.1, "validation_data_dir": "x"}, "keep one of them"),
        ({"early_stopping_patience": 2}, "early_stopping_patience needs held-out pictures"),
        ({"heldout_steps": 2}, "heldout_steps needs held-out pictures"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end needs held-out pictures"),
        ({"validation_split": 0.1, "early_stopping_threshold": 1.0}, "needs early_stopping_patience"),
        ({"ema_decay": 0.5}, "ema_decay needs use_ema"),
        ({"huber_c": 0.5}, "huber_c needs loss_type"),
        ({"snr_gamma": 5.0, "debiased_estimation_loss": True}, "two loss weights"),
        ({"rescale_betas_zero_snr": True, "debiased_estimation_loss": True}, "divides by zero"),
    ],
)
def test_settings_that_need_others(changes, said):
    with pytest.raises(ConfigError, match=said):
        TrainConfig(**changes)


AVERAGE = {"use_ema": True, "ema_decay": 0.5, "lora_dropout": 0.2, **HALF}


def test_the_average_is_what_is_measured_drawn_and_shipped(tmp_path, monkeypatch):
    run = train(small(tmp_path / "averaged", **AVERAGE))
    plain = train(small(tmp_path / "plain", **AVERAGE | {"use_ema": False, "ema_decay": 0.9999}))
    assert run.losses() == plain.losses()  # training goes on from the weights themselves
    assert largest_difference(run.folder, plain.folder) > 1e-4
    assert losses(run)[0] == losses(plain)[0] and losses(run)[6] != losses(plain)[6]
    assert largest_difference(run.folder, run.folder / "checkpoint-6") == 0
    shutil.copytree(run.folder / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
    again = train(small(tmp_path / "again", resume_from_checkpoint="latest", **AVERAGE))
    assert_same(run.folder, again.folder)


@pytest.mark.parametrize("optimizer", ["prodigy", pytest.param("adafactor", marks=pytest.mark.soak)])
def test_every_optimizer_resumes_exactly(tmp_path, optimizer):
    changes = {"optimizer": optimizer, "learning_rate": 1.0 if optimizer == "prodigy" else 1e-2}
    whole = train(small(tmp_path / "whole", **changes))
    shutil.copytree(whole.folder / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
    again = train(small(tmp_path / "again", resume_from_checkpoint="latest", **changes))
    assert_same(whole.folder, again.folder)
    assert largest_difference(whole.folder / "checkpoint-2", whole.folder) > 0
    with pytest.raises(SdxlNbError, match=r"optimizer \("):
        train(small(tmp_path / "again", resume_from_checkpoint="checkpoint-2", learning_rate=changes["learning_rate"]))


def test_a_best_checkpoint_that_a_later_best_took_away_is_forgotten(tmp_path):
    """Who goes back to an earlier checkpoint finds the best one of then no more."""
    run = train(small(tmp_path, heldout_steps=1, checkpointing_steps=2, max_train_steps=4, **HALF))
    kept, _ = checkpoint.load(tmp_path / "checkpoint-2")
    trainer = SimpleNamespace(folder=SimpleNamespace(path=run.folder), processes=Processes.join())
    there, gone = ({**kept.heldout, "best_step": step, "best_loss": 0.5} for step in (2, 1))
    assert saving._record(trainer, replace(kept, heldout=there)).best_step == 2
    assert asdict(saving._record(trainer, replace(kept, heldout=gone))) == {
        "step": 2,
        "best_step": None,
        "best_loss": None,
        "waited": 0,
    }
