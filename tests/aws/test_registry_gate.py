"""What follows training in a pipeline: the gate on the held-out loss, the registry, and a registered LoRA fetched."""

import io
import json
import tarfile

import pytest
from sagemaker_emulator import SageMakerEmulator
from small_runs import assert_same, small, train

from sdxl_nb import registered_lora, start_pipeline
from sdxl_nb.aws.messages import AwsError
from sdxl_nb.aws.pipeline import prepare
from sdxl_nb.aws.pipelines import registry
from sdxl_nb.aws.pipelines.gate import Gate, card_texts
from sdxl_nb.aws.tuning_step import Job
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError, DataError

HELD_OUT = {"validation_split": 0.3, "heldout_steps": 2, "max_train_steps": 2}


@pytest.fixture
def aws(nobody, tmp_path):
    (tmp_path / "aws").mkdir()
    with SageMakerEmulator(tmp_path / "aws") as started:
        yield started


def options(aws, **more):
    return {"image_uri": aws.image, "role_arn": aws.role, "bucket": aws.bucket} | more


def test_what_passes_is_registered_and_what_falls_short_is_not(aws, tmp_path, monkeypatch):
    """One training: the second execution, with another gate, takes it from the cache."""
    monkeypatch.chdir(tmp_path)
    drawn = {"validation_prompt": "a cup", "num_validation_images": 1, "validation_inference_steps": 1}
    config = small(tmp_path / "run", **HELD_OUT, **drawn)
    execution = start_pipeline(config, gate=9, register="sdxl-nb-cards", **options(aws))
    lines = []
    assert execution.wait(interval=0.2, say=lines.append) == "Succeeded", execution.failure
    assert lines[-1].endswith("Gate: Succeeded passed, Register: Succeeded") and execution.failure is None
    here = train(small(tmp_path / "here", **HELD_OUT, **drawn))
    loss = here.heldout()[1][-1]
    card = aws.pipelines.executions[execution.arn].cards["sdxl-nb-cards"]
    (metric,) = card["evaluation_details"][0]["metric_groups"][0]["metric_data"]
    assert metric == {"name": "heldout_loss", "type": "number", "value": pytest.approx(loss, rel=1e-5)}
    assert str(tmp_path) not in json.dumps(card) and card["additional_information"]["custom_details"]["rank"] == "2"
    lora = registered_lora("sdxl-nb-cards")
    assert lora.info().ranks == (2,) and (tmp_path / "loras" / "sdxl-nb-cards-1" / "README.md").is_file()
    assert_same(tmp_path / "loras" / "sdxl-nb-cards-1", here.folder)
    version = aws.client("sagemaker").describe_model_package(ModelPackageName=execution.registered)
    place = version["CustomerMetadataProperties"]["pictures"]
    assert place == f"s3://{aws.bucket}/runs/sdxl-nb/{execution.job_name}/output/previews"
    shown = aws.client("s3").get_object(Bucket=aws.bucket, Key=f"{place.removeprefix(f's3://{aws.bucket}/')}/00-5.png")
    assert shown["ContentType"] == "image/png"
    assert shown["Body"].read() == (here.folder / "validation" / "step-2" / "00-5.png").read_bytes()
    assert registered_lora(execution.registered, tmp_path / "again").info().ranks == (2,)
    with pytest.raises(AwsError, match=r"^The registry holds no approved version of sdxl-nb-cards in us-east-1"):
        registered_lora("sdxl-nb-cards", approved=True)

    strict = start_pipeline(config, gate=1e-6, register="sdxl-nb-cards", **options(aws))
    assert strict.wait(interval=0.2, say=lines.append) == "Failed" and len(aws.jobs.known) == 1
    assert strict.failure.startswith("The held-out loss of this LoRA is 1.") and strict.registered is None
    assert strict.failure.endswith(
        ", above the gate's 1e-06: it was not registered; its run is kept, see execution.run."
    )
    assert "found: it has run before), Gate: Succeeded not passed, FellShort: Failed" in lines[-1]
    versions = aws.client("sagemaker").list_model_packages(ModelPackageGroupName="sdxl-nb-cards")
    assert len(versions["ModelPackageSummaryList"]) == 1


def definition(**after):
    config = TrainConfig(seed=1, validation_split=0.1)
    job = Job(image_uri="111122223333.dkr.ecr.us-east-1.amazonaws.com/a:1", role_arn="arn:aws:iam::111122223333:role/a")
    prepared = prepare(config, job, bucket="my-bucket", region="us-east-1", dry=True, after=Gate(**after))
    return json.loads(prepared.definition)


def test_steps_that_nobody_asks_for_are_not_there(nobody):
    assert [step["Name"] for step in definition()["Steps"]] == ["FineTune"]
    assert [step["Type"] for step in definition(register="sdxl-nb")["Steps"]] == ["Training", "RegisterModel"]
    training, gate = definition(gate=0.2)["Steps"]
    assert gate["Arguments"]["IfSteps"] == [] and gate["Arguments"]["ElseSteps"][0]["Type"] == "Fail"
    assert gate["Arguments"]["Conditions"] == [
        {
            "Type": "LessThanOrEqualTo",
            "LeftValue": {"Get": "Steps.FineTune.FinalMetricDataList['heldout_loss'].Value"},
            "RightValue": 0.2,
        }
    ]
    assert training == definition()["Steps"][0]


@pytest.mark.parametrize(
    ("config", "after", "sentence"),
    [
        ({}, {"gate": 0.1}, "gate judges by the loss on pictures that are held out: set validation_split"),
        ({}, {"gate": float("nan")}, "gate must be a held-out loss, a number above 0, not nan"),
        ({}, {"gate": True}, "gate must be a held-out loss, a number above 0, not True"),
        ({}, {"gate": "0.1"}, "gate must be a held-out loss, a number above 0, not '0.1'"),
        ({}, {"register": "mine"}, "register must be the name of a model package group that begins with sdxl-nb"),
        ({}, {"register": "sdxl-nb-" + "a" * 60}, "register must be the name of a model package group"),
        ({}, {"register": "sdxl-nb-"}, "register must be the name of a model package group"),
    ],
)
def test_what_no_pipeline_takes(nobody, config, after, sentence):
    with pytest.raises(ConfigError) as refused:
        start_pipeline(TrainConfig(seed=1, **config), **after)
    assert str(refused.value).startswith(sentence)


def test_a_card_is_one_text_around_the_loss():
    config = TrainConfig(seed=1, rank=8, train_data_dir="/home/me/pictures")
    (text,) = card_texts(config)
    assert "evaluation_details" not in json.loads(text) and "/home/me" not in text
    before, loss, after = card_texts(config, 0.25)
    assert (
        json.loads(f"{before}{loss}{after}")["evaluation_details"][0]["metric_groups"][0]["metric_data"][0]["value"]
        == 0.25
    )


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/../../x.json", "a\\x.png"])
def test_an_archive_that_leads_out(tmp_path, name):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for member in (tarfile.TarInfo("run.sh"), tarfile.TarInfo(name)):
            archive.addfile(member, io.BytesIO())
    with pytest.raises(DataError, match=r"would be saved outside"):
        registry._unpack(tmp_path / "a.tar.gz", tmp_path / "in" / "here")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.tar.gz"]
