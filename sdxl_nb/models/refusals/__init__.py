"""What is refused as a base, before anything is encoded? A Source in; nothing, or one sentence out."""

from ...system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "check_base": "kinds",  # whether it is an SDXL that can be trained here
        "check_weights": "weights",  # whether a part's weights are whole, and its own
    },
)
