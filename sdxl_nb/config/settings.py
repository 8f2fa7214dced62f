"""The parameters of a run: name, kind, default, bounds and one sentence each; flags, form and files derive from them.

In: the kinds of value in fields.py. Out: `Settings`, which config.TrainConfig builds, validates and writes. Names,
meanings and defaults are those of diffusers' train_text_to_image_lora_sdxl.py where it has them.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from .checks import file_name, folder, folder_inside
from .fields import (
    MANY,
    Alphas,
    Colour,
    FolderWeights,
    Interpolation,
    Mapped,
    Modules,
    Number,
    Optimizer,
    Precision,
    Prompts,
    Ranks,
    Schedule,
    Text,
    Tracker,
    Whole,
    data,
    log,
    lora,
    memory,
    optimization,
    training,
    validation,
)
from .precedence import DEFAULT_BASE, DEFAULT_DATASET, DEFAULT_VAE


class Settings(BaseModel):
    """Every parameter of a LoRA fine-tuning run on SDXL; see each field's sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrained_model_name_or_path: Text = data(
        DEFAULT_BASE, "Base model: a hub id, a diffusers folder, a .safetensors checkpoint, or embedded:tiny-sdxl."
    )
    pretrained_vae_model_name_or_path: Text | None = data(
        DEFAULT_VAE,
        "Another VAE by hub id or path; null uses the base's own, which any base but the default one does.",
    )
    revision: Text | None = data(None, "Branch, tag or commit of the base model on the hub.")
    variant: Text | None = data(None, "Variant of the base model's files, for example fp16.")
    dataset_name: Text | None = data(
        DEFAULT_DATASET,
        "Training pictures: a hub data set, a local copy of one, embedded:blueprint or embedded:emblem.",
    )
    dataset_config_name: Text | None = data(None, "Configuration of the hub data set, if it has several.")
    train_data_dir: Text | None = data(
        None,
        "Training pictures: a local folder or s3:// prefix with captions, or a data file (YAML, TOML, JSON) that lists "
        "folders; replaces dataset_name.",
    )
    image_column: Text | None = data(None, "Column of the pictures; null asks dataset_name_mapping, then means image.")
    caption_column: Text | None = data(None, "Column of the captions; null asks dataset_name_mapping, then means text.")
    dataset_name_mapping: Mapped = data(
        None, "JSON text or a JSON file that maps a data set to its columns: {NAME: [IMAGE, CAPTION]}."
    )
    caption_choice: Literal["random", "first"] = data(
        "random",
        "Which caption of a picture that has several is trained on: random draws one anew each time, first takes the "
        "first.",
        later=True,
    )
    caption_source: Literal["files", "picture", "json"] = data(
        "files",
        "Where captions are: files is texts beside the pictures, metadata files and columns; picture is what the "
        "pictures carry themselves (XMP, IPTC, EXIF, PNG text), json is a .json beside each.",
        later=True,
    )
    caption_lines: Literal["auto", "tags", "captions", "join", "first"] = data(
        "auto",
        "What the lines of a caption file are: tags to be joined by caption_separator, captions of their own, one text "
        "to be joined by blanks, or only the first is used; auto decides by what they hold, and says so.",
        later=True,
    )
    mask_column: Text | None = data(
        None,
        "Column of the masks that masked_loss uses; null is mask where there is one, in metadata files mask_file_name.",
        later=True,
    )
    max_train_samples: Whole | None = data(None, "Use only the first so many pictures.", ge=1, le=MANY)
    cache_dir: Text | None = data(
        None, "Where downloaded models and data sets are kept; null is the hub's own cache.", weights=False
    )
    resolution: Whole = data(1024, "Side in pixels of the training pictures, a multiple of 8.", ge=32, le=4096)
    center_crop: bool = data(
        False,
        "Crop the centre of each picture instead of a random place; with cache_latents each keeps its middle crop "
        "in every epoch anyway.",
    )
    random_flip: bool = data(
        False, "Mirror pictures at random, left to right; with cache_latents each keeps its middle crop in every epoch."
    )
    image_interpolation_mode: Interpolation = data("lanczos", "How pictures are resized.")
    alpha_background: Colour = data(
        "white",
        "What transparent pictures are laid on: white, black, #rrggbb, or random, a colour of each picture's own that "
        "seed and the picture choose.",
        later=True,
    )
    aspect_ratio_buckets: bool | None = data(
        None,
        "Train pictures near their own ratio of sides, in batches of one shape, instead of as squares; null is yes, "
        "but no with center_crop, which asks for the diffusers script's square.",
    )
    bucket_reso_steps: Whole = data(
        64, "Sides of aspect-ratio buckets are multiples of this, itself a multiple of 8.", ge=8, le=512, multiple_of=8
    )
    bucket_no_upscale: bool = data(
        False, "With aspect-ratio buckets, train pictures that are too small at their own size, not enlarged."
    )
    folder_repeats: bool = data(
        True,
        "Where every picture lies in a subfolder named as kohya's (10_name), see those of each folder that often an "
        "epoch.",
    )
    folder_weights: FolderWeights = data(
        None, 'Loss weights of the pictures in some subfolders: JSON of folder names, {"1_style": 0.5}; null is none.'
    )
    proportion_empty_prompts: Number = data(
        0.0, "Share of captions replaced by an empty one, so that guidance keeps working.", ge=0, le=1
    )
    trigger_word: Text | None = data(
        None, "Word that calls the concept: put before every caption that lacks it, noted in the card."
    )
    shuffle_caption: bool = data(
        False, "Shuffle the tags of captions anew at every step; prompt embeddings are live then."
    )
    keep_tokens: Whole = data(
        0, "The first so many tags stay in front when tags are shuffled or dropped.", ge=0, le=1000
    )
    caption_tag_dropout_rate: Number = data(
        0.0, "Share of tags left out of captions, anew at every step; prompt embeddings are live then.", ge=0, le=1
    )
    caption_separator: Text = data(",", "What separates the tags of a caption.")
    keep_tokens_separator: Text | None = data(
        None,
        "Text in captions that ends the tags which stay in front, and where it comes again begins those which stay "
        "behind; it is taken out of them.",
        later=True,
    )
    caption_prefix: Text | None = data(
        None, "Text in front of every caption, with a blank between; it is never shuffled or dropped.", later=True
    )
    caption_suffix: Text | None = data(
        None, "Text after every caption, with a blank between; it is never shuffled or dropped.", later=True
    )
    clean_tags: bool = data(
        False,
        "Make words of booru tags: blanks for underscores, no backslash before brackets; emoticons and score_9 stay.",
        later=True,
    )

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
    timestep_distribution: Literal["uniform", "logit_normal"] = training(
        "uniform",
        "How timesteps of a base that predicts the flow are drawn: logit_normal takes more of the middle ones (arXiv "
        "2403.03206).",
        later=True,
    )
    snr_gamma: Number | None = training(None, "Min-SNR loss weight (arXiv 2303.09556); 5.0 is recommended.", gt=0)
    noise_offset: Number = training(0.0, "Scale of noise offset, for darker darks and brighter brights.", ge=0, le=1)
    rescale_betas_zero_snr: bool = training(
        False, "Rescale the noise schedule to zero terminal SNR (arXiv 2305.08891)."
    )
    debiased_estimation_loss: bool = training(
        False, "Debiased estimation loss weight, more for noisy timesteps (arXiv 2310.08442)."
    )
    loss_type: Literal["l2", "huber", "smooth_l1"] = training(
        "l2", "Loss; huber and smooth_l1 make less of outliers in the data (arXiv 2403.16728)."
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
    prior_loss_weight: Number = training(1.0, "Weight of the class pictures' loss.", ge=0, le=1000)

    rank: Whole = lora(4, "Rank of the LoRA matrices.", ge=1, le=1024)
    lora_alpha: Number | None = lora(None, "LoRA strength is lora_alpha / rank; null means rank.", gt=0)
    lora_dropout: Number = lora(0.0, "Dropout on the input of the LoRA layers.", ge=0, lt=1)
    target_modules: Modules = lora(
        "attention",
        "Layers that get LoRA: attention, attention+ff, all (with convolutions), or peft module names or one pattern.",
    )
    rank_pattern: Ranks = lora(
        None, 'Other ranks for some layers: JSON of peft module names or patterns, {"attn2.to_k": 8}; null is none.'
    )
    alpha_pattern: Alphas = lora(
        None, "Other lora_alpha for some layers, in the same form; a layer with a rank of its own keeps lora_alpha."
    )
    use_dora: bool = lora(False, "DoRA: learn each layer's magnitude and direction apart (arXiv 2402.09353).")
    use_rslora: bool = lora(False, "rsLoRA: scale by the square root of the rank (arXiv 2312.03732).")

    optimizer: Optimizer = optimization(
        "adamw", "Optimizer; prodigy finds its own step size and wants learning_rate 1, adafactor saves memory."
    )
    use_8bit_adam: bool = optimization(False, "8-bit AdamW from bitsandbytes; the same as optimizer adamw8bit.")
    learning_rate: Number = optimization(1e-4, "Learning rate after warm-up.", gt=0, le=10)
    scale_lr: bool = optimization(False, "Multiply the learning rate by processes, accumulation and batch size.")
    lr_scheduler: Schedule = optimization("constant", "Course of the learning rate, counted in optimizer steps.")
    lr_warmup_steps: Whole = optimization(
        500, "Optimizer steps of warm-up, for every lr_scheduler but constant.", ge=0, le=MANY
    )
    adam_beta1: Number = optimization(0.9, "Decay of AdamW's first moment.", ge=0, lt=1)
    adam_beta2: Number = optimization(0.999, "Decay of AdamW's second moment.", ge=0, lt=1)
    adam_weight_decay: Number = optimization(1e-2, "AdamW's weight decay.", ge=0)
    adam_epsilon: Number = optimization(1e-8, "AdamW's epsilon.", gt=0)
    prodigy_beta3: Number | None = optimization(
        None, "Decay of Prodigy's estimate of the step size; null is the root of adam_beta2.", ge=0, lt=1
    )
    prodigy_decouple: bool = optimization(True, "Prodigy decays weights as AdamW does.")
    prodigy_use_bias_correction: bool = optimization(True, "Prodigy corrects Adam's bias towards zero.")
    prodigy_safeguard_warmup: bool = optimization(
        True, "Prodigy's estimate of the step size leaves the warm-up of the learning rate out."
    )
    max_grad_norm: Number = optimization(1.0, "Largest norm of the gradients; larger ones are scaled down.", gt=0)

    mixed_precision: Precision | None = memory(
        None, "Compute in fp16 or bf16 (LoRA weights stay fp32); null is what accelerate is configured for."
    )
    base_precision: Literal["bf16", "fp16", "fp32", "int8", "fp8"] | None = memory(
        None,
        "How the frozen U-Net and text encoders are kept: int8 and fp8 take half the memory of bf16, with a scale for "
        "each output channel; null is as they compute, in mixed_precision.",
        later=True,
    )
    gradient_checkpointing: bool = memory(False, "Save memory by computing activations again in the backward pass.")
    gradient_checkpointing_policy: Literal["whole", "selective"] = memory(
        "whole",
        "What gradient_checkpointing computes again: whole, each residual and transformer block; selective, only "
        "cross-attention and feed-forward layers, half the memory saved for half the extra time.",
        weights=False,
    )
    torch_compile: bool = memory(
        False, "Compile each transformer block with torch.compile: minutes at the start, faster steps on a GPU."
    )
    cache_latents: bool = memory(
        True,
        "Compute the VAE's latents once, before training: each picture keeps its middle crop in every epoch, also "
        "without center_crop; --no_cache_latents draws a new crop each time.",
    )
    cache_text_embeddings: bool = memory(
        True, "Compute the prompt embeddings once; with train_text_encoder they are live."
    )
    latents_cache_dir: Text | None = memory(
        None,
        "Folder of cached latents and prompt embeddings, shared by all runs and safe to delete; null is SDXL_NB_CACHE, "
        "or sdxl_nb in the user's cache folder.",
        weights=False,
    )
    allow_tf32: bool = memory(False, "Allow TF32 on Ampere and later GPUs, faster at slightly less precision.")
    enable_xformers_memory_efficient_attention: bool = memory(
        False, "Attention by xformers; PyTorch's SDPA is used by default."
    )
    enable_npu_flash_attention: bool = memory(False, "Flash attention on Ascend NPUs.")
    dataloader_num_workers: Whole = memory(
        0,
        "Accepted for compatibility with the diffusers script, without effect: no processes load pictures.",
        ge=0,
        le=256,
        weights=False,
    )

    validation_prompt: Prompts = validation(
        None, "One or several prompts to draw while training, from fixed seeds.", weights=False
    )
    num_validation_images: Whole = validation(4, "Pictures for each validation prompt.", ge=1, le=64, weights=False)
    validation_epochs: Whole = validation(
        1, "Draw validation pictures every so many epochs.", ge=1, le=MANY, weights=False
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

    report_to: Tracker = log("tensorboard", "Where the loss curves go.", weights=False)
    logging_dir: Annotated[Text, AfterValidator(folder_inside)] = log(
        "logs", "TensorBoard's folder inside output_dir.", weights=False
    )
    debug_loss: bool = log(False, "Log the loss of every picture by its file name.", weights=False)
    push_to_hub: bool = log(
        False, "Upload the LoRA to the hub at the end; the token comes from HF_TOKEN.", weights=False
    )
    hub_model_id: Text | None = log(None, "Repository on the hub; null is the run folder's name.", weights=False)
