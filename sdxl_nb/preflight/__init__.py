"""What will it take, and can this machine? Memory, time, price and disk of a TrainConfig, before anything is loaded."""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "inspect_machine": "this_machine",  # what this machine lacks for it
        "estimate": "estimate_table",  # all of it, as a table
    },
)
