"""python -m sdxl_nb.train: fine-tune a LoRA from the command line.

    python -m sdxl_nb.train --preset tiny
    python -m sdxl_nb.train --config run.yaml --train_data_dir pictures --max_train_steps 500

In: the flags of diffusers' train_text_to_image_lora_sdxl.py, ours, --preset and --config (--help lists them).
Out: the run folder, and the exit code: 0, 2 for a setting that cannot work, 1 for another error with a known
reason, 130 when interrupted before there was a step to finish.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .config.flags import read_flags, train_parser
from .config.machine import check_machine
from .config.train_config import TrainConfig
from .system.errors import ConfigError, SdxlNbError
from .system.importing import uncollected
from .system.misfits import leave_out_xformers, misfit

if TYPE_CHECKING:
    from .runs.run import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Train as argv says; errors a user can mend are one sentence on stderr and never a traceback."""
    try:
        parser = train_parser("python -m sdxl_nb.train", "Fine-tune a LoRA on SDXL.")
        parser.add_argument(
            "--lr_find",
            nargs="?",
            const="",
            metavar="FOLDER",
            help="propose a learning rate from some hundred steps at rising ones, and train nothing; with a folder, "
            "keep the curve there",
        )
        config, given = read_flags(parser, argv)
        check_machine(config)  # before the seconds that the imports take
        if given.lr_find is None:
            train(config)
        else:
            _find_rate(config, given.lr_find)
    except SdxlNbError as error:
        kind = getattr(error, "kind", None)  # what failed another process of this run, which says it itself
        if kind is None:
            print(f"error: {error}", file=sys.stderr)
        return 2 if issubclass(kind or type(error), ConfigError) else 1
    except ImportError as error:  # of what peft, transformers or accelerate use wherever it is installed
        print(f"error: {misfit(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: the run can go on from its last checkpoint, if it has one.", file=sys.stderr)
        return 130
    return 0


def train(config: TrainConfig, *callback: Callable[[dict[str, Any]], None]) -> "Run":
    """`fine_tune` in a process that does nothing else, and so imports nothing that this run will not use."""
    return _load_fine_tune(config)(config, *callback)


def _find_rate(config: TrainConfig, folder: str) -> None:
    """Print the rate that the search proposes, and why."""
    from .training.rate_finding import lr_find

    print(lr_find(config, folder=folder or None))


def _load_fine_tune(config: TrainConfig) -> "Callable[..., Run]":
    """What trains, and what this run imports later: no run begins that would fail there. Nothing is ever collected."""
    try:
        with uncollected():
            from .training.trainer import fine_tune

            if config.drawings() or config.with_prior_preservation or config.vae_tiling:
                leave_out_xformers()
                from diffusers import AutoencoderKL  # noqa: F401
            if config.use_dora or config.lora_kind != "lora" or config.train_text_encoder or config.lora_weights:
                import peft  # noqa: F401
    except Exception as error:  # some say it in their own way
        raise SdxlNbError(misfit(error)) from error
    gc.collect()
    gc.freeze()
    return fine_tune


if __name__ == "__main__":
    sys.exit(main())
