"""What is the frozen base? A name in; its parts, shapes and identity out."""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "Source": "sources",  # where a base comes from
        "load": "loading",  # one part of the base
        "load_unet": "loading",  # the U-Net for training
        "load_vae": "loading",  # the VAE named, or the base's own
        "load_pipeline": "loading",  # the whole base, to make pictures
        "scheduler_config": "loading",  # its noise schedule
        "BaseObjective": "objective.base_objective",  # what it was trained to predict, and who says so
        "Architecture": "architectures",  # the shapes of its parts, without weights
        "SdxlUNet": "unet",  # our U-Net
    },
)
