# ruff: noqa: E501  (a request and its sentence stand on one line)
"""What the service's own model forbids: refused here in one sentence before anything is sent, and by the emulator."""

import random
import string

import pytest
from botocore.validate import ParamValidator
from sagemaker_emulator.limits import ServiceError, check_job, instance_supports_kms, shape

from sdxl_nb.aws import shapes, staging
from sdxl_nb.aws.identity import content
from sdxl_nb.aws.identity.content import CHANNELS
from sdxl_nb.aws.job import unique_name
from sdxl_nb.aws.tuning_step import Job, refuse, request
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError, SdxlNbError

ROLE = "arn:aws:iam::123456789012:role/sdxl-nb"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sdxl-nb/training:1"
CONFIG = TrainConfig(seed=1)
CHANNEL = {
    "ChannelName": "train",
    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/pics/"}},
}


def asked(job=None, staged=None):
    job = job or Job(role_arn=ROLE, image_uri=IMAGE)
    staged = staged or staging.Staged({"train": "s3://bucket/pics/"}, {"train_data_dir": "/opt/ml/input/data/train"})
    made = request(CONFIG, job, staged, output="s3://bucket/runs/1", checkpoints="s3://bucket/checkpoints/1")
    return made | {"TrainingJobName": "sdxl-nb-1"}


# Settings of a job, as a user gives them

