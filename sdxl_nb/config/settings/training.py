"""Settings of the group training: how long, on what objective, where results go."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel

from ..checks import file_name, folder
from ..fields import MANY, Number, Prompts, Text, TwoNumbers, Whole, training


class TrainingSettings(BaseModel):
    """How long, on what objective, where results go; see each field's sentence."""

    output_dir: Annotated[Text, AfterValidator(folder)] = training(
        "sd-model-finetuned-lora", "Run folder: checkpoints, pictures, logs and the LoRA go there.", weights=False
    )
    output_name: Annotated[Text, AfterValidator(file_name)] | None = training(
        None,
        "Name of the LoRA file for ComfyUI and A1111, without .safetensors; null is the run folder's name.",
        weights=False,
    )
    seed: Whole | None = training(None, "Seed of everything random; null draws one and stores it.", ge=0, le=2**32 - 1)
    train_batch_size: Whole = training(
        16, "Pictures that one process adds to an optimizer step before accumulation.", ge=1, le=4096
    )
    num_train_epochs: Whole = training(100, "How often training goes through all pictures.", ge=1, le=MANY)
    max_train_steps: Whole | None = training(
        None, "Number of optimizer steps; replaces num_train_epochs.", ge=1, le=MANY
    )
    gradient_accumulation_steps: Whole = training(1, "Batches added up before each optimizer step.", ge=1, le=4096)
    checkpointing_steps: Whole = training(
        500, "Save a checkpoint every so many optimizer steps.", ge=1, le=MANY, weights=False
    )
    checkpoints_total_limit: Whole | None = training(
        None, "Keep only so many of the newest checkpoints.", ge=1, le=MANY, weights=False
    )
    resume_from_checkpoint: Text | None = training(None, "Go on from a checkpoint: its path, or latest.", weights=False)
    overwrite_output_dir: bool = training(False, "Replace the run that output_dir already holds.", weights=False)
    train_text_encoder: bool = training(False, "Train LoRA layers on both text encoders too.")
    prediction_type: Literal["epsilon", "v_prediction", "flow"] | None = training(
        None, "What the model predicts; null is what the base says of itself: marker tensors, header or scheduler."
    )
    flow_shift: Number | None = training(
        None,
        "Shift of the timesteps of a base that predicts the flow; null is what its scheduler says, else 1.",
        gt=0,
        le=100,
        later=True,
    )
    timestep_distribution: Literal["uniform", "logit_normal", "beta", "sigmoid", "stratified"] = training(
        "uniform",
        "How timesteps are drawn: logit_normal (arXiv 2403.03206) and beta take more of the middle ones, sigmoid of "
        "the noisy ones, stratified spreads those of a step evenly.",
        later=True,
    )
    timestep_shape: TwoNumbers = training(
        None,
        "Two numbers of timestep_distribution: mean and deviation of logit_normal (null: 0 1), both of beta (2 2), "
        "slope and middle of sigmoid (10 0.5).",
        later=True,
    )
    min_timestep: Whole = training(0, "First timestep that is trained; 0 is the clearest.", ge=0, le=9999, later=True)
    max_timestep: Whole | None = training(
        None, "First timestep that is no longer trained; null trains up to the last.", ge=1, le=10_000, later=True
    )
    snr_gamma: Number | None = training(None, "Min-SNR loss weight (arXiv 2303.09556); 5.0 is recommended.", gt=0)
    noise_offset: Number = training(0.0, "Scale of noise offset, for darker darks and brighter brights.", ge=0, le=1)
    adaptive_noise_scale: Number = training(
        0.0,
        "Noise offset grows by this times the mean of a picture's latents in each channel; it may be negative.",
        ge=-10,
        le=10,
        later=True,
    )
    multires_noise_iterations: Whole = training(
        0, "Levels of multi-resolution (pyramid) noise, 6 to 10 for example; 0 is plain noise.", ge=0, le=64, later=True
    )
    multires_noise_discount: Number = training(
        0.3, "What a level of multi-resolution noise weighs of the level before.", ge=0, le=1, later=True
    )
    input_perturbation: Number = training(
        0.0, "Scale of more noise on the input alone (arXiv 2301.11706); 0.1 is recommended.", ge=0, le=1, later=True
    )
    rescale_betas_zero_snr: bool = training(
        False, "Rescale the noise schedule to zero terminal SNR (arXiv 2305.08891)."
    )
    debiased_estimation_loss: bool = training(
        False, "Debiased estimation loss weight, more for noisy timesteps (arXiv 2310.08442)."
    )
    p2_gamma: Number | None = training(
        None, "P2 loss weight, less for clear timesteps (arXiv 2204.00227); 1 is usual.", gt=0, le=10, later=True
    )
    soft_snr_gamma: Number | None = training(
        None, "Soft-min-SNR loss weight, min-SNR without its kink (arXiv 2401.11605); 4 is usual.", gt=0, later=True
    )
    loss_type: Literal["l2", "huber", "smooth_l1", "l1", "log_cosh"] = training(
        "l2", "Loss; huber, smooth_l1 (arXiv 2403.16728), l1 and log_cosh make less of outliers in the data."
    )
    huber_c: Number = training(0.1, "Error at which a Huber loss turns from square to linear.", gt=0, le=1)
    huber_schedule: Literal["constant", "exponential", "snr"] = training(
        "snr", "How huber_c changes over timesteps: exponential and snr reach it at the noisiest."
    )
    masked_loss: bool = training(
        False,
        "Train each picture where its mask is white: X-masklabel.png beside X, the file of that name in masks/, the "
        "mask column, else its own transparency; pictures without any are trained wholly.",
        later=True,
    )
    unmasked_weight: Number = training(
        0.0, "What the loss counts, at least, where a mask is black or grey.", ge=0, le=1, later=True
    )
    unmasked_probability: Number = training(
        0.0, "Chance that a picture is trained wholly all the same, drawn anew each time.", ge=0, le=1, later=True
    )
    use_ema: bool = training(
        False, "Average the LoRA over the steps; validation, held-out loss and the LoRA files use the average."
    )
    ema_decay: Number = training(
        0.9999, "Share that the average keeps of itself at a step, less during the first ones.", ge=0, lt=1
    )
    with_prior_preservation: bool = training(
        False,
        "Train on pictures of the class too, one for each picture, so that the rest of it stays as it was "
        "(DreamBooth, arXiv 2208.12242); needs class_data_dir and class_prompt.",
    )
    class_data_dir: Text | None = training(
        None, "Folder of the class pictures; those that are missing are drawn by the base model and kept there."
    )
    class_prompt: Text | None = training(
        None, "Caption of the class pictures, and what is drawn, such as a photo of a dog."
    )
    num_class_images: Whole = training(
        100, "Class pictures wanted; more in class_data_dir are used too.", ge=1, le=100_000
    )
    prior_loss_weight: Number = training(1.0, "Weight of the class pictures' loss, or of the prior's.", ge=0, le=1000)
    prior_without_pictures: bool = training(
        False,
        "Keep what the base makes of prior_prompts, without class pictures: at each step what it predicts of the same "
        "noisy pictures, with the LoRA off, is to be predicted with it on.",
        later=True,
    )
    slider_positive: Text | None = training(
        None,
        "Train a concept slider (arXiv 2311.12092), which adds what this prompt says when its strength is raised; "
        "the pictures are only noised, their captions not read.",
        later=True,
    )
    slider_negative: Text | None = training(
        None, "What a slider takes away, the opposite of slider_positive; null is the empty prompt.", later=True
    )
    slider_target: Text | None = training(
        None, "Prompt of what a slider changes; null is the empty prompt, everything.", later=True
    )
    slider_guidance: Number = training(
        1.0, "How far a slider of strength 1 goes, in differences of its two prompts.", gt=0, le=100, later=True
    )
    slider_negative_dir: Text | None = training(
        None,
        "Train a concept slider from pairs of pictures: the folder of the opposite of each training picture, under the "
        "same name; the LoRA draws the training pictures at slider_strength, these at minus it.",
        later=True,
    )
    slider_strength: Number = training(
        1.0, "Strength at which a slider from pairs draws its pictures.", gt=0, le=10, later=True
    )
    prior_prompts: Prompts = training(
        None,
        "Plain prompts of prior_without_pictures, each time one of them; null is class_prompt, else the empty prompt.",
        later=True,
    )
