"""Amazon SageMaker on this machine: moto's server, with training jobs and pipelines that really run.

    with SageMakerEmulator(folder) as aws:                     # sets AWS_ENDPOINT_URL, credentials, region
        run = launch_sagemaker(config, image_uri=aws.image, role_arn=aws.role, bucket=aws.bucket)
        aws.interrupt(job)                                     # spot: SIGTERM, then a restart with the checkpoints
        aws.fail("DescribeTrainingJob", "ThrottlingException", times=3)
        with aws.offline(): ...                                # every connection is cut
        aws.quotas["ml.g5.2xlarge for spot training job usage"] = 0
        aws.capacity["ml.g6.2xlarge"] = 0                      # instances of a type at hand; else as many as asked for
        aws.denied.add("iam:PassRole")                         # what SimulatePrincipalPolicy answers
        aws.job(name).wait(60); aws.job(name).log(); aws.job(name).describe()

Each instance of a job is `python -m sdxl_nb.container train` as process 1 over its own /opt/ml (machine.py); the image
is not pulled, but one of this account (123456789012) must exist in moto's ECR, as in the service. Statuses, logs,
metrics, checkpoint sync, model.tar.gz, stop, spot, limits and error messages follow the service (job.py, limits.py);
pipelines resolve parameters and cache steps as it does (pipelines.py); tuning jobs search grids and at random
(tuning.py); processing jobs run `sdxl_nb.container audit` (processing.py). `job_environment` is what the
image would bring.

As a program it serves until the command after it is done: python -m sagemaker_emulator COMMAND...
"""

import contextlib
import io
import json
import os
import socket
import tempfile
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

from .jobs import Jobs
from .limits import ServiceError
from .pipelines import Pipelines
from .processing import Processings
from .tuning import Tunings

ACCOUNT, REGION = "123456789012", "us-east-1"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
NO_TELEMETRY = "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
MEDIA = "application/vnd.docker.distribution.manifest.v2+json"
INSIDE = "sagemaker-emulator"  # in the user agent of the emulator's own requests, which no fault touches


@dataclass
class Fault:
    """An answer that the service gives instead, `times` times (None: until it is removed)."""

    action: str
    code: str
    message: str
    status: int
    times: int | None