MANY = {f"team{number}": "a" for number in range(60)}
JOBS = [
    ({"instance_type": "ml.g5.3xlarge"}, "instance_type must be one that SageMaker knows, not 'ml.g5.3xlarge': did you mean ml.g5.2xlarge?"),
    ({"instance_type": "ml.g4dn.metal"}, "instance_type must be one that SageMaker knows, not 'ml.g4dn.metal': did you mean ml.g4dn."),
    ({"instance_type": "ml.a1.big"}, "instance_type must be one that SageMaker knows"),
    ({"instance_type": "g5.2xlarge"}, "instance_type must be an instance type such as ml.g5.2xlarge, not 'g5.2xlarge'"),
    ({"instance_type": 5}, "instance_type must be a text, not 5"),
    ({"instance_type": ""}, "instance_type must be an instance type such as"),
    ({"instance_count": 0}, "instance_count must be 1 to 64, not 0"),
    ({"instance_count": -1}, "instance_count must be 1 to 64, not -1"),
    ({"instance_count": True}, "instance_count must be a whole number, not True"),
    ({"instance_count": "2"}, "instance_count must be a whole number, not '2'"),
    ({"instance_count": 1.0}, "instance_count must be a whole number, not 1.0"),
    ({"max_run": float("nan")}, "max_run must be a whole number, not nan"),
    ({"max_run": 28 * 86400 + 1}, "max_run must be 60 to 2419200, not 2419201"),
    ({"max_run": True}, "max_run must be a whole number, not True"),
    ({"max_wait": 60.5}, "max_wait must be a whole number, not 60.5"),
    ({"max_wait": 60}, "max_wait 60 is less than max_run"),
    ({"spot": "no"}, "spot must be True or False, not 'no'"),
    ({"spot": False, "max_wait": 10**6}, "max_wait is for spot instances"),
    ({"volume_size_gb": 0}, "volume_size_gb must be 1 to 16384, not 0"),
    ({"volume_size_gb": -100}, "volume_size_gb must be 1 to 16384, not -100"),
    ({"volume_size_gb": 20000}, "volume_size_gb must be 1 to 16384, not 20000"),
    ({"role_arn": "sdxl-nb"}, "role_arn must be the ARN of a role, arn:aws:iam::ACCOUNT:role/NAME, not 'sdxl-nb'"),
    ({"role_arn": "arn:aws:iam::12345:role/x"}, "role_arn must be the ARN of a role"),
    ({"role_arn": "arn:aws:iam::123456789012:role/a:b"}, "role_arn must be the ARN of a role"),
    ({"role_arn": "arn:aws:iam::123456789012:role/" + "x" * 2048}, "role_arn takes 2048 characters at most, not 2079"),
    ({"image_uri": "my image"}, "image_uri must be an image in ECR, ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG, not 'my image'"),
    ({"image_uri": "docker.io/pytorch/pytorch"}, "image_uri must be an image in ECR"),
    ({"image_uri": IMAGE + "x" * 255}, "image_uri takes 255 characters at most"),
    ({"image_uri": IMAGE.replace(":1", ":")}, "image_uri must be an image in ECR"),
    ({"kms_key": "my key"}, "kms_key must be a key's id, ARN or alias/NAME, not 'my key'"),
    ({"kms_key": "alias/" + "x" * 2048}, "kms_key takes 2048 characters at most"),
    ({"kms_key": 7}, "kms_key must be a text, not 7"),
    ({"subnets": ("subnet-1",) * 17, "security_group_ids": ("sg-1",)}, "subnets takes 16 at most, not 17"),
    ({"subnets": ("subnet-1",), "security_group_ids": ("sg-1",) * 9}, "security_group_ids takes 5 at most, not 9"),
    ({"subnets": ("subnet-1",)}, "subnets and security_group_ids go together"),
    ({"subnets": ("subnet 1",), "security_group_ids": ("sg-1",)}, "subnets must be ids such as subnet-0123456789abcdef0, not 'subnet 1'"),
    ({"subnets": ("sg-1",), "security_group_ids": ("sg-1",)}, "subnets must be ids such as subnet-"),
    ({"subnets": ("subnet-1",), "security_group_ids": ("default",)}, "security_group_ids must be ids such as sg-"),
    ({"subnets": ("subnet-" + "1" * 33,), "security_group_ids": ("sg-1",)}, "subnets takes 32 characters at most, not 40"),
    ({"subnets": "subnet-1", "security_group_ids": ("sg-1",)}, "subnets must be a list of ids, not 'subnet-1'"),
    ({"subnets": (1,), "security_group_ids": ("sg-1",)}, "subnets, security_group_ids and tags hold texts, not 1"),
    ({"tags": MANY}, "tags takes 50 at most, not 61"),
    ({"tags": {"aws:cost": "1"}}, "tags holds aws:cost, and names that begin with aws: are AWS's own"),
    ({"tags": {"AWS:cost": "1"}}, "tags holds AWS:cost"),
    ({"tags": {"": "1"}}, "tags holds =1, which AWS does not take"),
    ({"tags": {"a" * 129: "1"}}, "tags holds"),
    ({"tags": {"a": "1" * 257}}, "tags holds"),
    ({"tags": {"a": "<b>"}}, "tags holds a=<b>, which AWS does not take"),
    ({"tags": {"a": 3}}, "subnets, security_group_ids and tags hold texts, not 3"),
    ({"tags": [("a", "b")]}, "tags must be keys and values"),
    ({"job_name": "x" * 33}, "job_name must be at most 32 letters, digits and single hyphens"),
    ({"job_name": "-".join("a" * 32)}, "job_name must be at most 32 letters"),
    ({"job_name": "my_job"}, "job_name must be at most 32 letters"),
    ({"job_name": ""}, "job_name must be at most 32 letters"),
    ({"hub_token_secret": "sdxl-nb/" + "x" * 512}, "the variable SDXL_NB_HUB_TOKEN_SECRET of the job takes 512 characters at most, not 520"),
    ({"fallbacks": ("ml.g6.2xlarge",)}, "fallbacks are not for spot instances, by the service: set spot=False"),
    ({"fallbacks": ("ml.g6.2xlarge", "ml.g5.2xlarge"), "spot": False}, "fallbacks and instance_type hold ml.g5.2xlarge twice"),
    ({"fallbacks": ("ml.g6.2xlarge",) * 2, "spot": False}, "fallbacks and instance_type hold ml.g6.2xlarge twice: leave one out"),
    ({"fallbacks": tuple(f"ml.g6.{n}xlarge" for n in (2, 4, 8, 12, 16)), "spot": False}, "fallbacks and instance_type are 6 types, and SageMaker takes 5 at most"),
    ({"fallbacks": ("ml.g6.3xlarge",), "spot": False}, "fallbacks must be one that SageMaker knows, not 'ml.g6.3xlarge': did you mean ml.g6.2xlarge?"),
    ({"instance_type": "ml.g5.3xlarge", "fallbacks": ("ml.g6.2xlarge",), "spot": False}, "instance_type must be one that SageMaker knows, not 'ml.g5.3xlarge': did you mean"),
    ({"fallbacks": ("g6.2xlarge",), "spot": False}, "fallbacks must be instance types such as ml.g5.2xlarge, not 'g6.2xlarge'"),
    ({"fallbacks": "ml.g6.2xlarge", "spot": False}, "fallbacks must be a list of instance types, not 'ml.g6.2xlarge'"),
    ({"fallbacks": (6,), "spot": False}, "fallbacks hold instance types, not 6"),
    ({"mlflow": "http://mlflow.example"}, "mlflow must be the ARN of an MLflow App or tracking server, arn:aws:sagemaker:REGION"),
    ({"mlflow": "arn:aws:sagemaker:us-east-1:123456789012:mlflow-server/a"}, "mlflow must be the ARN of an MLflow App"),
    ({"mlflow": "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/a"}, "mlflow is for report_to mlflow or all, not tensorboard: set report_to"),
    ({"wandb_secret": "hf_0123"}, "wandb_secret must be the name of a secret under sdxl-nb/, not a key"),
]  # fmt: skip


