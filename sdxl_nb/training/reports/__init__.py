"""What does a run say while it trains? Events and lines, trackers, and the hub's copy of what came out."""

from ...system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "announce": "reporting",  # the first lines of a run
        "Trackers": "trackers",  # TensorBoard and Weights & Biases
        "push": "publishing",  # a finished run on the hub
    },
)
