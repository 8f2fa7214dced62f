"""What will it take? A TrainConfig in; memory, time, price and disk out, before anything is loaded."""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "estimate": "estimate_table",  # all of it, as a table
    },
)