@pytest.mark.parametrize(("job", "sentence"), JOBS, ids=range(len(JOBS)))
def test_a_job_that_the_service_refuses(job, sentence, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with pytest.raises(ConfigError) as refused:
        refuse(CONFIG, Job(**{"role_arn": ROLE, "image_uri": IMAGE} | job), staging.Staged())
    assert str(refused.value).startswith(sentence) and "\n" not in str(refused.value)


# The request itself: also what no flag of ours can say today


def changed(place, value):
    """A request that the service takes, with another value at a place."""
    made = asked()
    *way, last = place.split(".")
    inner = made
    for name in way:
        inner = inner[int(name)] if isinstance(inner, list) else inner.setdefault(name, {})
    inner[int(last) if isinstance(inner, list) else last] = value
    return made


PREFERRED = [{"InstanceType": "ml.g6.2xlarge"}, {"InstanceType": "ml.g5.2xlarge"}]
REQUESTS = [
    ("TrainingJobName", "sdxl-nb-" + "x" * 63, "job_name takes 63 characters at most, not 71"),
    ("TrainingJobName", "sdxl_nb", "job_name must be letters, digits and single hyphens, not 'sdxl_nb'"),
    ("HyperParameters.validation_prompt", "x" * 2501, "validation_prompt takes 2500 characters at most, not 2501"),
    ("HyperParameters.validation_prompt", "a\nb", "validation_prompt must be made as SageMaker asks (.*)"),
    ("HyperParameters", {f"h{n}": "1" for n in range(101)}, "HyperParameters takes 100 at most, not 101"),
    ("HyperParameters", {"x" * 257: "1"}, "x" * 257 + " cannot be called so: its name takes 256 characters at most"),
    ("Environment.A", "x" * 513, "the variable A of the job takes 512 characters at most, not 513"),
    ("Environment.9", "x", "the variable 9 of the job cannot be called so"),
    ("Environment", {f"E{n}": "1" for n in range(101)}, "Environment takes 100 at most, not 101"),
    ("InputDataConfig", [], "InputDataConfig takes 1 at least, not 0"),
    ("InputDataConfig", [CHANNEL] * 21, "InputDataConfig takes 20 at most, not 21"),
    ("InputDataConfig.0.DataSource.S3DataSource.S3Uri", "s3://b/" + "x" * 1024, "the s3:// place of channel train takes 1024"),
    ("InputDataConfig.0.DataSource.S3DataSource.S3Uri", "pics/", "the s3:// place of channel train must be made as SageMaker"),
    ("InputDataConfig.0.DataSource.S3DataSource.S3Uri", "s3://My_Bucket/pics/", "the s3:// place of channel train names the bucket 'My_Bucket'"),
    ("InputDataConfig.0.DataSource.S3DataSource.S3DataType", "S3Prefx", "the s3:// place of channel train must be one that SageMaker knows, not 'S3Prefx': did you mean S3Prefix?"),
    ("OutputDataConfig.S3OutputPath", "s3://b/" + "x" * 1024, "the place for results takes 1024 characters at most"),
    ("OutputDataConfig.S3OutputPath", "s3://UPPER/x", "the place for results names the bucket 'UPPER'"),
    ("CheckpointConfig.S3Uri", "https:/x", "the place for checkpoints must be made as SageMaker asks"),
    ("ResourceConfig.VolumeKmsKeyId", "alias/mine", "kms_key is not for the disks of ml.g5.2xlarge"),
    ("ResourceConfig.KeepAlivePeriodInSeconds", 21601, "keep_alive takes 21600 at most"),
    ("ResourceConfig.InstanceCuont", 1, "ResourceConfig.InstanceCuont is not known to SageMaker: did you mean InstanceCount?"),
    ("StoppingCondition.MaxPendingTimeInSeconds", 60, "max_pending must be at least 1800, not 60"),
    ("RetryStrategy", {}, "retries must be given"),
    ("RetryStrategy", {"MaximumRetryAttempts": 31}, "retries takes 30 at most"),
    ("AlgorithmSpecification.TrainingInputMode", "file", "AlgorithmSpecification.TrainingInputMode must be one that SageMaker knows, not 'file': did you mean File?"),
    ("AlgorithmSpecification.MetricDefinitions", [{"Name": "a", "Regex": "a"}] * 41, "AlgorithmSpecification.MetricDefinitions takes 40 at most, not 41"),
    ("AlgorithmSpecification.MetricDefinitions", [{"Name": "", "Regex": "a"}], "AlgorithmSpecification.MetricDefinitions[0].Name takes 1 characters at least"),
    ("AlgorithmSpecification.MetricDefinitions", [{"Name": "a", "Regex": "a" * 501}], "AlgorithmSpecification.MetricDefinitions[0].Regex takes 500 characters at most"),
    ("ResourceConfig.SelectedInstanceType", "ml.g5.2xlarge", "ResourceConfig.SelectedInstanceType is SageMaker's to say"),
    ("ResourceConfig.InstancePreferences", [{"InstanceType": "ml.g6.2xlarge"}], "fallbacks cannot be given with InstanceType: leave one"),
    ("ResourceConfig", {"InstancePreferences": PREFERRED, "InstanceCount": 1, "VolumeSizeInGB": 1}, "fallbacks are not for spot instances"),
    ("EnableManagedSpotTraining", 1, "spot must be true or false, not 1"),
    ("StoppingCondition.MaxRuntimeInSeconds", True, "max_run must be a whole number, not True"),
    ("StoppingCondition.MaxRuntimeInSeconds", 0, "max_run must be at least 1, not 0"),
    ("Tags", [{"Key": "a"}], "Tags[0].Value must be given"),
    ("Tags", [{"Key": "a", "Value": "1"}] * 2, "tags holds a twice: leave one out"),
    ("Tags", "team=art", "tags must be a list, not 'team=art'"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "sentence"), REQUESTS, ids=range(len(REQUESTS)))
def test_a_request_that_the_service_refuses(place, value, sentence):
    made = changed(place, value)
    with pytest.raises(ConfigError) as refused:
        shapes.refuse(made)
    assert str(refused.value).startswith(sentence) and "\n" not in str(refused.value)
    if "names the bucket" not in sentence:  # the service finds those when it looks for them
        with pytest.raises(ServiceError):
            check_job(made)


COUNTED = [one | {"InstanceCount": 2} for one in PREFERRED]
PREFERENCES = [
    ({"InstancePreferences": [*PREFERRED, PREFERRED[0]], "InstanceCount": 1}, "fallbacks hold ml.g6.2xlarge twice: leave one out"),
    ({"InstancePreferences": COUNTED, "InstanceCount": 1}, "fallbacks need one InstanceCount for all, or one for each"),
    ({"InstancePreferences": [COUNTED[0], PREFERRED[1]]}, "fallbacks need one InstanceCount for all, or one for each"),
    ({"InstancePreferences": PREFERRED}, "fallbacks need one InstanceCount for all, or one for each"),
    ({"InstancePreferences": [], "InstanceCount": 1}, "fallbacks takes 1 at least, not 0"),
    ({"InstancePreferences": PREFERRED, "InstanceCount": 1, "VolumeKmsKeyId": "a"}, "kms_key is not for the disks of ml.g6.2xlarge"),
    ({"InstancePreferences": COUNTED}, None),
    ({"InstancePreferences": PREFERRED, "InstanceCount": 1}, None),
]  # fmt: skip


@pytest.mark.parametrize(("resources", "sentence"), PREFERENCES, ids=range(len(PREFERENCES)))
def test_preferred_instance_types(resources, sentence):
    made = asked() | {"ResourceConfig": resources | {"VolumeSizeInGB": 1}}
    made["StoppingCondition"].pop("MaxWaitTimeInSeconds")
    made.pop("EnableManagedSpotTraining")
    if sentence is None:
        shapes.refuse(made)
        return check_job(made)
    with pytest.raises(ConfigError) as refused:
        shapes.refuse(made)
    assert str(refused.value).startswith(sentence)
    with pytest.raises(ServiceError):
        check_job(made)


# What is allowed


def letters(draw, least, most, alphabet=string.ascii_letters + string.digits):
    return "".join(draw.choice(alphabet) for _ in range(draw.randint(least, most)))


FEW = ["ml.p2.xlarge", "ml.m7i.large", "ml.g6.2xlarge", "ml.p4d.24xlarge", "ml.r8i-flex.large"]


def drawn(draw):
    """Any job and its places that ought to pass."""
    spot, run = draw.random() < 0.5, draw.randint(60, 28 * 86400)
    vpc = draw.random() < 0.5
    job = Job(
        instance_type=draw.choice([kind for kind in shapes.instance_types() if kind not in FEW]),
        instance_count=draw.randint(1, 64),
        spot=spot,
        fallbacks=() if spot else tuple(draw.sample(FEW, draw.randint(0, 4))),
        max_run=run,
        max_wait=draw.choice([None, run + draw.randint(0, 10**6)]) if spot else None,
        role_arn=f"arn:aws{draw.choice(['', '-cn', '-us-gov'])}:iam::123456789012:role/{letters(draw, 1, 64)}",
        image_uri=draw.choice(
            [IMAGE, IMAGE.replace("amazonaws.com", "c2s.ic.gov"), IMAGE[:-2] + "@sha256:" + "0" * 64]
        ),
        kms_key=draw.choice([None, f"alias/{letters(draw, 1, 9)}", "arn:aws:kms:us-east-1:123456789012:key/1-2"]),
        subnets=tuple(f"subnet-{letters(draw, 1, 17)}" for _ in range(draw.randint(1, 16))) if vpc else (),
        security_group_ids=tuple(f"sg-{letters(draw, 1, 17)}" for _ in range(draw.randint(1, 5))) if vpc else (),
        tags={letters(draw, 1, 128): letters(draw, 0, 256, "äz龍 _.:/=+-@7") for _ in range(draw.randint(0, 49))},
        job_name="-".join(letters(draw, 1, 7) for _ in range(draw.randint(1, 4))),
        hub_token_secret=draw.choice([None, f"sdxl-nb/{letters(draw, 1, 99)}"]),
        volume_size_gb=draw.randint(1, 16384),
    )
    names = [channel for channel, _ in CHANNELS.values() if draw.random() < 0.5]
    if "opposites" in names:  # which a configuration has with neither of these
        names = [name for name in names if name not in ("class", "validation")]
    places = {name: f"s3://{letters(draw, 3, 63, 'abc0')}/{letters(draw, 0, 900)}/" for name in names}
    found = {
        name: content.Content(10**6, 10**12, letters(draw, 12, 12), f"etag:{letters(draw, 64, 64)}") for name in names
    }
    return job, staging.Staged(places, contents=found)


def test_two_hundred_jobs_that_pass_the_whole_model(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    draw = random.Random(19)
    for _ in range(200):
        job, staged = drawn(draw)
        made = asked(job, staged) | {"TrainingJobName": unique_name(job.job_name) + "-r99"}
        shapes.refuse(made)
        assert not ParamValidator().validate(made, shape("CreateTrainingJob")).has_errors()
        check_job(made)


def test_the_key_goes_where_the_service_takes_one():
    from sagemaker.core.common_utils import instance_supports_kms as says

    for kind in shapes.instance_types():
        ours, theirs = not shapes.has_own_disk(kind), says(kind)
        assert instance_supports_kms(kind) == ours and (theirs or not ours), kind
    for kind, ours in (("ml.p3.2xlarge", True), ("ml.g4dn.xlarge", False), ("ml.g7e.2xlarge", False)):
        volume = asked(Job(kind, role_arn=ROLE, image_uri=IMAGE, kms_key="alias/mine"))
        assert ("VolumeKmsKeyId" in volume["ResourceConfig"]) == ours
        assert volume["OutputDataConfig"]["KmsKeyId"] == "alias/mine"


def patterns_of(shape, seen):
    """Every pattern that a request of this shape is held against."""
    if shape.name in seen:
        return
    seen.add(shape.name)
    if "pattern" in shape.metadata:
        yield shape.metadata["pattern"]
    inner = {"structure": lambda: shape.members.values(), "list": lambda: [shape.member]}
    inner["map"] = lambda: [shape.key, shape.value]
    for part in inner.get(shape.type_name, list)():
        yield from patterns_of(part, seen)


def test_javas_classes_of_characters_are_ours():
    """Those patterns of the whole model that Python cannot read are translated; none is passed over."""
    patterns = set(patterns_of(shape("CreateTrainingJob"), set()))
    assert len(patterns) > 20
    for pattern in patterns:
        assert r"\p" not in shapes._compiled(pattern).pattern, pattern
    tag = shape("CreateTrainingJob").members["Tags"].member.members["Key"].metadata["pattern"]
    for text, fits in (("ä 龍_7\u00a0.:/=+-@", True), ("<", False), ("a\n", False), ("\u0301", False)):
        assert bool(shapes._compiled(tag).fullmatch(text)) == fits, text


def test_refused_before_anybody_is_asked(nobody, tmp_path):
    from sdxl_nb import launch_sagemaker, start_pipeline

    for launch in (launch_sagemaker, start_pipeline):
        with pytest.raises(SdxlNbError, match=r"did you mean ml\.g5\.2xlarge\?"):  # not: there is no region
            launch(CONFIG.replace(output_dir=str(tmp_path / "run")), instance_type="ml.g5.3xlarge")


def test_job_names_keep_room_for_their_end():
    for name in ("a", "a" * 32, "-".join("a" * 16)):
        made = unique_name(Job(job_name=name).job_name)
        assert len(f"{made}-r99") <= 63
        shapes.refuse(asked() | {"TrainingJobName": f"{made}-r99"})
