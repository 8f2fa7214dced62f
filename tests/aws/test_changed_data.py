"""A job trains what it was given: other bytes at the same place are another run, and the old LoRA is not delivered."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from sagemaker_emulator import SageMakerEmulator
from small_runs import assert_same, home, in_a_process, small, tensors

from sdxl_nb.aws import container
from sdxl_nb.aws.identity import content
from sdxl_nb.aws.identity.content import CHANNELS
from sdxl_nb.aws.pipeline import prepare, start_pipeline
from sdxl_nb.aws.staging import INPUT, Staged
from sdxl_nb.aws.tuning_step import Job, hyperparameters
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import ConfigError


def different(one, other):
    ours, theirs = tensors(one), tensors(other)
    return any(not ours[key].equal(theirs[key]) for key in ours)


def repaint(path):
    """Another picture of the same size in its place."""
    with Image.open(path) as picture:
        size = picture.size
    Image.new("RGB", size, "purple").save(path)


# In the container


@pytest.fixture
def job(tmp_path, monkeypatch):
    """/opt/ml with a channel for pictures and one for the base; the run's settings are one step of them."""
    ml = tmp_path / "ml"
    monkeypatch.setattr(container, "ROOT", ml)
    monkeypatch.setenv(container.PROCESSES, "1")
    for source, channel in (("pictures", "train"), ("base", "model")):
        shutil.copytree(home()[0] / source, ml / "input" / "data" / channel)
    paths = {name: f"{INPUT}/{CHANNELS[name][0]}" for name in ("train_data_dir", "pretrained_model_name_or_path")}
    asked = hyperparameters(small("elsewhere", max_train_steps=1), Staged(paths=paths))
    (ml / "input" / "config").mkdir()
    (ml / "input" / "config" / "hyperparameters.json").write_text(json.dumps(asked))
    return ml


def entry():
    sys.exit(container.main(["train"]))


def trained(ml, keep, name="here"):
    """Run the container; what it delivered, under `keep`, and the name of its run folder."""
    assert in_a_process(entry) == 0, (ml / "output" / "failure").read_text()
    shutil.move(ml / "model", keep)
    return keep, json.loads((ml / "checkpoints" / f"job-{name}.json").read_text())["run"]


def test_other_pictures_in_a_channel_are_another_run(job, tmp_path, capfd, monkeypatch):
    pictures = job / "input" / "data" / "train"
    first, folder = trained(job, tmp_path / "first")
    before = {path: path.read_bytes() for path in (job / "checkpoints" / folder).rglob("*") if path.is_file()}
    shutil.copyfile(pictures / "0.png", tmp_path / "0.png")
    repaint(pictures / "0.png")
    monkeypatch.setenv("TRAINING_JOB_NAME", "sdxl-nb-2")
    second, other = trained(job, tmp_path / "second", "sdxl-nb-2")
    said = capfd.readouterr().out
    assert other != folder and different(first, second) and "complete already" not in said
    assert f"Note: An earlier run of the same settings, {folder[:8]}, was trained on other pictures (14 files" in said
    assert before == {path: path.read_bytes() for path in before}
    shutil.copyfile(tmp_path / "0.png", pictures / "0.png")
    third, again = trained(job, tmp_path / "third", "sdxl-nb-2")
    assert again == folder and "This run is complete already" in capfd.readouterr().out
    assert_same(first, third)


def test_what_is_not_what_was_promised_is_refused_before_anything_is_trained(job, tmp_path, monkeypatch):
    promised = content.told({"train": ("s3://b/pics/", content.of_place(job / "input" / "data" / "train"))})
    monkeypatch.setenv(content.VARIABLE, promised)
    (job / "input" / "data" / "train" / "7.png").write_bytes(b"new")
    assert in_a_process(entry) == 1
    assert (job / "output" / "failure").read_text().startswith(
        "The pictures (train) changed after this job was started (14 files of "
    )  # fmt: skip
    assert not (job / "checkpoints").exists()


# On the emulated SageMaker


