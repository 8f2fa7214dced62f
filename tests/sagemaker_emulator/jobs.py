"""Training jobs: the service's actions on them, its checks of the account, and the jobs by name."""

import re

from .job import ACCOUNT, OVER, Job, split
from .limits import IMAGE, ServiceError, check_job, invalid, types_of

TYPES = ("ml.g4dn.xlarge", "ml.g5.xlarge", "ml.g5.2xlarge", "ml.g5.12xlarge", "ml.p4d.24xlarge", "ml.g6e.xlarge")


class Jobs:
    """The actions, as methods (region, parameters) -> answer; and the jobs by name."""

    def __init__(self, emulator):
        self.emulator, self.known = emulator, {}

    def __getitem__(self, name):
        return self.known[name]

    def find(self, region, name):
        job = self.known.get(name)
        if job is None or job.region != region:
            raise invalid("Requested resource not found.")
        return job

    def CreateTrainingJob(self, region, request):
        return {"TrainingJobArn": self.create(region, request).arn}

    def create(self, region, request):
        check_job(request)
        self._check_account(region, request)
        with self.emulator.lock:
            name = request["TrainingJobName"]
            if name in self.known:
                raise ServiceError(
                    "ResourceInUse", f"Training job names must be unique within an AWS account and region: {name}"
                )
            job = self.known[name] = Job(self.emulator, region, request)
        job.start()
        return job

    def _check_account(self, region, request):
        image = request["AlgorithmSpecification"].get("TrainingImage", "")
        found = IMAGE.fullmatch(image)
        if not found:
            raise invalid(f"Invalid training image: {image}")
        if found[1] == ACCOUNT:
            tag = {"imageTag": found[4] or "latest"} if not found[5] else {"imageDigest": found[5]}
            try:
                self.emulator.client("ecr", found[2]).describe_images(repositoryName=found[3], imageIds=[tag])
            except Exception as error:
                raise invalid(f"Requested image {image} not found.") from error
        if not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/.+", request["RoleArn"]):
            raise invalid(f"Invalid RoleArn: {request['RoleArn']}")
        try:
            self.emulator.client("iam").get_role(RoleName=request["RoleArn"].rpartition("/")[2])
        except Exception as error:
            raise invalid(f"Could not assume role {request['RoleArn']}. Please ensure that the role exists") from error
        for kind in types_of(request["ResourceConfig"]):  # nothing says that one without a quota is passed over
            self._check_quota(request, kind)
        for place in (request["OutputDataConfig"]["S3OutputPath"], request.get("CheckpointConfig", {}).get("S3Uri")):
            if place is not None:
                self._check_bucket(place)

    def _check_quota(self, request, kind):
        listed = request["ResourceConfig"].get("InstancePreferences", [])
        counts = [one["InstanceCount"] for one in listed if one["InstanceType"] == kind and "InstanceCount" in one]
        count = counts[0] if counts else request["ResourceConfig"]["InstanceCount"]
        spot = "spot training job" if request.get("EnableManagedSpotTraining") else "training job"
        limit = self.emulator.quotas.get(f"{kind} for {spot} usage", 8)
        if count > limit:
            raise ServiceError(
                "ResourceLimitExceeded",
                f"The account-level service limit '{kind} for {spot} usage' is {limit} Instances, with current "
                f"utilization of 0 Instances and a request delta of {count} Instances. Please use AWS Service Quotas "
                "to request an increase for this quota. If AWS Service Quotas is not available, contact AWS support "
                "to request an increase for this quota.",
            )

    def _check_bucket(self, place):
        try:
            self.emulator.client("s3").head_bucket(Bucket=split(place)[0])
        except Exception as error:
            raise invalid(f"S3 bucket '{split(place)[0]}' does not exist.") from error

    def list_quotas(self):
        names = {f"{t} for {k} usage": 8.0 for t in TYPES for k in ("training job", "spot training job")}
        names |= {name: float(value) for name, value in self.emulator.quotas.items()}
        return [
            {"ServiceCode": "sagemaker", "QuotaName": name, "QuotaCode": f"L-{index:08X}", "Value": value}
            for index, (name, value) in enumerate(sorted(names.items()))
        ]

    def DescribeTrainingJob(self, region, request):
        return self.find(region, request["TrainingJobName"]).describe()

    def StopTrainingJob(self, region, request):
        job = self.find(region, request["TrainingJobName"])
        if job.status in OVER:
            raise invalid("The request was rejected because the training job is in status " + job.status + ".")
        job.stop()
        return {}

    def ListTrainingJobs(self, region, request):
        jobs = [job for job in self.known.values() if job.region == region]
        jobs = [job for job in jobs if request.get("NameContains", "") in job.name]
        jobs = [job for job in jobs if request.get("StatusEquals", job.status) == job.status]
        keys = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingJobStatus", "LastModifiedTime")
        return {"TrainingJobSummaries": [{key: job.describe()[key] for key in keys} for job in reversed(jobs)]}

    def ListTags(self, region, request):
        job = self._of(request)
        return None if job is None else {"Tags": job.tags}

    def AddTags(self, region, request):
        job = self._of(request)
        if job is None:
            return None
        job.tags += request["Tags"]
        return {"Tags": job.tags}

    def _of(self, request):
        arn = request["ResourceArn"]
        return next((job for job in self.known.values() if job.arn == arn), None)

    def kill_all(self):
        for job in self.known.values():
            job.kill()
        for job in self.known.values():
            job.thread.join(1200)
