"""What is asked for?

Flags, a file, a preset, a form or a LoRA's header in, one checked TrainConfig out, and back again.
"""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "TrainConfig": "train_config",  # every setting of a run, checked
        "train_parser": "flags",  # the command line of every setting
        "read_flags": "flags",  # argv -> TrainConfig
        "render_table": "flags",  # the settings as tables in Markdown
        "check_machine": "machine",  # what a configuration needs of the machine that trains it
        "safe_config": "header",  # a configuration fit for strangers
        "config_from_header": "header",  # what a LoRA file says it was trained with
        "find_lora": "header",  # the LoRA file that a file or folder name means
        "checkpoints": "layout",  # the complete checkpoints in a run folder
        "drawings": "layout",  # the validation pictures in a run folder
    },
)
