"""Jobs on the emulated SageMaker, launched, watched, interrupted, stopped, resumed; container and trainer are real."""

import contextlib
import io
import json
import os
import random
import re
import shutil
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from small_runs import assert_same, home, small, whole
from started_jobs import aws_fixture, quickly, start  # noqa: F401 - fixtures

from sdxl_nb.aws import costs
from sdxl_nb.aws.container import steps_of
from sdxl_nb.aws.job_run import JobRun
from sdxl_nb.aws.messages import AwsError
from sdxl_nb.aws.tuning_step import Job
from sdxl_nb.config.layout import LORA
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.drawing.generation import load_base
from sdxl_nb.preflight.prices import Price
from sdxl_nb.runs.run import Run
from sdxl_nb.runs.stages import Stages
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.widgets.grid.grid import ValidationGrid

LONG = {"max_train_steps": 110, "checkpointing_steps": 7}
PICTURES = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}


@pytest.fixture(scope="module")
def long_run():
    """What every long job must end with: a run on this machine that nobody interrupted."""
    return whole(**LONG).folder


def sent(aws, action="s3:PUT"):
    return aws.calls.count(action)


# A job from launch to LoRA


class Finished(NamedTuple):
    """A finished job, its configuration, what its launch printed; and a grid that was there before its machine."""

    run: JobRun
    config: TrainConfig
    printed: str
    early: str  # the grid's notice at first
    grid: Any  # what it showed in the end


@pytest.fixture(scope="module")
def job(aws, tmp_path_factory):
    config = small(tmp_path_factory.mktemp("job") / "run", **PICTURES)
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobRun, "interval", 0.2)
        run = start(aws, config, hub_token_secret=None, tags={"team": "art"})
        assert run.status in ("starting", "running")
        grid = ValidationGrid(run)
        early = grid._notice.value
        assert run.wait(1200) == "completed", aws.job(run.job).log()
        grid.refresh()
        grid.close()
    return Finished(run, config, printed.getvalue(), early, grid._shown)


def test_the_result_is_that_of_a_local_run(job):
    run, config = job.run, job.config
    local = whole(**PICTURES)
    assert run.folder == Path(config.output_dir)
    assert_same(run.folder, local.folder)
    assert run.losses() == local.losses() and run.losses()[0] == [1, 2, 3, 4, 5, 6]
    assert list(run.pictures()) == list(local.pictures()) == [0, 4, 6]
    assert run.lora.info().ranks == (2,) and (run.folder / "README.md").is_file()
    assert not list(run.folder.glob("checkpoint-*")) and not (run.folder / "lock").exists()
    assert run.plot() and run.status == "completed" and run.error is None and run.trouble is None


def test_every_stage_can_be_shipped_and_drawn_and_only_then_comes_its_lora(job, tmp_path):
    run = job.run
    local = whole(**PICTURES)
    shutil.copytree(run.folder, tmp_path / "here")
    stages = Stages(JobRun.at(tmp_path / "here"))
    assert stages.steps() == [0, 4, 6] and stages.steps_with_lora() == [2, 4, 6]
    assert not list((tmp_path / "here").glob("checkpoint-*"))
    chosen = stages.ship(4, tmp_path / "chosen")
    assert_same(chosen, local.folder / "checkpoint-4")
    fetched = {path.name for path in (tmp_path / "here" / "checkpoint-4").iterdir()}
    assert fetched == {LORA, "small.safetensors"} and not (tmp_path / "here" / "checkpoint-2").exists()
    assert_same(stages.ship(6, tmp_path / "last"), local.folder)
    assert not (tmp_path / "here" / "checkpoint-6").exists()  # the run's own files are the same
    assert stages.lora_file(2) == tmp_path / "here" / "checkpoint-2" / "small.safetensors"
    made = stages.draw(0.5, load_base(str(home()[0] / "base")))
    assert [path.parent.parent.name for path in made] == ["step-4", "step-6"]
    with pytest.raises(SdxlNbError, match=r"there are those of steps 2, 4, 6\."):
        stages.ship(3, tmp_path / "none")


def test_a_grid_can_be_shown_before_the_job_has_a_machine(job):
    assert job.early == "" and job.grid.steps == [0, 2, 4, 6] and job.grid.kept == {2, 4, 6}


