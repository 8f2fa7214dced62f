"""Command lines of diffusers' SDXL scripts, as they stand in shell files and READMEs, and of kohya's.

As huggingface/diffusers has them (examples/text_to_image, dreambooth, advanced_diffusion_training). In: the text of a
shell file. Out: a Draft. Conventions of those scripts that are not ours: pictures are squares, cropped anew each time;
the VAE is the base's own; DreamBooth's captions are instance_prompt, and an epoch sees every picture `repeats` times.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...system.errors import ConfigError
from ..settings import Settings
from . import kohya, optimizers
from .command_line import Command
from .keys import Draft, Key, dropped, same, together

NAME = "diffusers' script"
TEXT, DREAMBOOTH, ADVANCED = (
    "train_text_to_image_lora_sdxl.py",
    "train_dreambooth_lora_sdxl.py",
    "train_dreambooth_lora_sdxl_advanced.py",
)
KOHYA_SCRIPT = "sdxl_train_network.py"
OTHERS = {  # scripts that train something else
    "train_text_to_image_sdxl.py": "all weights of SDXL",
    "sdxl_train.py": "all weights of SDXL",
    "train_text_to_image_lora.py": "Stable Diffusion 1.5",
    "train_dreambooth_lora.py": "Stable Diffusion 1.5",
    "train_network.py": "Stable Diffusion 1.5",
    "train_dreambooth_lora_flux.py": "FLUX",
    "flux_train_network.py": "FLUX",
    "train_controlnet_sdxl.py": "a ControlNet",
}
PLACED = "where another program publishes is not taken over: give --push_to_hub and --hub_model_id"
PIVOTAL = "no embeddings are trained"
BLOCKS = r"{}\..*\.(to_q|to_k|to_v|to_out\.0)"
PLAIN = (  # flags of our own names and defaults
    *("pretrained_model_name_or_path", "pretrained_vae_model_name_or_path", "revision", "variant", "dataset_name"),
    *("dataset_config_name", "train_data_dir", "image_column", "caption_column", "max_train_samples", "cache_dir"),
    *("validation_prompt", "num_validation_images", "validation_epochs", "seed", "resolution", "center_crop"),
    *("random_flip", "train_text_encoder", "train_batch_size", "num_train_epochs", "max_train_steps"),
    *("checkpointing_steps", "checkpoints_total_limit", "gradient_accumulation_steps", "gradient_checkpointing"),
    *("learning_rate", "scale_lr", "lr_scheduler", "lr_warmup_steps", "snr_gamma", "allow_tf32", "use_8bit_adam"),
    *("adam_beta1", "adam_beta2", "adam_weight_decay", "adam_epsilon", "max_grad_norm", "prediction_type"),
    *("report_to", "logging_dir", "mixed_precision", "enable_xformers_memory_efficient_attention", "noise_offset"),
    *("enable_npu_flash_attention", "rank", "lora_dropout", "debug_loss", "image_interpolation_mode", "output_dir"),
    *("dataloader_num_workers", "lr_num_cycles", "lr_power", "prodigy_beta3", "prodigy_decouple", "use_dora"),
    *("prodigy_use_bias_correction", "prodigy_safeguard_warmup", "adam_weight_decay_text_encoder"),
    *("with_prior_preservation", "class_data_dir", "class_prompt", "num_class_images", "prior_loss_weight"),
    *("lora_alpha", "train_text_encoder_frac"),
)
DIFFUSERS: dict[str, Key] = {
    **{name: same(name) for name in PLAIN if name in Settings.model_fields},
    "cache_latents": same("cache_latents", False),
    "instance_data_dir": same("train_data_dir"),
    "instance_prompt": together("trigger_word", None, "captions that lack it begin with it"),
    "repeats": together("num_train_epochs", 1, "an epoch sees every picture so often"),
    "optimizer": together("optimizer", "AdamW"),
    "text_encoder_lr": together("text_encoder_lr", None, "with train_text_encoder"),
    "lora_unet_blocks": together("target_modules", None, "the attention of these blocks"),
    "use_blora": together("target_modules", False, "the attention of B-LoRA's two blocks"),
    "resume_from_checkpoint": dropped("states of other programs are not resumed: give the LoRA with --lora_weights"),
    "push_to_hub": dropped(PLACED),
    "hub_model_id": dropped(PLACED),
    "hub_token": dropped("a token is taken from the environment alone: set HF_TOKEN"),
    "local_rank": dropped("the launcher says it", -1),
    "clip_skip": together("clip_skip", None, "counted from the end, 2 is its 0; with train_text_encoder"),
    "sample_batch_size": dropped("class pictures are drawn one by one", 4),
    "prior_generation_precision": dropped("class pictures are drawn in --mixed_precision"),
    "do_edm_style_training": dropped("a base that was trained so says it itself"),
    "output_kohya_format": dropped("a file for ComfyUI is written anyway", False, True),
    "token_abstraction": dropped(PIVOTAL, "TOK"),
    "num_new_tokens_per_abstraction": dropped(PIVOTAL, 2),
    "train_text_encoder_ti": dropped(PIVOTAL),
    "train_text_encoder_ti_frac": dropped(PIVOTAL, 0.5),
}
DREAMBOOTH_USUAL: dict[str, Any] = {  # where its defaults are not those of the text-to-image script
    "output_dir": "lora-dreambooth-model",
    "train_batch_size": 4,
    "num_train_epochs": 1,
    "validation_epochs": 50,
    "adam_weight_decay": 1e-4,
}


def read(said: Mapping[str, Any], path: Path, given: Collection[str] = ()) -> Draft:
    """The Draft of the first command line of a shell file that trains a LoRA. Raises ConfigError."""
    command = chosen(said["commands"], path.name)
    of_kohya = command.script == KOHYA_SCRIPT
    draft = kohya.read(command.flags, path, given) if of_kohya else _draft(command, path, given)
    if launched := [name for name in command.launch if name != "mixed_precision"]:
        draft.say(f"{', '.join(launched)} in {path.name} is for the launcher: give it when this package is launched.")
    if len(said["commands"]) > 1:
        draft.say(f"{path.name} has {len(said['commands'])} command lines: the one of {command.script} is taken.")
    return draft


def chosen(found: Collection[Command], file: str) -> Command:
    """The first command of a script that is known. Raises ConfigError."""
    known = (TEXT, DREAMBOOTH, ADVANCED, KOHYA_SCRIPT)
    for command in found:
        if command.script in known:
            return command
    for command in found:
        if command.script in OTHERS:
            what = OTHERS[command.script]
            raise ConfigError(f"{command.script} in {file} trains {what}: this package trains a LoRA on SDXL alone")
    raise ConfigError(f"{file} has no command line that is known: there are those of {', '.join(known)}")


def _draft(command: Command, path: Path, given: Collection[str]) -> Draft:
    usual = DREAMBOOTH_USUAL if command.script in (DREAMBOOTH, ADVANCED) else {}
    keys = {
        name: Key(key.ours, usual.get(name, key.usual), key.why, key.how, key.together, key.nothing)
        for name, key in DIFFUSERS.items()
    }
    draft = Draft(path.name, f"diffusers' {command.script}", keys, _with_launch(command))
    draft.take()
    draft.set("aspect_ratio_buckets", False, "resolution")
    if "dataset_name" in draft.values and "train_data_dir" in draft.values:
        draft.drop(
            "train_data_dir", "dataset_name counts before it, in that script too", draft.values.pop("train_data_dir")
        )
    if not draft.values.get("validation_prompt"):
        draft.values.pop("num_validation_images", None)
    if draft.switch("cache_latents") is False and not draft.switch("center_crop"):
        draft.set("cache_latents", False, "cache_latents")
    _dreambooth(draft)
    _layer(draft)
    _blocks(draft)
    _optimizer(draft, given)
    return draft.finish(given)


def _with_launch(command: Command) -> dict[str, Any]:
    """The script's flags, and the precision that accelerate was told where the script was not."""
    precision = command.launch.get("mixed_precision")
    return ({"mixed_precision": precision} if precision else {}) | command.flags


