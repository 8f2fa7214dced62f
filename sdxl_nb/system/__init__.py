"""What does the machine offer? Errors, bars, memory, threads, transfers, figures, reports; it knows no other wing."""

from .lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "SdxlNbError": "errors",  # an error whose message is one sentence for the user
        "ConfigError": "errors",  # a setting that cannot work
        "DataError": "errors",  # pictures or captions that cannot be used
        "ModelError": "errors",  # a base or LoRA file that cannot be used
        "Stopped": "errors",  # asked to stop before the first step
        "progress_bar": "progress",  # a bar in a terminal or a notebook
        "peak_memory": "memory",  # the most bytes held so far
        "give_back": "memory",  # free what only circles hold, on the device too
        "in_memory": "memory",  # a sentence where a device refuses memory
        "ahead": "threads",  # results in order, computed a little ahead
        "share_out": "threads",  # work whose results lie on disk, shared by processes
        "sent": "transfer",  # a tensor on its way to the device
        "picture_sheet": "figures",  # a figure of rows of pictures
        "misfit": "misfits",  # a sentence for a package that cannot be imported
        "Report": "report",  # checks, one line each, as text and as a table
        "key_of": "keys",  # the key of a row in a cache
    },
)
