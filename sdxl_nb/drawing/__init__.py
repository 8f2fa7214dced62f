"""How are pictures made? Prompts, a base and LoRAs in; a grid of pictures out."""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "generate": "generation",  # prompts × scales × seeds
        "compare": "generation",  # two grids side by side
        "PictureGrid": "generation",  # pictures by prompt, label and seed
        "load_base": "generation",  # a pipeline that is ready to draw
    },
)
