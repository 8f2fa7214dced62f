"""What does a run keep, so that it can go on?

Weights, moments and progress in; checkpoints out, and back bit for bit.
"""

from ...system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "Progress": "checkpoint",  # what state.json says
        "check_resumable": "resuming",  # whether a run may go on from it
        "FlatParameters": "parameters",  # all trained weights as one vector
        "write_checkpoint": "saving",  # a checkpoint of the run as it is
    },
)
