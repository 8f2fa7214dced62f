"""What people bring to SageMaker that no job can train on, or that is written as elsewhere: one sentence each."""

import pytest

from sdxl_nb.aws import shapes, staging, tuning_step
from sdxl_nb.aws.messages import AwsError
from sdxl_nb.aws.session import Session
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError, DataError

ROLE = "arn:aws:iam::111122223333:role/a"
IMAGE = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/a:1"


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("S3://my-pics/a b/", "s3://my-pics/a b/"),
        ("s3a://my-pics/a", "s3://my-pics/a"),
        ("arn:aws:s3:::my-pics/a/*", "s3://my-pics/a/"),
        ("arn:aws-cn:s3:::my-pics", "s3://my-pics/"),
        ("https://my-pics.s3.amazonaws.com/a%20b/", "s3://my-pics/a b/"),
        ("https://my-pics.s3.eu-west-1.amazonaws.com/a/?versionId=3", "s3://my-pics/a/"),
        ("https://s3.eu-west-1.amazonaws.com/my-pics/a/", "s3://my-pics/a/"),
        ("https://us-east-1.console.aws.amazon.com/s3/buckets/my-pics?region=us-east-1&prefix=a/b/", "s3://my-pics/a/b/"),
        ("https://s3.console.aws.amazon.com/s3/buckets/my-pics", "s3://my-pics/"),
    ],
)  # fmt: skip
def test_other_spellings_of_a_place_are_told_its_address(written, place):
    with pytest.raises(DataError) as refused:
        staging.plan(TrainConfig(seed=1, train_data_dir=written), "b")
    assert str(refused.value) == f"train_data_dir {written} is a place in S3: write it as {place}."


@pytest.mark.parametrize("written", ["me/pictures", "https://example.com/a", "arn:aws:iam::1:role/a", "s3", "pics.s3"])
def test_what_is_no_place_in_s3(written):
    assert staging.in_s3(written) is None


def test_one_picture_is_no_set_of_pictures():
    with pytest.raises(DataError, match=r"^train_data_dir s3://b-1/a/1\.PNG is one picture: give the prefix of its"):
        staging.plan(TrainConfig(seed=1, train_data_dir="s3://b-1/a/1.PNG"), "b")
    planned = staging.plan(TrainConfig(seed=1, train_data_dir="s3://b-1/scans.png/"), "b")
    assert planned.channels == {"train": "s3://b-1/scans.png/"}


@pytest.mark.parametrize(
    ("bucket", "stands"),
    [("my-bucket", True), ("a.b-c", True), ("a..b", False), ("a.-b", False), ("10.0.0.1", False), ("Mine", False)],
)
def test_names_that_no_bucket_has(bucket, stands):
    asked = {"OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/runs"}}
    assert (not list(shapes._places(asked, ()))) == stands


def test_a_bucket_is_named_without_a_place_in_it(nobody):
    assert Session("us-east-1").bucket("s3://my-bucket/") == "my-bucket"
    with pytest.raises(ConfigError, match=r"^bucket my-bucket/runs names a place in a bucket: give my-bucket alone$"):
        Session("us-east-1").bucket("s3://my-bucket/runs/")


@pytest.mark.parametrize(
    ("region", "advice"),
    [("us-east-1a", "did you mean us-east-1?"), ("US East (Ohio)", "us-east-1, say"), ("us-east", "us-east-1, say")],
)  # fmt: skip
def test_a_region_that_is_none(nobody, region, advice):
    with pytest.raises(AwsError) as refused:
        Session(region)
    assert str(refused.value) == f"AWS_REGION must be a region of AWS, not {region!r}: {advice}"
    for known in ("us-gov-west-1", "ap-southeast-7", "us-iso-east-1", "eusc-de-east-1", "us-isob-east-1"):
        assert Session(known).region == known


def test_an_image_of_another_region_is_refused_before_anything_is_sent(nobody):
    with pytest.raises(AwsError) as refused:
        Session("us-east-1").check_image(IMAGE)
    assert str(refused.value) == (
        f"The image {IMAGE} lies in eu-west-1, and jobs in us-east-1 take images of their own region: name one of "
        "us-east-1, or set AWS_REGION=eu-west-1."
    )


def test_tags_are_the_same_in_capitals():
    def tags(**given):
        job = tuning_step.Job(role_arn=ROLE, image_uri=IMAGE, tags=given)
        places = {"output": "s3://a-b", "checkpoints": "s3://a-b"}
        asked = tuning_step.request(TrainConfig(seed=1), job, staging.Staged(), **places)
        return asked, [(tag["Key"], tag["Value"]) for tag in asked["Tags"]]

    asked, found = tags(Project="art")
    assert found == [("Project", "art")] and not list(shapes._tags(asked["Tags"]))
    assert tags(team="x")[1] == [("project", "sdxl-nb"), ("team", "x")]
    twice = next(shapes._tags(tags(Team="x", team="y")[0]["Tags"]))
    assert twice.limit == "holds Team twice: leave one out"
