"""Limits that are less than a run is estimated to need are said in one sentence, and refused where nothing is saved."""

import pytest

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.models import architectures
from sdxl_nb.preflight import forecast
from sdxl_nb.preflight.estimate_table import estimate
from sdxl_nb.preflight.limits import Rented, remarks, too_short, words
from sdxl_nb.system.errors import ConfigError

LONG = TrainConfig.preset("tiny", seed=0, max_train_steps=1_000_000, validation_prompt=None)  # hours, on any GPU
G5 = ("ml.g5.2xlarge",)


def said(config=LONG, types=G5, count=1, max_run=360_000, **more):
    return remarks(config, Rented(types, count, max_run, **more))


@pytest.fixture(scope="module")
def row():
    return estimate(LONG, G5, here=False).rows[0]


def test_what_is_enough_is_not_mentioned():
    assert said() == said(types=("ml.p5.48xlarge",), count=2, max_wait=500_000) == []
    unknown = LONG.replace(dataset_name="some/body", max_train_steps=None)
    assert said(unknown, max_run=60, pictures=0) == []
    assert said(types=("ml.m5.xlarge",), max_run=60) == []  # no GPU that the table knows


def test_too_little_time_is_said_with_both_numbers_and_what_happens(row):
    (sentence,) = said(max_run=3600)
    need = row.hours * 3600
    done = int(1_000_000 * (3600 - row.start) / (need - row.start))
    assert sentence == (
        f"max_run 3600 is 60 min, and {words(need)} are estimated on ml.g5.2xlarge: about step {done:,} of 1,000,000 "
        "the job is stopped, saves its LoRA and a checkpoint, and run.resume(max_run=...) goes on from there; to let "
        "it end, set max_run to 19200."
    )
    assert said(max_run=3600, max_wait=4000)[0].endswith("to 19200, and max_wait as well.")
    (sentence,) = said(max_run=3600, goes_on=None)
    assert "each training is stopped, judged by what it has learnt until then, and never gone on with" in sentence
    days = said(LONG.replace(max_train_steps=40_000_000), max_run=172_800)  # where max_run of an estimate ends
    assert "max_run 172800 is 2.0 days, and 3.9 days are estimated" in days[0]


def test_of_several_types_the_slowest_counts_and_more_instances_are_faster():
    epochs = LONG.replace(train_data_dir="s3://b/p/", dataset_name=None, max_train_steps=None, num_train_epochs=2000)
    (sentence,) = said(epochs, ("ml.p5.48xlarge", "ml.g5.2xlarge"), max_run=3600, pictures=4000)
    assert "estimated on ml.g5.2xlarge" in sentence
    assert said(epochs, max_run=3600, count=8, pictures=4000) == []
    job = epochs.replace(pretrained_model_name_or_path="s3://b/base/")  # which nobody but the job can read
    assert architectures.of(job).note == "counted as SDXL's own architecture: s3://b/base/ is for a job to read"


def test_what_would_end_with_nothing_saved_is_refused(row):
    with pytest.raises(ConfigError) as refused:
        said(max_run=int(row.start) - 1)
    assert str(refused.value) == (
        f"max_run {int(row.start) - 1} is less than the {words(row.start)} that start-up and encoding are estimated to "
        "take on ml.g5.2xlarge before the first step, so that nothing would be saved: set max_run to 19200"
    )
    assert said(max_run=int(row.start) + 2)[0].startswith("max_run ")


def test_no_time_to_wait_for_a_spot_instance(row):
    wait = int(row.hours * 3600) + 600
    assert said(max_run=wait, max_wait=wait) == [
        f"max_wait {wait} leaves 10 min to wait for a spot instance, beside the {words(row.hours * 3600)} that are "
        "estimated on ml.g5.2xlarge: raise it, or leave it out."
    ]


def test_a_gpu_that_is_too_small_or_too_old(monkeypatch):
    bf16 = LONG.replace(mixed_precision="bf16")
    assert said(bf16, types=("ml.g4dn.xlarge",)) == [
        "By estimate this does not run well on ml.g4dn.xlarge: T4 has no bf16: use --mixed_precision fp16; "
        'estimate(config, instances=["ml.g4dn.xlarge"]) says what takes less.'
    ]
    monkeypatch.setattr(forecast, "CONTEXT", 30e9)
    assert "needs 30.0 GB, one picture at a time, and each GPU has 23.6; estimate(" in said()[0]


def test_a_disk_that_is_too_small():
    (sentence,) = said(LONG.replace(checkpointing_steps=100), ("ml.p3.2xlarge",), volume_gb=5)
    assert sentence.startswith("volume_size_gb 5 is less than the ") and "a checkpoints_total_limit" in sentence
    few = LONG.replace(checkpoints_total_limit=2)
    assert said(few, types=("ml.p3.2xlarge",), volume_gb=5, brought=10**9) == []
    assert "less than the 80." in said(few, types=("ml.p3.2xlarge",), volume_gb=5, brought=80 * 10**9)[0]


def test_going_on_with_a_run():
    rest = too_short(7200, Rented(G5, 1, 3600), 1000, 500, " by its pace so far")
    assert rest.startswith(
        "max_run 3600 is 60 min, and 2.0 h are estimated by its pace so far: about step 500 of 1,000"
    )
