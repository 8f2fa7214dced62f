"""Training in a process of its own, which goes on when the kernel that launched it is gone.

In: a TrainConfig. Out: its Run. What the process prints goes to `process.txt` in the run folder, and `process.json`
says which process it is and what it was asked for.
"""

from collections.abc import Callable

from ..config.train_config import TrainConfig
from .run import Run
from .starting import begin


def launch(config: TrainConfig, num_processes: int = 1, *, say: Callable[[str], object] = print) -> Run:
    """Train as `config` says in a process of its own, or in several through torchrun; returns the Run at once.

    At once means when the run has begun, or after PATIENCE seconds: with many pictures to look at or a model to
    download the Run is `starting` until then, and `say` gets a line about it. Raises ConfigError before a process is
    started, or DataError for an empty folder of pictures, and SdxlNbError with the sentence that the process ended with
    meanwhile, or the first line of its exception; what fails later is the run's `error`. An interrupt ends the waiting
    and not the run.
    """
    begin(config, num_processes, say=say)
    return Run(config.output_dir)
