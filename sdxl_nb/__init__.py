"""Fine-tune Stable Diffusion XL with LoRA, from notebooks or from one command.

The public names are here and load on first use, so that `import sdxl_nb` costs nothing: no torch, no diffusers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what an editor reads; at run time `__getattr__` does the same
    from sdxl_nb.audit import audit_dataset as audit_dataset
    from sdxl_nb.aws.doctor import doctor as doctor
    from sdxl_nb.aws.job import launch_sagemaker as launch_sagemaker
    from sdxl_nb.aws.pipeline import start_pipeline as start_pipeline
    from sdxl_nb.config import TrainConfig as TrainConfig
    from sdxl_nb.data import open_dataset as open_dataset
    from sdxl_nb.generation import generate as generate
    from sdxl_nb.launcher import launch as launch
    from sdxl_nb.lora import LoraFile as LoraFile
    from sdxl_nb.preflight import estimate as estimate
    from sdxl_nb.run import Run as Run
    from sdxl_nb.trainer import fine_tune as fine_tune
    from sdxl_nb.widgets.dataset import DatasetBrowser as DatasetBrowser
    from sdxl_nb.widgets.form import ConfigForm as ConfigForm
    from sdxl_nb.widgets.grid import ValidationGrid as ValidationGrid
    from sdxl_nb.widgets.monitor import RunMonitor as RunMonitor
    from sdxl_nb.widgets.playground import LoraPlayground as LoraPlayground

__version__ = "0.1.0"

# No name may be the name of a module: importing the module would put it in the name's place.
_MODULES = {
    "LoraPlayground": "widgets.playground",
    "ValidationGrid": "widgets.grid",
    "DatasetBrowser": "widgets.dataset",
    "ConfigForm": "widgets.form",
    "LoraFile": "lora",
    "Run": "run",
    "RunMonitor": "widgets.monitor",
    "TrainConfig": "config",
    "audit_dataset": "audit",
    "doctor": "aws.doctor",
    "estimate": "preflight",
    "fine_tune": "trainer",
    "generate": "generation",
    "launch": "launcher",
    "launch_sagemaker": "aws.job",
    "open_dataset": "data",
    "start_pipeline": "aws.pipeline",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """The public name, from the module that holds it; an AttributeError for any other."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What Tab shows: the public names, loaded or not."""
    return sorted([*globals(), *__all__])
