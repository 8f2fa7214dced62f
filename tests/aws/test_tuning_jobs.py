"""Searches on the emulated SageMaker: trials that really train, are interrupted, stopped, gone on from; the best."""

import pytest
from small_runs import assert_same, small, train
from started_jobs import aws_fixture, quickly  # noqa: F401 - fixtures

from sdxl_nb import TuningJob, sweep, tune_sagemaker
from sdxl_nb.aws.messages import AwsError
from sdxl_nb.sweeps.space import Range
from sdxl_nb.system.errors import ConfigError

HELD_OUT = {"validation_split": 0.3, "heldout_steps": 2, "max_train_steps": 2}
LONGER = {"validation_split": 0.3, "heldout_steps": 10, "max_train_steps": 60, "checkpointing_steps": 5}
BEST = {"load_best_model_at_end": True}  # as each trial


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(TuningJob, "interval", 0.2)


def search(aws, config, space, **options):
    here = {"role_arn": aws.role, "image_uri": aws.image, "bucket": aws.bucket, "max_run": 600}
    return tune_sagemaker(config, space, **here | options)


def run_folders(aws, tuning):
    """The names of the run folders below a search's checkpoints."""
    prefix = f"runs/{tuning.name}/checkpoints/"
    pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=aws.bucket, Prefix=prefix)
    keys = [item["Key"][len(prefix) :] for page in pages for item in page["Contents"]]
    return {key.split("/")[0] for key in keys if "/" in key}


def test_one_trial_that_trains_and_one_that_cannot(aws, tmp_path, capsys):
    """A trial ends as a run here does with its values; why another one failed is said, and it is not the best."""
    space, chosen = {"min_timestep": [100, 500], "max_timestep": [400]}, {"strategy": "Random", "search_seed": 1}
    tuning = search(aws, small(tmp_path / "found", **HELD_OUT), space, max_jobs=2, ceiling=10, **chosen)
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("The search costs at most $0.51, within the ceiling of $10.00: 2 trainings")
    assert said.index("at most") < said.index("Uploaded") < said.index(f"Tuning job {tuning.name} is starting")
    lines = []
    assert tuning.wait(1200, say=lines.append) == "completed", tuning.error
    good, bad = tuning.trials()
    assert [good.state, bad.state] == ["completed", "failed"] and len(lines) == 2
    assert good.values == {"min_timestep": 100, "max_timestep": 400} and bad.values["min_timestep"] == 500
    assert bad.why.startswith("AlgorithmError: max_timestep 400 leaves no timestep from 500 on") and bad.loss is None
    here = train(small(tmp_path / "here", min_timestep=100, max_timestep=400, **HELD_OUT | BEST))
    assert good.loss == pytest.approx(here.heldout()[1][-1], rel=1e-5)  # it is printed in six digits
    best = tuning.best()
    assert best.job == good.name and best.lora.info().ranks == (2,) and best.config.min_timestep == 100
    assert_same(best.folder, here.folder)
    assert tuning.cost == round(good.dollars + bad.dollars, 2)
    shown = TuningJob.open(tuning.name)._repr_html_()
    assert "is completed<table>" in shown and shown.count("<tr>") == 3 and f"{good.loss:.4g}" in str(tuning)
    assert len(run_folders(aws, tuning)) == 1


def test_what_is_not_there(aws, tmp_path):
    with pytest.raises(AwsError, match=r"^There is no tuning job sdxl-nb-9 in us-east-1: check its name"):
        TuningJob.open("sdxl-nb-9")
    with pytest.raises(AwsError, match=r"^Tuning job sdxl-nb-9 was not looked at: "):
        search(aws, small(tmp_path / "a", **HELD_OUT), {"rank": Range(2, 4)}, warm_start="sdxl-nb-9")
    puts = aws.calls.count("s3:PUT")
    with pytest.raises(ConfigError, match=r"cost up to \$25\.25, more than the ceiling of \$5\.00: raise it, lower"):
        search(aws, small(tmp_path / "b", **HELD_OUT), {"rank": Range(2, 4)}, max_jobs=100, ceiling=5)
    assert aws.calls.count("s3:PUT") == puts and "sagemaker:CreateHyperParameterTuningJob" not in aws.calls[-3:]


