"""How does it run on SageMaker?

The same TrainConfig in; a job or a pipeline, and its Run, out. boto3 and sagemaker are imported only when called.
"""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "launch_sagemaker": "job",  # a training job
        "start_pipeline": "pipeline",  # a pipeline, created and started
        "tune_sagemaker": "search.start",  # many jobs that search for the best settings
        "TuningJob": "search.tuning_job",  # such a search, found again by its name
        "doctor": "diagnosis",  # what is missing on this account
        "JobRun": "job_run",  # a job as a Run
        "open_run": "job",  # the Run of a job's name or prefix
        "Job": "tuning_step",  # what a job runs on, under what limits
    },
)
