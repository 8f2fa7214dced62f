"""Settings of the group validation: pictures drawn and losses measured on the way."""

from pydantic import BaseModel

from ..fields import MANY, Number, Prompts, Samples, Text, Whole, validation


class ValidationSettings(BaseModel):
    """Pictures drawn and losses measured on the way; see each field's sentence."""

    validation_prompt: Prompts = validation(
        None, "One or several prompts to draw while training, from fixed seeds.", weights=False
    )
    sample_prompts: Samples = validation(
        None,
        "Prompts to draw beside validation_prompt, each with its own size, seed and steps: a file (.txt, TOML, YAML, "
        "JSON) or lines such as: a red cup --n blurry --w 832 --h 1216 --d 42 --l 6 --s 28 --ss euler_a.",
        weights=False,
    )
    num_validation_images: Whole = validation(4, "Pictures for each validation prompt.", ge=1, le=64, weights=False)
    validation_epochs: Whole | None = validation(
        1,
        "Draw validation pictures every so many epochs; null is with every checkpoint, so that what is seen is kept.",
        ge=1,
        le=MANY,
        weights=False,
    )
    validation_steps: Whole | None = validation(
        None,
        "Draw validation pictures every so many optimizer steps, whatever validation_epochs says.",
        ge=1,
        le=MANY,
        weights=False,
    )
    validation_share: Number | None = validation(
        None,
        "Draw validation pictures after every such share of the run (0.1: ten times), whatever validation_epochs says.",
        gt=0,
        le=1,
        weights=False,
    )
    validation_inference_steps: Whole = validation(
        25, "Denoising steps of a validation picture.", ge=1, le=1000, weights=False
    )
    validation_guidance_scale: Number = validation(
        5.0, "Guidance scale of a validation picture.", ge=0, le=100, weights=False
    )
    validation_seed: Whole | None = validation(
        None, "Seed of the first validation picture; null is seed.", ge=0, le=2**32 - 1, weights=False
    )
    validation_data_dir: Text | None = validation(
        None, "Folder of captioned pictures whose loss is measured and never trained on: the held-out loss."
    )
    validation_split: Number = validation(
        0.0, "Share of the training pictures to hold out in its stead, the same ones in every run.", ge=0, lt=1
    )
    heldout_steps: Whole | None = validation(
        None, "Measure the held-out loss every so many steps; null is when pictures are due.", ge=1, le=MANY
    )
    early_stopping_patience: Whole | None = validation(
        None, "End after so many held-out losses in a row without a new best one; null never does.", ge=1, le=MANY
    )
    early_stopping_threshold: Number = validation(
        0.0, "How much lower a held-out loss must be to count as a new best one for early stopping.", ge=0
    )
    load_best_model_at_end: bool = validation(
        False, "Make the LoRA files from the checkpoint with the lowest held-out loss, not from the last step."
    )