class SageMakerEmulator:
    """See the module. `bucket`, `role` and `image` are ready to be used."""

    bucket, image = "sdxl-nb-123456789012", f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/sdxl-nb/training:1"
    role = f"arn:aws:iam::{ACCOUNT}:role/sdxl-nb-training"

    def __init__(self, folder=None, **job_environment):
        self._made = None if folder else tempfile.TemporaryDirectory(prefix="sagemaker-")
        self.folder, self.job_environment = Path(folder or self._made.name), job_environment
        self.faults, self.denied, self.quotas, self.capacity, self.calls = [], set(), {}, {}, []
        self.lock, self._offline = threading.RLock(), False
        self.jobs, self.pipelines, self.tunings = Jobs(self), Pipelines(self), Tunings(self)
        self.processings = Processings(self)

    # Start and end

    def __enter__(self):
        self.server = _Server(self)
        self.server.start()
        host, port = self.server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self._before = dict(os.environ)
        os.environ.update(self.environment())
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            os.environ.pop(name, None)
        boto3.DEFAULT_SESSION = None
        self._set_up()
        return self

    def __exit__(self, *exception):
        self.processings.kill_all()
        self.jobs.kill_all()
        os.environ.clear()
        os.environ.update(self._before)
        boto3.DEFAULT_SESSION = None
        self.server.stop()
        if self._made:
            self._made.cleanup()

    def environment(self):
        """The variables that send boto3 and the SageMaker SDK here, for this process or another one."""
        config = self.folder / "sagemaker-sdk.yaml"
        config.write_text(NO_TELEMETRY)
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "no-credentials"),
            "SAGEMAKER_VALIDATE_ROLE": "false",
            "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
            "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(config),
        }

    def _set_up(self):
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")).read()
        self.client("s3").create_bucket(Bucket=self.bucket)
        self.client("iam").create_role(
            RoleName=self.role.rpartition("/")[2], AssumeRolePolicyDocument=json.dumps(TRUST)
        )
        self.push_image("sdxl-nb/training", "1")

    def push_image(self, repository, tag):
        """An image of this account in moto's ECR."""
        ecr = self.client("ecr")
        with contextlib.suppress(ecr.exceptions.RepositoryAlreadyExistsException):
            ecr.create_repository(repositoryName=repository)
        manifest = {"schemaVersion": 2, "mediaType": MEDIA, "config": {"digest": f"sha256:{tag}"}, "layers": []}
        ecr.put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag)

    def client(self, service, region=REGION):
        """A client of the emulator's own, which no fault touches."""
        config = Config(user_agent_extra=INSIDE, retries={"max_attempts": 1}, max_pool_connections=32)
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.Session(region_name=region, **keys).client(service, endpoint_url=self.endpoint, config=config)

    # What tests do to it

    def job(self, name):
        """The Job of this name, or KeyError."""
        return self.jobs[name]

    def interrupt(self, name, hard=False):
        """Take the spot instances away: SIGTERM and two minutes, or (hard) SIGKILL at once with nothing synced."""
        self.jobs[name].interrupt(hard)

    def fail(self, action, code, message="", status=400, times=None):
        """From now on answer an action ("CreateTrainingJob", or for S3 "s3:PUT", "s3:GET") with this error."""
        self.faults.append(Fault(action, code, message or f"{code}: injected", status, times))

    def heal(self):
        """No injected errors any more."""
        self.faults.clear()

    @contextlib.contextmanager
    def offline(self):
        """Every connection (but the emulator's own and the jobs') is cut."""
        self._offline = True
        try:
            yield
        finally:
            self._offline = False

    # One request

    def answer(self, environ):
        """(status, body, content type) for a request that the emulator answers itself; None is moto's; False cuts."""
        outside = INSIDE not in environ.get("HTTP_USER_AGENT", "")
        service, region, action, parameters = read_request(environ)
        if outside:
            if self._offline:
                return False
            self.calls.append(f"{service}:{action}")
            for fault in self.faults:
                if fault.action in (action, f"{service}:{action}") and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return _error(service, fault.status, fault.code, fault.message)
        try:
            return self._own(service, region, action, parameters)
        except ServiceError as error:
            return _error(service, error.status, error.code, error.message)

    def _own(self, service, region, action, parameters):
        for actions in (self.jobs, self.pipelines, self.tunings, self.processings) if service == "sagemaker" else ():
            handler = getattr(actions, action, None)
            if handler is not None and (answer := handler(region, parameters)) is not None:
                return 200, json.dumps(answer), "application/x-amz-json-1.1"
        if service == "servicequotas" and action in ("ListServiceQuotas", "ListAWSDefaultServiceQuotas"):
            return 200, json.dumps({"Quotas": self.jobs.list_quotas()}), "application/x-amz-json-1.1"
        if service == "pricing":  # moto has no price list, and few users may read it
            raise ServiceError("AccessDeniedException", f"User is not authorized to perform: pricing:{action}")
        if service == "iam" and action == "SimulatePrincipalPolicy":
            return 200, self._simulated(parameters), "text/xml"
        return None

    def _simulated(self, parameters):
        actions = [value for name, (value, *_) in sorted(parameters.items()) if name.startswith("ActionNames.")]
        members = "".join(
            f"<member><EvalActionName>{escape(action)}</EvalActionName><EvalResourceName>*</EvalResourceName>"
            f"<EvalDecision>{'implicitDeny' if action in self.denied else 'allowed'}</EvalDecision></member>"
            for action in actions
        )
        return (
            '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
            f"<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults>{members}"
            "</EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
        )


def read_request(environ):
    """Service, region, action and parameters of a signed request; S3's action is its method."""
    credential = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split(",")[0].split("/")
    region, service = credential[2:4] if len(credential) >= 5 else ("", "")
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if service == "s3" or not service:
        return service, region, environ["REQUEST_METHOD"], {}
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    if target:
        return service, region, target.rpartition(".")[2], json.loads(body or b"{}")
    parameters = parse_qs(body.decode(errors="replace"))
    return service, region, parameters.get("Action", [""])[0], parameters


def _error(service, status, code, message):
    if service in ("s3", "iam", "sts", "cloudformation"):
        inner = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        return status, inner if service == "s3" else f"<ErrorResponse>{inner}</ErrorResponse>", "application/xml"
    return status, json.dumps({"__type": code, "message": message}), "application/x-amz-json-1.1"


class _Server(ThreadedMotoServer):
    """moto's server behind the emulator."""

    def __init__(self, emulator):
        super().__init__("127.0.0.1", 0, verbose=False)
        self.emulator = emulator

    def _server_entry(self):
        moto = DomainDispatcherApplication(create_backend_app)

        def application(environ, start_response):
            answer = self.emulator.answer(environ)
            if answer is None:
                return moto(environ, start_response)
            if answer is False:
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionAbortedError("offline")
            status, body, kind = answer
            data = body.encode()
            start_response(f"{status} .", [("Content-Type", kind), ("Content-Length", str(len(data)))])
            return [data]

        self._server = make_server("127.0.0.1", 0, application, True, request_handler=_Quiet)
        self._server_ready_event.set()
        self._server.serve_forever()


class _Quiet(MotoRequestHandler):
    def log(self, type, message, *args):
        """Nothing: requests are no news, and an offline server's errors are meant."""
