"""What a job, a pipeline's start or a search is given too little of is said or refused before anything is sent."""

import pytest
from small_runs import small
from started_jobs import aws_fixture, quickly, start  # noqa: F401 - fixtures

from sdxl_nb import tune_sagemaker
from sdxl_nb.aws import costs, staging
from sdxl_nb.aws.pipeline import prepare, searched
from sdxl_nb.aws.pipelines.starting import values
from sdxl_nb.aws.search.request import longest
from sdxl_nb.aws.tuning_step import Job
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.preflight import forecast
from sdxl_nb.preflight.limits import GOES_ON
from sdxl_nb.sweeps.space import Space
from sdxl_nb.system.errors import ConfigError, SdxlNbError

TINY = TrainConfig.preset("tiny", seed=0, max_train_steps=1_000_000, validation_prompt=None, validation_split=0.1)
WHERE = {
    "image_uri": "111122223333.dkr.ecr.us-east-1.amazonaws.com/a:1",
    "role_arn": "arn:aws:iam::111122223333:role/a",
}
UNPRICED = ("ml.g7.2xlarge", "ml.p5e.48xlarge", "ml.p5en.48xlarge", "ml.p6-b200.48xlarge", "ml.p6-b300.48xlarge")


def prepared(config=TINY, search=None, **job):
    return prepare(config, Job(**WHERE, **job), bucket="bucket", region="us-east-1", dry=True, search=search)


def test_a_job_is_told_before_anything_is_sent(aws, tmp_path, monkeypatch):
    before = len(aws.calls)
    with pytest.raises(SdxlNbError) as refused:
        start(aws, small(tmp_path / "run", max_train_steps=10_000_000), agreed=False, max_run=3600)
    assert "max_run 3600 is 60 min, and " in str(refused.value) and GOES_ON in str(refused.value)
    monkeypatch.setattr(forecast, "IMPORTS", 100.0)
    with pytest.raises(ConfigError, match=r"^max_run 60 is less than the .* so that nothing would be saved: set max_"):
        start(aws, small(tmp_path / "run"), max_run=60)
    assert not [call for call in aws.calls[before:] if "PUT" in call or "Create" in call]


def test_a_pipeline_says_it_and_a_start_with_more_steps_too(nobody, capsys):
    assert "max_run 3600 is 60 min" in " ".join(prepared(max_run=3600).notes)
    some = prepared(TINY.replace(max_train_steps=100_000), max_run=3600)
    assert "max_run 3600" not in " ".join(some.notes)
    values(some, {"MaxTrainSteps": "1000000"})
    said = capsys.readouterr().out
    assert "about step " in said and "the next start with the same settings goes on from there" in said
    values(some, {"TrainingInstanceType": "ml.p5en.48xlarge"})
    assert "1 h (max_run) of 1 × ml.p5en.48xlarge, and no price is known here" in capsys.readouterr().out


def test_a_search_counts_the_trial_that_takes_longest(nobody):
    space = {"max_train_steps": [100_000, 1_000_000], "rank": [2, 4]}
    short = TINY.replace(max_train_steps=1000)
    assert longest(short, Space.of(short, space)).max_train_steps == 1_000_000
    search = searched(short, space, {"strategy": "Grid"}, None)
    (said,) = [note for note in prepared(short, search, max_run=3600).notes if note.startswith("max_run")]
    assert "each training is stopped, judged by what it has learnt until then, and never gone on with" in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"TrainingInstanceType": "ml.p5.48xlarge"},
            r"2 trainings of 1 h .* cost up to \$126\.60, more than",
        ),
        ({"TrainingInstanceCount": 8}, r"2 trainings of 1 h .* cost up to \$24\.24, more than the ceiling"),
        (
            {"TrainingInstanceType": "ml.p5en.48xlarge"},
            r"ceiling cannot be kept, for no price is known here for",
        ),
    ],
)
def test_a_changed_start_keeps_the_ceiling_of_a_search(nobody, change, sentence):
    search = searched(TINY, {"rank": [2, 4]}, {"strategy": "Grid"}, 10)
    with pytest.raises(ConfigError, match=rf"^{sentence}"):
        values(prepared(search=search, max_run=3600), change)


@pytest.mark.parametrize("kind", UNPRICED)
def test_a_type_without_a_price_says_so_everywhere(nobody, kind):
    job = Job(instance_type=kind, spot=False)
    for sentence in (
        costs.ceiling(job, "us-east-1"),
        costs.ceiling_of_search(job, 3, "us-east-1", None),
        prepared(instance_type=kind, spot=False).notes[-1],
    ):
        assert f"no price is known here for {kind} in us-east-1: look at " in sentence and "$" not in sentence
    with pytest.raises(ConfigError, match=r"^ceiling cannot be kept, for no price is known here for "):
        tune_sagemaker(TINY, {"rank": [2, 4]}, strategy="Grid", ceiling=5, region="us-east-1", instance_type=kind)
    said = {"ResourceConfig": {"InstanceType": kind, "InstanceCount": 1}, "TrainingTimeInSeconds": 60}
    assert costs.so_far(said | {"BillableTimeInSeconds": 60}, "us-east-1")["dollars"] is None


def test_pictures_in_s3_are_counted_by_their_keys():
    staged = staging.Staged({"train": "s3://bucket/p/"}, pictures={"train": 7})
    assert costs._pictures(TINY.replace(dataset_name=None, train_data_dir="s3://bucket/p/"), staged) == 7
    assert costs._pictures(TINY.replace(dataset_name="some/body"), staging.Staged()) == 0
