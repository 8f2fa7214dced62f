"""What a resumed run must have as it was, and what may change, without a model."""

import pytest
from test_checkpoint import progress

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.state.resuming import check_resumable, remark

BASE = {"unet": "1", "vae": "2"}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"identity": {"rank": 4}}, r"differs in rank \(2, now 4\)"),
        ({"identity": {"rank": 2, "new": 1}}, r"new \(None, now 1\)"),
        (
            {"data_fingerprint": "x", "pictures": 4},
            r"settings of folders \(3 then, 4 now\)",
        ),
        ({"identity": {"rank": 2, "train_batch_size": 2}, "batch": 8}, "took 4 pictures a step, now it would be 8"),
        ({"precision": "bfloat16"}, "precision float32, now it is bfloat16"),
        ({"parameters": {"unet.b": [2, 3]}}, "other LoRA layers"),
        ({"heldout_fingerprint": "x"}, "measured on other held-out pictures"),
        ({"reading": 2}, "another version of sdxl_nb, which saw other colours in the same pictures"),
        (
            {"fair": True},
            "another version of sdxl_nb, which gave the leftovers of buckets another place and more weight",
        ),
        ({"identity": {"rank": 2, "loss_type": "huber"}}, r"differs in loss_type \('l2', now 'huber'\)"),
    ],
)
def test_another_run_is_refused(changes, said):
    check_resumable(progress(1), progress(5), "checkpoint-1")
    with pytest.raises(ConfigError, match=said):
        check_resumable(progress(1), progress(5, **changes), "checkpoint-1")


def test_other_weights_are_another_base_whatever_their_name():
    check_resumable(progress(1, base=BASE), progress(1, base=BASE), "checkpoint-1")
    check_resumable(progress(1), progress(1, base=BASE), "checkpoint-1")  # of a version that did not note it
    said = "checkpoint-1 was trained on another base: unet and vae of None are not what it was then"
    with pytest.raises(ConfigError, match=said):
        check_resumable(progress(1, base=BASE), progress(1, base={"unet": "3", "vae": "4"}), "checkpoint-1")
    elsewhere = {"rank": 2, "pretrained_model_name_or_path": "moved", "revision": "main"}
    check_resumable(progress(1, base=BASE), progress(1, base=BASE, identity=elsewhere), "checkpoint-1")
    with pytest.raises(ConfigError, match="pretrained_model_name_or_path"):
        check_resumable(progress(1), progress(1, identity=elsewhere), "checkpoint-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"heldout_steps": 3, "load_best_model_at_end": True, "early_stopping_patience": 2},
        {"max_train_steps": 100, "num_train_epochs": 7, "lr_warmup_steps": 3},
        {"lora_alpha": 4.0, "mixed_precision": "no", "gradient_checkpointing": True},
        {"train_data_dir": "moved", "dataset_name": None, "max_train_samples": 100},
        {"train_batch_size": 2, "gradient_accumulation_steps": 8, "lora_dropout": 0.0},
    ],
)
def test_what_changes_no_step_may_change(changes):
    run = TrainConfig(seed=1, validation_split=0.1)
    ours = progress(1, identity=run.replace(**changes).identity())
    check_resumable(progress(1, identity=run.identity()), ours, "checkpoint-1")


def test_settings_that_an_older_checkpoint_lacks_are_what_its_version_did():
    now = TrainConfig(seed=1, center_crop=True).identity()
    for name in now.keys() - {"seed", "center_crop"}:
        older = {key: value for key, value in now.items() if key != name}
        check_resumable(progress(1, identity=older), progress(1, identity=now), "checkpoint-1")
    buckets = TrainConfig(seed=1).identity()
    older = {key: value for key, value in buckets.items() if key != "aspect_ratio_buckets"}
    with pytest.raises(ConfigError, match=r"aspect_ratio_buckets \(False, now True\)"):
        check_resumable(progress(1, identity=older), progress(1, identity=buckets), "checkpoint-1")
    with pytest.raises(ConfigError, match="was trained with colour_jitter, which this sdxl_nb does not know: resume"):
        check_resumable(progress(1, identity={**now, "colour_jitter": 0.1}), progress(1, identity=now), "checkpoint-1")


def test_dropout_of_an_earlier_version_is_refused_where_there_is_any():
    check_resumable(progress(1), progress(1, dropout=2), "checkpoint-1")
    dropping = {"identity": {"lora_dropout": 0.1}}
    with pytest.raises(ConfigError, match="which drew lora_dropout by process and micro-batch, not by picture"):
        check_resumable(progress(1, **dropping), progress(1, dropout=2, **dropping), "checkpoint-1")
    for processes in (1, 2):
        check_resumable(
            progress(1, dropout=2, **dropping), progress(1, processes=processes, dropout=2, **dropping), "checkpoint-1"
        )


def test_pictures_a_step_of_a_checkpoint_that_does_not_say_them():
    cuts = {"identity": {"train_batch_size": 3, "gradient_accumulation_steps": 2}}
    check_resumable(progress(1, batch=0, **cuts), progress(1, batch=6, **cuts), "checkpoint-1")
    with pytest.raises(ConfigError, match="took 6 pictures a step, now it would be 4"):
        check_resumable(progress(1, batch=0, **cuts), progress(1, batch=4, **cuts), "checkpoint-1")


@pytest.mark.parametrize("schedule, depends", [("constant", False), ("constant_with_warmup", False), ("cosine", True)])
def test_another_length_is_said_where_the_rate_depends_on_it(schedule, depends):
    run, end = TrainConfig(seed=1, max_train_steps=300), "checkpoint-200"

    def rates(steps):
        return lambda step: 1 - step / steps if depends else min(1.0, step / 2)

    kept = progress(200, identity=run.identity())
    assert remark(kept, schedule, rates, 300, 10, end) is None
    told = remark(kept, schedule, rates, 450, 10, end)
    assert (told is not None) == depends
    if told:
        assert told.startswith("The run has 450 steps now, it had 300, and lr_scheduler cosine depends on their number")
    with pytest.raises(ConfigError, match="checkpoint-200 is beyond the 150 steps that are asked for"):
        remark(kept, schedule, rates, 150, 10, end)
    epochs = run.replace(max_train_steps=None, num_train_epochs=30)
    assert remark(progress(200, identity=epochs.identity()), schedule, rates, 300, 10, end) is None