def test_a_search_that_cannot_be_is_told(aws, tmp_path):
    """The emulator takes Bayesian requests as valid, and searches by none."""
    tuning = search(aws, small(tmp_path / "a", **HELD_OUT), {"learning_rate": Range(1e-4, 1e-2, log=True)})
    assert tuning.wait(1200) == "failed" and tuning.error == "the emulator does not search as Bayesian does"
    with pytest.raises(AwsError, match=r"^No training of \S+ has a held-out loss yet \(it is failed\)"):
        tuning.best()
    tuning_again = search(aws, small(tmp_path / "b", **HELD_OUT), {"rank": Range(2, 4)}, strategy="Hyperband")
    assert tuning_again.wait(1200) == "failed" and tuning_again.trials() == [] and str(tuning_again).startswith("trial")
    with pytest.raises(ConfigError, match=rf"^warm_start {tuning.name} had \d+ settings, .* and \S+ is on one side"):
        search(
            aws, small(tmp_path / "c", **HELD_OUT | {"lr_scheduler": "cosine"}), {"rank": [2, 4]},
            warm_start=tuning.name, strategy="Random",
        )  # fmt: skip


@pytest.mark.soak
def test_a_grid_here_and_there_finds_the_same_best(aws, tmp_path):
    space = {"learning_rate": [1e-2, 1e-3], "rank": [2, 3]}
    config = small(tmp_path / "found", **HELD_OUT | {"max_train_steps": 4})
    here = sweep(config.replace(output_dir=str(tmp_path / "here")), space, say=lambda line: None)
    tuning = search(aws, config, space, strategy="Grid", max_parallel_jobs=2)
    assert tuning.wait(2400) == "completed", tuning.error
    there = {tuple(trial.values.values()): trial.loss for trial in tuning.trials()}
    losses = {tuple(row.values.values()): pytest.approx(row.loss, rel=1e-5) for row in here.rows}
    assert there == losses and len(losses) == 4
    best = tuning.best()
    assert {name: getattr(best.config, name) for name in space} == here.best.values
    assert_same(
        best.folder, train(config.replace(output_dir=str(tmp_path / "whole"), **here.best.values | BEST)).folder
    )
    assert len(run_folders(aws, tuning)) == 4


@pytest.mark.soak
def test_six_trainings_interrupted_stopped_and_gone_on_from(aws, tmp_path, capsys):
    """Random search: one trial loses its instance twice, the search is stopped, and a second one goes on from it."""
    space = {"learning_rate": Range(1e-4, 1e-2, log=True), "rank": Range(2, 6), "lr_scheduler": ["constant", "cosine"]}
    options = {"strategy": "Random", "search_seed": 4, "max_parallel_jobs": 2}
    first = search(aws, small(tmp_path / "first", **LONGER), space, max_jobs=6, **options)
    begun = aws.tunings[first.name]
    while len(begun.jobs) < 2:
        begun.thread.join(0.1)
    job = begun.jobs[0]
    job.wait_for("step=12 ")
    aws.interrupt(job.name, hard=True)
    job.wait_for("step=30 ")
    aws.interrupt(job.name)
    job.wait()
    states = [turn["Status"] for turn in job.transitions]
    assert states.count("Interrupted") == 2 and job.status == "Completed"
    while len(begun.jobs) < 4:
        begun.thread.join(0.1)
    begun.jobs[3].wait_for("step=3 ")
    first.stop()
    assert first.wait(1200) == "stopped" and 4 <= len(first.trials()) < 6
    values = {trial.name: trial.values for trial in first.trials()}[job.name]
    whole = train(small(tmp_path / "whole", **LONGER | values | BEST))
    assert_same(first.run(job.name).folder, whole.folder)

    capsys.readouterr()
    left = 6 - sum(trial.state == "completed" for trial in first.trials())
    options["search_seed"] = 5
    second = search(aws, small(tmp_path / "second", **LONGER), space, max_jobs=left, warm_start=first.name, **options)
    assert f"Starts from what {first.name} found, with the same image and data." in capsys.readouterr().out
    assert second.wait(2400) == "completed"
    ended = [trial for tuning in (first, second) for trial in tuning.trials() if trial.state == "completed"]
    judged = [trial for tuning in (first, second) for trial in tuning.trials() if trial.loss is not None]
    assert len(ended) == 6 and second.best_name() == min(judged, key=lambda trial: trial.loss).name
    best = second.best()
    assert best.lora.info().ranks == (best.config.rank,) and best.status in ("completed", "stopped")
    trained = [job for job in begun.jobs if "step=" in job.log()]  # stopped, one may not have come to a step
    assert len(run_folders(aws, first)) == len(trained) >= 4 and len(run_folders(aws, second)) == left
