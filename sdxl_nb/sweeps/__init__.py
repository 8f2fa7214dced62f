"""Which settings are best?

A configuration and a search space in; runs one after the other, a table of them and the best one out.
"""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "sweep": "search",  # the runs of a search space, one after the other
        "Sweep": "table",  # what came of them
        "Space": "space",  # what is searched
        "Range": "space",  # numbers from ... to ..., linear or logarithmic
    },
)
