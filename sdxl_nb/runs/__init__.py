"""What is a run, seen from outside?

A folder in; status, events, curve, pictures and LoRA out, and how to start, stop and resume one.
"""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "Run": "run",  # a run by its folder, prefix or job
        "RunList": "overview",  # all runs of a folder
        "launch": "launcher",  # training in a process of its own
        "RunFolder": "folder",  # the folder, as its one writer sees it
        "EventLog": "events",  # what a run writes of itself
        "Stages": "stages",  # a run step by step
        "write_card": "card",  # the model card
        "push": "publishing",  # a finished run on the hub
        "loss_figure": "plots",  # the loss curve
        "find": "checkpoints",  # the checkpoint to go on from
    },
)