@pytest.fixture
def aws(nobody, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aws").mkdir()
    with SageMakerEmulator(tmp_path / "aws") as emulator:
        for path in (home()[0] / "pictures").iterdir():
            for prefix in ("pics/", "pics-rejected/"):
                emulator.client("s3").upload_file(str(path), emulator.bucket, prefix + path.name)
        yield emulator


def start(aws, parameters=None, **changes):
    config = small("run", train_data_dir=f"s3://{aws.bucket}/pics", max_train_steps=1, **changes)
    options = {"image_uri": aws.image, "role_arn": aws.role, "bucket": aws.bucket}
    return start_pipeline(config, parameters=parameters, **options)


def finished(execution):
    assert execution.wait(interval=0.2, say=lambda line: None) == "Succeeded", execution.failure
    return execution.job_name


def change(aws, name="pics/0.png", folder=None):
    picture = Path(folder) / "changed.png"
    Image.new("RGB", (32, 32), "purple").save(picture)
    aws.client("s3").upload_file(str(picture), aws.bucket, name)
    aws.client("s3").put_object(Bucket=aws.bucket, Key=name.replace(".png", ".txt"), Body=b"a card")


def fetched(job):
    run = Run.open(job)
    run.refresh()
    assert run.status == "completed" and run.trouble is None
    return run.folder


@pytest.mark.soak
def test_new_pictures_under_the_same_prefix_are_trained(aws, tmp_path):
    first = finished(start(aws))
    assert finished(start(aws)) == first
    assert "step=1 " in aws.job(first).log() and "pictures=7" in aws.job(first).log()
    change(aws, folder=tmp_path)
    second = finished(start(aws))
    assert second != first and "complete already" not in aws.job(second).log()
    assert different(fetched(first), fetched(second))
    request = aws.job(second).request
    checkpoints = request["CheckpointConfig"]["S3Uri"]
    folder = json.loads((Path("runs") / second / "sagemaker.json").read_text())["run"]
    for place in (f"{request['OutputDataConfig']['S3OutputPath']}/{second}/output/model.tar.gz", checkpoints):
        assert Run.open(place).job == Run.open(f"{checkpoints}/{folder}").job == second


@pytest.mark.soak
def test_a_start_with_another_place_trains_what_lies_there(aws, tmp_path, capsys):
    for name in ("0", "1", "2"):
        change(aws, f"other/{name}.png", tmp_path)
    first = finished(start(aws))
    other = {"TrainS3Uri": f"s3://{aws.bucket}/other/"}
    second = finished(start(aws, other))
    assert "pictures=3" in aws.job(second).log() and finished(start(aws, other)) == second
    change(aws, "other/3.png", tmp_path)
    third = finished(start(aws, other))
    assert "pictures=4" in aws.job(third).log()
    places = [aws.job(name).request["CheckpointConfig"]["S3Uri"] for name in (first, second, third)]
    assert len(set(places)) == 3  # each restores what is its own
    by_hand = aws.client("sagemaker").start_pipeline_execution(
        PipelineName="sdxl-nb", PipelineParameters=[{"Name": "TrainS3Uri", "Value": other["TrainS3Uri"]}]
    )["PipelineExecutionArn"]  # as the console does, which says nothing of Content and CheckpointS3Uri
    execution = type(start(aws))(by_hand)
    fourth = finished(execution)
    assert "pictures=4" in aws.job(fourth).log() and "train is s3://" in aws.job(fourth).log()
    assert "An earlier run of the same settings" in aws.job(fourth).log()
    assert not different(fetched(third), fetched(fourth))


def test_what_a_start_may_change(aws, capsys):
    aws.quotas["ml.g5.2xlarge for spot training job usage"] = 0
    config = small("run", train_data_dir=f"s3://{aws.bucket}/pics", pretrained_model_name_or_path="embedded:tiny-sdxl")
    prepared = prepare(config, Job(image_uri=aws.image, role_arn=aws.role), bucket=aws.bucket)
    for parameters, sentence in (
        ({"TrainS3Uri": f"s3://{aws.bucket}/pics"}, "must end with a slash"),
        ({"TrainS3Uri": "pics/"}, "must be an s3:// prefix"),
        ({"TrainS3Uri": f"s3://{aws.bucket}/pics.zip"}, "must end with a slash"),
        ({"TrainS3Uri": f"s3://{aws.bucket}/{'x' * 512}/"}, "TrainS3Uri takes 512 characters at most"),
        ({"PretrainedModelNameOrPath": "s3://b/m/"}, "a place cannot be given by PretrainedModelNameOrPath"),
        ({"TrainingInstanceType": "ml.g5.3xlarge"}, "did you mean ml.g5.2xlarge"),
        ({"OutputPath": "s3://" + "x" * 1025}, "takes 1024 characters at most"),
        ({"ModelS3Uri": "s3://b/m/"}, "start it with pretrained_model_name_or_path in the config"),
        ({"DatasetName": "me/mine"}, "start it with dataset_name in the config"),
        ({"Rank": "many"}, "rank must be a whole number"),
        ({"TrainingInstanceType": "g5"}, "instance_type must be an instance type"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            prepared.start(parameters)
    capsys.readouterr()
    prepared.start({"OutputPath": f"s3://{aws.bucket}/elsewhere"}).wait(interval=0.1, say=print)
    assert "nothing is run, and nothing is written to OutputPath" in capsys.readouterr().out


def test_a_place_that_may_not_be_listed_is_trained_anew_and_said(aws, capsys):
    aws.quotas["ml.g5.2xlarge for spot training job usage"] = 0
    aws.fail("s3:GET", "AccessDenied", status=403)
    texts = set()
    for _ in range(2):
        arn = start(aws, pretrained_model_name_or_path="embedded:tiny-sdxl").arn
        said = aws.client("sagemaker").list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)
        texts |= {p["Value"] for p in said["PipelineParameters"] if p["Name"] == "Content"}
    assert len(texts) == 2 and "So this trains train anew" in capsys.readouterr().out


def test_a_dry_run_prints_the_request_and_says_what_it_could_not_list(nobody, capsys):
    from sdxl_nb.build_pipeline import main

    assert main(["--dry_run", "--train_data_dir", "s3://somebodys-bucket/pics"]) == 0
    said = capsys.readouterr()
    assert '"s3://somebodys-bucket/pics/"' in said.out
    assert "What s3://somebodys-bucket/pics/ holds is not known here: " in said.err
