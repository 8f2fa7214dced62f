"""What is a LoRA, on a model and in a file?

Weights in under any reader's names, on any SDXL; the same weights out again. `python -m sdxl_nb.lora` is command.py.
"""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "LoraFile": "files.file",  # a LoRA file, described and checked
        "LoraInfo": "files.file",  # what a file says of itself
        "read_lora": "files.reader",  # any LoRA file -> LoraWeights
        "save_lora": "files.writer",  # LoraWeights -> both files, checked
        "check_names": "files.writer",  # what writing would refuse, known beforehand
        "build_metadata": "files.metadata",  # the header of a run's files
        "KeyTable": "files.readers",  # which reader knows which key
        "Base": "base",  # the shapes of one SDXL
        "Layer": "layers",  # one module's LoRA
        "LoraWeights": "layers",  # all layers of a LoRA
        "add_lora": "adapter",  # trainable layers on a frozen base
        "attach": "layers",  # a LoRA on live models
        "detach": "layers",  # and off again
        "collect": "layers",  # a LoRA from live models
        "set_scale": "layers",  # which LoRAs act, how strongly
        "delta": "layers",  # the change of one weight
        "lora_names": "layers",  # the modules that carry LoRA
        "target_modules": "targets",  # which layers of the U-Net
        "text_target_modules": "targets",  # which layers of the text encoders
        "check_patterns": "targets",  # names in rank_pattern that no layer has
        "fuse": "fusing",  # a LoRA inside a base
        "extract": "changes.extraction",  # a LoRA from two bases
        "merge": "changes.arithmetic",  # LoRAs added, or by TIES and DARE
        "Method": "changes.pruning",  # how LoRAs are merged
        "resize": "changes.arithmetic",  # a lower rank, by number or energy
        "to_lora": "changes.conversion",  # LoHa, LoKr and DoRA as plain LoRA
        "difference": "changes.difference",  # what differs between two LoRAs, by block
        "trainable_parameters": "sizes",  # how many weights, without a model
    },
)
