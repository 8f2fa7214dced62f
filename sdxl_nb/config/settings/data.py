"""Settings of the group model & data: which base model, which pictures, which captions."""

from typing import Literal

from pydantic import BaseModel

from ..fields import MANY, Colour, FolderWeights, Interpolation, Mapped, Number, Text, Whole, data
from ..precedence import DEFAULT_BASE, DEFAULT_DATASET, DEFAULT_VAE


class DataSettings(BaseModel):
    """Which base model, which pictures, which captions; see each field's sentence."""

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
    max_token_length: Whole = data(
        75,
        "Tokens of a caption that are read: 75, or 150, 225 and so on, in chunks of 75 that are encoded one by one and "
        "put side by side, as ComfyUI and A1111 do it; where it is more, every caption takes so many chunks.",
        ge=75,
        le=750,
        multiple_of=75,
        later=True,
    )
    clip_skip: Whole = data(
        2,
        "At which layer of the text encoders captions are read, counted from the end as A1111 and ComfyUI do: 2 is "
        "SDXL's own, 1 the last one; diffusers counts from SDXL's own, 0.",
        ge=1,
        le=12,
        later=True,
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