def _dreambooth(draft: Draft) -> None:
    repeats = draft.whole("repeats") or 1
    if repeats != 1 and "max_train_steps" not in draft.values:
        epochs = draft.whole("num_train_epochs") or 1
        draft.set("num_train_epochs", epochs * repeats, "num_train_epochs")
        draft.differs(
            f"repeats {repeats}", f"each epoch of that script is so many here, so that there are {epochs * repeats}"
        )
    prompt = draft.text("instance_prompt")
    if prompt and "caption_column" in draft.said:
        draft.drop("instance_prompt", "caption_column names the captions, in that script too", prompt)
    elif prompt:
        draft.set("trigger_word", prompt, "instance_prompt")
        draft.differs("instance_prompt", "it is put before captions that lack it, and is that of pictures without one")
    if draft.switch("train_text_encoder") and draft.get("text_encoder_lr") is not None:
        draft.set("text_encoder_lr", draft.get("text_encoder_lr"), "text_encoder_lr")
    for name in ("train_text_encoder_frac", "adam_weight_decay_text_encoder"):
        if not draft.switch("train_text_encoder") and name in draft.values:
            draft.drop(name, "the text encoders do not learn", draft.values.pop(name))


def _layer(draft: Draft) -> None:
    """At which layer captions are read; the script hands it on only where it trains the text encoders."""
    skipped = draft.whole("clip_skip")
    if skipped is None:
        return
    if draft.switch("train_text_encoder"):
        draft.set("clip_skip", skipped + 2, "clip_skip")
        draft.differs(f"clip_skip {skipped}", f"it is counted from the end, {skipped + 2}")
    else:
        draft.drop("clip_skip", "that script uses it with train_text_encoder alone: give --clip_skip", skipped)


def _blocks(draft: Draft) -> None:
    named = draft.text("lora_unet_blocks").split(",") if draft.text("lora_unet_blocks") else []
    if draft.switch("use_blora"):
        named = ["unet.up_blocks.0.attentions.0", "unet.up_blocks.0.attentions.1"]
    blocks = [block.strip().removeprefix("unet.").replace(".", r"\.") for block in named if block.strip()]
    if blocks:
        key = "use_blora" if draft.switch("use_blora") else "lora_unet_blocks"
        draft.set("target_modules", BLOCKS.format(f"({'|'.join(blocks)})"), key)


def _optimizer(draft: Draft, given: Collection[str]) -> None:
    """adamw or prodigy, whose settings have names of ours; its defaults are ours, not its library's."""
    name = draft.text("optimizer")
    ours = optimizers.named(name)
    if ours in ("adamw", "prodigy"):
        draft.set("optimizer", ours, "optimizer")
    else:
        optimizers.read(draft, "optimizer", name, {}, "optimizer", given)
    if ours == "prodigy":
        draft.values.pop("use_8bit_adam", None)
