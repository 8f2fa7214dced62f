"""Fine-tune Stable Diffusion XL with LoRA, from notebooks or from one command.

The public names are here and load on first use, so that `import sdxl_nb` costs nothing: no torch, no diffusers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .system.importing import uncollected

if TYPE_CHECKING:  # what an editor reads; at run time `__getattr__` does the same
    from sdxl_nb.audit.inspection import audit_dataset as audit_dataset
    from sdxl_nb.aws.diagnosis import doctor as doctor
    from sdxl_nb.aws.job import launch_sagemaker as launch_sagemaker
    from sdxl_nb.aws.pipeline import start_pipeline as start_pipeline
    from sdxl_nb.aws.pipelines.registry import registered_lora as registered_lora
    from sdxl_nb.aws.search.start import tune_sagemaker as tune_sagemaker
    from sdxl_nb.aws.search.tuning_job import TuningJob as TuningJob
    from sdxl_nb.config.train_config import TrainConfig as TrainConfig
    from sdxl_nb.data.dataset import open_dataset as open_dataset
    from sdxl_nb.drawing.generation import generate as generate
    from sdxl_nb.lora.files.file import LoraFile as LoraFile
    from sdxl_nb.preflight.estimate_table import estimate as estimate
    from sdxl_nb.preflight.this_machine import inspect_machine as inspect_machine
    from sdxl_nb.runs.launcher import launch as launch
    from sdxl_nb.runs.run import Run as Run
    from sdxl_nb.scoring.run_scores import score_run as score_run
    from sdxl_nb.sweeps.search import sweep as sweep
    from sdxl_nb.training.rate_finding import lr_find as lr_find
    from sdxl_nb.training.trainer import fine_tune as fine_tune
    from sdxl_nb.widgets.dataset.browser import DatasetBrowser as DatasetBrowser
    from sdxl_nb.widgets.form.form import ConfigForm as ConfigForm
    from sdxl_nb.widgets.grid.grid import ValidationGrid as ValidationGrid
    from sdxl_nb.widgets.monitor.monitor import RunMonitor as RunMonitor
    from sdxl_nb.widgets.overview.overview import Runs as Runs
    from sdxl_nb.widgets.page.project import Project as Project
    from sdxl_nb.widgets.playground.playground import LoraPlayground as LoraPlayground

__version__ = "0.1.0"

# No name may be the name of a module: importing the module would put it in the name's place.
_MODULES = {
    "LoraPlayground": "widgets.playground.playground",
    "ValidationGrid": "widgets.grid.grid",
    "DatasetBrowser": "widgets.dataset.browser",
    "ConfigForm": "widgets.form.form",
    "LoraFile": "lora.files.file",
    "Project": "widgets.page.project",
    "Run": "runs.run",
    "RunMonitor": "widgets.monitor.monitor",
    "Runs": "widgets.overview.overview",
    "TrainConfig": "config.train_config",
    "TuningJob": "aws.search.tuning_job",
    "audit_dataset": "audit.inspection",
    "doctor": "aws.diagnosis",
    "estimate": "preflight.estimate_table",
    "fine_tune": "training.trainer",
    "generate": "drawing.generation",
    "inspect_machine": "preflight.this_machine",
    "launch": "runs.launcher",
    "launch_sagemaker": "aws.job",
    "lr_find": "training.rate_finding",
    "open_dataset": "data.dataset",
    "registered_lora": "aws.pipelines.registry",
    "score_run": "scoring.run_scores",
    "start_pipeline": "aws.pipeline",
    "sweep": "sweeps.search",
    "tune_sagemaker": "aws.search.start",
}
# What `Run.open` needs of the floor above it, which it may not import: a job that runs elsewhere is a run too.
_OF_JOBS = {"JobRun": "aws.job_run", "open_run": "aws.job"}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """The public name, from the module that holds it; an AttributeError for any other."""
    module = _MODULES.get(name) or _OF_JOBS.get(name)
    if not module:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with uncollected():
        value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What Tab shows: the public names, loaded or not."""
    return sorted([*globals(), *__all__])