def test_the_job_is_what_was_asked_for(job, aws):
    run, printed = job.run, job.printed
    said = aws.job(run.job).describe()
    assert re.fullmatch(r"sdxl-nb-\d{6}-\d{6}-[0-9a-f]{4}", run.job)
    states = [turn["Status"] for turn in said["SecondaryStatusTransitions"]]
    assert states == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert said["EnableManagedSpotTraining"] and said["StoppingCondition"]["MaxRuntimeInSeconds"] == 6000
    assert said["CheckpointConfig"] == {"S3Uri": f"s3://{aws.bucket}/runs/{run.job}/checkpoints"}
    assert {"Key": "team", "Value": "art"} in aws.job(run.job).tags
    assert {m["MetricName"] for m in said["FinalMetricDataList"]} == {"train_loss", "lr", "seconds_per_step"}
    assert "at most" in printed.splitlines()[0] and run.job in printed
    assert printed.index("at most") < printed.index("Uploaded") < printed.index("is starting")


def test_nothing_of_this_machine_reaches_aws(job, aws):
    run, config = job.run, job.config
    request = json.dumps({**aws.job(run.job).request, "log": aws.job(run.job).log()})
    root, _ = home()
    for secret in (str(root), config.output_dir, os.environ["HOME"] + "/", os.environ["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in request, secret


def test_the_model_archive_holds_what_a_user_wants(job, aws, tmp_path):
    run = job.run
    bucket, _, key = aws.job(run.job).artifacts.removeprefix("s3://").partition("/")
    aws.client("s3").download_file(bucket, key, str(tmp_path / "model.tar.gz"))
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        names = {name for name in archive.getnames() if archive.getmember(name).isfile()}
    pictures = {name for name in names if name.startswith("validation/")}
    assert {name.split("/")[1] for name in pictures} == {"step-0", "step-6"}
    assert names - pictures == {"pytorch_lora_weights.safetensors", "small.safetensors", "README.md", "config.json"}


def test_what_it_costs(job, aws):
    run = job.run
    said = aws.job(run.job).describe()
    cost = run.cost
    assert cost["training_seconds"] == said["TrainingTimeInSeconds"]
    assert cost["billed_seconds"] == said["BillableTimeInSeconds"]
    assert cost["saving"] == pytest.approx(1 - cost["billed_seconds"] / cost["training_seconds"], abs=1e-3)


def test_a_fresh_kernel_finds_it_by_name_place_and_folder(job, aws, tmp_path):
    run = job.run
    for place in (run.job, f"s3://{aws.bucket}/runs/{run.job}", aws.job(run.job).arn):
        again = Run.open(place)
        assert (again.job, again.status, again.losses()) == (run.job, "completed", run.losses())
        assert again.folder == Path("runs") / run.job
    assert_same(again.folder, run.folder)
    here = Run.open(run.folder)
    assert isinstance(here, JobRun) and here.job == run.job and here.status == "completed"
    assert run.job in repr(here) and run.job in here._repr_html_()


def test_last_weeks_run_opens_without_a_network(job, aws):
    with aws.offline():
        run = Run.open(job.run.folder)
        assert run.status == "completed" and run.losses() == job.run.losses() and run.lora.info().ranks == (2,)
        assert "AWS cannot be reached" in run.summary()["trouble"]


def test_the_sentence_about_the_price(monkeypatch):
    job = Job(instance_type="ml.g5.2xlarge", instance_count=2, max_run=5400, spot=False)
    monkeypatch.setattr(costs, "hourly", lambda instance_type, region: Price(1.5, "list price of 2026-01-01"))
    assert costs.ceiling(job, "us-east-1") == (
        "It costs at most $4.50: 1.5 h (max_run) of 2 × ml.g5.2xlarge at $1.50 an hour (list price of 2026-01-01)."
    )
    monkeypatch.setattr(costs, "hourly", lambda instance_type, region: Price(1.5151, "list price of 2026-01-01"))
    assert "at most $4.55: 1.5 h (max_run) of 2 × ml.g5.2xlarge at $1.5151 an hour" in costs.ceiling(job, "us-east-1")
    warm = costs.ceiling(Job(max_run=5400, spot=False, keep_alive=900), "us-east-1")
    assert warm.endswith(", and up to $0.38 more for instances that are kept 900 s (keep_alive).")
    monkeypatch.setattr(costs, "hourly", lambda instance_type, region: None)
    assert costs.ceiling(replace(job, instance_type="ml.p5en.48xlarge"), "us-east-1") == (
        "It costs at most 1.5 h (max_run) of 2 × ml.p5en.48xlarge, and no price is known here for ml.p5en.48xlarge in "
        "us-east-1: look at aws.amazon.com/sagemaker/pricing, or run python -m sdxl_nb.preflight.price_refresh with "
        "AWS credentials that may pricing:GetProducts."
    )
    rest = costs.of_rest(job, "us-east-1", 10.0, steps=2000, done=500)
    assert rest.startswith("It costs at most ") and ", and 4.2 h are estimated by its pace so far: about step " in rest


def test_the_log_is_cloudwatchs(job):
    lines = job.run.log(3).splitlines()
    assert len(lines) == 3 and lines[-2] == "end: completed" and "\nstep=6 train_loss=" in job.run.log(40)
    assert lines[-1].startswith("step-6: 1 picture of this LoRA is at s3://")


def test_what_is_here_is_not_fetched_again(job, aws):
    run = job.run
    before = sent(aws, "s3:GET")
    JobRun.at(run.folder).refresh()
    assert sent(aws, "s3:GET") == before + 1  # the list


def test_a_second_launch(job, aws, tmp_path, monkeypatch, capsys):
    """It uploads nothing, bears throttling and a network that is away, and an interrupt of the kernel only detaches."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    aws.fail("CreateTrainingJob", "ThrottlingException", "Rate exceeded", times=2)
    before, stops = sent(aws), sent(aws, "sagemaker:StopTrainingJob")
    run = start(aws, small(tmp_path / "second", max_train_steps=100_000, checkpointing_steps=50))
    aws.heal()
    assert sent(aws) == before and sent(aws, "sagemaker:CreateTrainingJob") >= 3

    def interrupt(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=interrupt)  # the emulator sleeps on
        patch.setattr("sdxl_nb.aws.job_run.time", clock)
        assert run.wait() in ("starting", "running")
    assert f"Job {run.job} goes on, and is billed" in capsys.readouterr().out
    assert sent(aws, "sagemaker:StopTrainingJob") == stops
    aws.job(run.job).wait_for("step=5 ")
    while_the_network_is_away(aws, run)
    run.stop()
    assert run.wait(1200) == "stopped" and run.trouble is None
    assert sent(aws, "sagemaker:StopTrainingJob") == stops + 1


def while_the_network_is_away(aws, run):
    """A job goes on and its run says so; waiting for it ends only when patience does."""
    end = time.monotonic() + 1200
    while not run.step and time.monotonic() < end:
        time.sleep(0.05)
    assert run.step >= 1
    with aws.offline():
        time.sleep(0.3)
        seen = run.losses()
        assert run.status == "running" and "AWS cannot be reached" in str(run.trouble) and len(seen[0]) >= 1
        assert "AWS cannot be reached" in run.summary()["trouble"]
        with pytest.raises(TimeoutError):
            run.wait(0.5, interval=0.1)
        run.patience = 0.3
        with pytest.raises(AwsError, match="what already runs on AWS goes on"):
            run.wait(1200, interval=0.1)


# Spot, stop, resume


@pytest.mark.soak
def test_interrupted_twice_it_ends_the_same(aws, tmp_path, long_run):
    draw = random.Random(7)
    run = start(aws, small(tmp_path / "run", **LONG))
    job = aws.job(run.job)
    job.wait_for(f"step={draw.randint(4, 25)} ")
    aws.interrupt(run.job, hard=True)
    job.wait_for(f"step={draw.randint(45, 60)} ")
    newest = run.lora.path.parent  # there is none of a stop: that of a checkpoint, without what only training needs
    assert newest.name.startswith("checkpoint-") and not (newest / "state.safetensors").exists()
    aws.interrupt(run.job)
    assert run.wait(1200) == "completed"
    states = [turn["Status"] for turn in job.transitions]
    assert states.count("Interrupted") == states.count("Restarting") == 2 and states.count("Training") == 3
    assert_same(run.folder, long_run)
    assert run.losses() == Run.open(long_run).losses() and run.losses()[0] == list(range(1, 111))


@pytest.mark.soak
def test_stopped_resumed_and_interrupted_it_ends_the_same(aws, tmp_path, long_run, capsys):
    run = start(aws, small(tmp_path / "run", **LONG), spot=False)
    aws.job(run.job).wait_for("step=9 ")
    run.stop()
    assert run.wait(1200) == "stopped"
    step = run.step
    assert 9 <= step < 100 and steps_of(run.folder / LORA) == step and run.cost["saving"] is None
    run.stop()  # again does no harm
    said, _ = [], capsys.readouterr()
    resumed = run.resume(spot=True, say=said.append)
    assert run.price.startswith("It costs at most") and said[0].startswith(run.price.removesuffix("."))
    assert resumed.preparing.startswith("SageMaker says") and resumed.config.rank == 2
    assert said[1].startswith(f"Job {resumed.job} is starting") and capsys.readouterr().out == ""
    aws.job(resumed.job).wait_for(f"step={step + 10} ")
    aws.interrupt(resumed.job, hard=True)
    assert resumed.job == f"{run.job}-r2" and resumed.wait(1200) == "completed", resumed.error
    states = [turn["Status"] for turn in aws.job(resumed.job).transitions]
    assert states.count("Interrupted") == 1 and states.count("Training") == 2
    assert f"resumed_from={step}" in aws.job(resumed.job).log()
    assert resumed.losses() == Run.open(long_run).losses() and resumed.losses()[0] == list(range(1, 111))
    assert aws.job(resumed.job).describe()["EnableManagedSpotTraining"]
    assert_same(resumed.folder, long_run)
    assert Run.open(f"s3://{aws.bucket}/runs/{run.job}").job == resumed.job
    with pytest.raises(SdxlNbError, match=r"is completed: there is nothing to resume\."):
        resumed.resume()


@pytest.mark.soak
def test_max_run_ends_it_with_a_lora_and_advice(aws, tmp_path, monkeypatch):
    run = start(aws, small(tmp_path / "run", max_train_steps=100_000))
    aws.job(run.job).wait_for("step=2 ")
    monkeypatch.setitem(aws.job(run.job).request["StoppingCondition"], "MaxRuntimeInSeconds", 1)
    assert run.wait(1200) == "stopped" and steps_of(run.folder / LORA) == run.step > 0
    assert run.error == f"Job {run.job} reached max_run: resume() goes on from its newest checkpoint."


# What goes wrong


def test_a_job_that_is_not_there(job, monkeypatch):
    with pytest.raises(AwsError, match=r"^There is no job sdxl-nb-1 in us-east-1: check its name"):
        Run.open("sdxl-nb-1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with pytest.raises(AwsError, match=rf"^There is no job {job.run.job} in eu-west-1: .* set AWS_REGION"):
        Run.open(job.run.job)
    with pytest.raises(AwsError, match=r"is not the prefix of a run: give s3://BUCKET/runs/JOB"):
        Run.open("s3://bucket/pictures")


# Several processes


@pytest.mark.soak
def test_where_no_namespaces_can_be_made(aws, tmp_path, long_run, monkeypatch):
    """The emulator's other way to run a container, for machines that allow no more."""
    monkeypatch.setattr("sagemaker_emulator.machine.isolation", lambda: None)
    run = start(aws, small(tmp_path / "run", **LONG))
    aws.job(run.job).wait_for("step=20 ")
    aws.interrupt(run.job)
    assert run.wait(1200) == "completed"
    assert_same(run.folder, long_run)
    assert "/opt/ml" not in aws.job(run.job).log()


@pytest.mark.soak
def test_two_processes_and_two_instances_end_the_same(aws, tmp_path, monkeypatch):
    monkeypatch.setitem(aws.job_environment, "SDXL_NB_PROCESSES", "2")
    one = start(aws, small(tmp_path / "one"))
    assert one.wait(1200) == "completed", one.log(60)
    monkeypatch.setitem(aws.job_environment, "SDXL_NB_PROCESSES", "1")
    two = start(aws, small(tmp_path / "two"), instance_count=2)
    assert two.wait(1200) == "completed", two.log(60)
    assert "processes=2" in aws.job(one.job).log() and "processes=2" in aws.job(two.job).log()
    assert_same(one.folder, two.folder)


@pytest.mark.soak
def test_two_instances_stop_together_and_go_on(aws, tmp_path, monkeypatch):
    monkeypatch.setitem(aws.job_environment, "SDXL_NB_PROCESSES", "1")
    whole = start(aws, small(tmp_path / "whole", **LONG), instance_count=2)
    assert whole.wait(1200) == "completed"
    run = start(aws, small(tmp_path / "run", **LONG), instance_count=2)
    aws.job(run.job).wait_for("step=9 ", 1200)
    aws.interrupt(run.job)
    aws.job(run.job).wait_for("step=60 ", 1200)
    run.stop()
    assert run.wait(1200) == "stopped" and run.step < 110
    resumed = run.resume()
    assert resumed.wait(1200) == "completed", resumed.log(60)
    assert resumed.losses() == whole.losses()
    assert_same(whole.folder, resumed.folder)
