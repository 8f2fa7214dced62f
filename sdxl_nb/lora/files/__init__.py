"""What does a LoRA look like in a file?

Keys, headers and readers: kohya's, diffusers' and PEFT's names in, `LoraWeights` out, and back.
"""

from ...system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "LoraFile": "file",  # a LoRA file, described and checked
        "read_lora": "reader",  # a file -> LoraWeights
        "save_lora": "writer",  # LoraWeights -> both files, checked
        "build_metadata": "metadata",  # the header
        "KeyTable": "readers",  # which reader knows which key
    },
)
