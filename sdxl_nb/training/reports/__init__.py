"""What does a run say while it trains? Events and lines for whoever watches, and trackers."""

from ...system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "announce": "reporting",  # the first lines of a run
        "Trackers": "trackers",  # TensorBoard and Weights & Biases
    },
)
