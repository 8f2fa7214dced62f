"""What was a base trained to predict? What its files say of it in; one objective out."""

from ...system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "BaseObjective": "base_objective",  # prediction, schedule, latents, and who says so
        "LatentScaling": "latent_scaling",  # how latents are shifted and scaled
        "Statement": "markers",  # what a single file says of itself
    },
)
