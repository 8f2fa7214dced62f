"""How are weights learned? A TrainConfig in; a run folder with a LoRA out."""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "fine_tune": "trainer",  # train here, until it is over
        "count_pictures": "epochs",  # how many pictures an epoch sees
        "steps_per_epoch": "epochs",  # how many steps it takes
        "validation_pictures": "epochs",  # how many pictures a run draws
    },
)
