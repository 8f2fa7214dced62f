"""A configuration of ours in the forms of other programs: kohya's TOML, and a command line of diffusers' script.

In: a configuration. Out: text, and a sentence for each of its settings that the other program does not have. What
kohya.py reads back of it is the same configuration, but for what those sentences name.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ..precedence import DEFAULT_BASE
from .kohya import CONVOLUTIONS, SCHEDULERS
from .kohya_keys import KOHYA, RESIZED

NAMES = {  # our optimizers as kohya's script spells them
    "adamw": "AdamW",
    "adamw8bit": "AdamW8bit",
    "paged_adamw8bit": "PagedAdamW8bit",
    "prodigy": "Prodigy",
    "adafactor": "AdaFactor",
    "lion": "Lion",
    "came": "came_pytorch.CAME",
    "muon": "torch.optim.Muon",
    "adamw_schedulefree": "AdamWScheduleFree",
    "radam_schedulefree": "RAdamScheduleFree",
    "prodigy_schedulefree": "prodigyplus.ProdigyPlusScheduleFree",
}
PRODIGY = ("beta3", "decouple", "use_bias_correction", "safeguard_warmup")
STRAIGHT = {row.ours: key for key, row in KOHYA.items() if row.ours and not row.together and row.how is None}
ANYWAY = (  # of ours, what needs no word: it says where and how things run, or is put together below
    *("overwrite_output_dir", "resume_from_checkpoint", "latents_cache_dir", "pretrained_vae_model_name_or_path"),
    *("gradient_checkpointing_policy", "dataloader_num_workers", "cache_text_embeddings", "lr_warmup_steps"),
)
OF_SCRIPT = (  # flags of train_text_to_image_lora_sdxl.py that are settings of ours
    *("pretrained_model_name_or_path", "pretrained_vae_model_name_or_path", "revision", "variant", "dataset_name"),
    *("dataset_config_name", "train_data_dir", "image_column", "caption_column", "max_train_samples", "cache_dir"),
    *("num_validation_images", "validation_epochs", "seed", "resolution", "center_crop", "random_flip"),
    *("train_text_encoder", "train_batch_size", "num_train_epochs", "max_train_steps", "checkpointing_steps"),
    *("checkpoints_total_limit", "gradient_accumulation_steps", "gradient_checkpointing", "learning_rate", "scale_lr"),
    *("lr_scheduler", "lr_warmup_steps", "snr_gamma", "allow_tf32", "adam_beta1", "adam_beta2", "adam_weight_decay"),
    *("adam_epsilon", "max_grad_norm", "prediction_type", "report_to", "logging_dir", "mixed_precision", "rank"),
    *("enable_xformers_memory_efficient_attention", "noise_offset", "output_dir", "dataloader_num_workers"),
    *("enable_npu_flash_attention", "debug_loss", "image_interpolation_mode"),
)


class Exported(NamedTuple):
    """Text in another program's form, and a sentence for each setting that is not in it."""

    text: str
    lost: list[str]


class Config(Protocol):
    """What is asked of a TrainConfig, which is above this room."""

    def essentials(self) -> dict[str, Any]: ...
    def alpha(self) -> float: ...
    def uses_buckets(self) -> bool: ...
    def optimizer_name(self) -> str: ...
    def caches_text_embeddings(self) -> bool: ...
    def base_loras(self) -> tuple[tuple[str, float], ...]: ...
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


class Kohya:
    """What a configuration is for kohya's script: `made`, by its names, and what of ours is `told` in it."""

    def __init__(self, config: Config):
        self.config, self.ours = config, config.model_dump(mode="json")
        self.made: dict[str, Any] = {}
        self.told: set[str] = set(ANYWAY)
        self.notes: list[str] = []
        for part in (self._straight, self._base, self._pictures, self._network, self._optimizer, self._schedule):
            part()
        self._run()

    def put(self, key: str, value: Any, *ours: str) -> None:
        """Set a key, which says these settings of ours."""
        self.told.update(ours)
        if value is not None and value != [] and value != KOHYA[key].usual:
            self.made[key] = value

    def _straight(self) -> None:
        for ours, key in STRAIGHT.items():
            self.put(key, self.ours[ours], ours)
        if self.ours["noise_offset"] == 0:
            self.made.pop("noise_offset", None)
        for key in ("ip_noise_gamma", "adaptive_noise_scale", "min_timestep", "network_dropout"):
            if not self.made.get(key):
                self.made.pop(key, None)
        self.put("caption_extension", ".txt")

    def _base(self) -> None:
        self.made["pretrained_model_name_or_path"] = self.ours["pretrained_model_name_or_path"]
        kind = self.ours["prediction_type"]
        if kind != "flow":
            self.put("v_parameterization", kind == "v_prediction", "prediction_type")
        if self.ours["base_precision"] == "fp8":
            self.put("fp8_base", True, "base_precision")
        precision = {"fp32": "float"}.get(self.ours["save_precision"], self.ours["save_precision"])
        self.put("save_precision", precision, "save_precision")
        loras = self.config.base_loras()
        self.put("base_weights", [file for file, _ in loras], "base_lora")
        self.put("base_weights_multiplier", [scale for _, scale in loras])
        if self.ours["report_to"] in ("tensorboard", "wandb", "all"):
            self.put("log_with", self.ours["report_to"], "report_to")
            self.made["logging_dir"] = f"{self.ours['output_dir']}/{self.ours['logging_dir']}"
            self.told.add("logging_dir")

    def _pictures(self) -> None:
        side = self.ours["resolution"]
        self.put("resolution", f"{side},{side}", "resolution")
        self.put("train_data_dir", self.ours["train_data_dir"], "train_data_dir", "dataset_name")
        self.put("enable_bucket", self.config.uses_buckets(), "aspect_ratio_buckets")
        random = not self.ours["center_crop"] and not self.ours["cache_latents"]
        self.put("random_crop", random, "center_crop")
        back = {ours: theirs for theirs, ours in RESIZED.items()}
        way = self.ours["image_interpolation_mode"]
        self.put("resize_interpolation", back.get(way, way), "image_interpolation_mode")
        if self.ours["masked_loss"]:
            self.put("masked_loss", True, "masked_loss")
            self.put("alpha_mask", True)
            self.notes.append(
                "masked_loss uses transparency alone there: masks in files are named by conditioning_data_dir."
            )
        if self.ours["train_data_dir"] is None:
            self.notes.append(
                "dataset_name is not read by kohya's script: save its pictures in a folder, and name that."
            )
        if self.ours["mixed_precision"] is None:
            self.notes.append("mixed_precision null is no there, and not what accelerate is configured for.")

    def _network(self) -> None:
        rank, alpha, layers = self.ours["rank"], self.config.alpha(), self.ours["target_modules"]
        self.made |= {"network_dim": rank, "network_alpha": alpha, "network_module": "networks.lora"}
        self.told.update(("rank", "lora_alpha"))
        arguments: list[str] = []
        ranks, alphas = self.ours["rank_pattern"] or {}, self.ours["alpha_pattern"] or {}
        if layers == "all" and set(ranks) | set(alphas) <= set(CONVOLUTIONS):
            dims = {ranks.get(name, rank) for name in CONVOLUTIONS}
            own = {alphas.get(name, alpha) for name in CONVOLUTIONS}
            if len(dims) == len(own) == 1:
                arguments += [f"conv_dim={dims.pop()}", f"conv_alpha={own.pop()}"]
                self.told.update(("rank_pattern", "alpha_pattern"))
        if layers in ("all", "attention", "attention+ff"):
            self.told.add("target_modules")
        if layers == "attention" or self.ours["use_dora"]:  # which the script's own module has not
            self.made["network_module"] = "lycoris.kohya"
            preset = {"attention": "attn-only", "all": "full"}.get(str(layers), "attn-mlp")
            arguments += ["algo=lora", f"preset={preset}"]
            self.notes.append("network_module is lycoris.kohya, which has to be installed for it.")
        if self.ours["use_dora"]:
            arguments.append("dora_wd=True")
            self.told.add("use_dora")
        if self.ours["loraplus_lr_ratio"]:
            arguments.append(f"loraplus_lr_ratio={self.ours['loraplus_lr_ratio']}")
        self.put("network_args", arguments, "loraplus_lr_ratio")
        encoders = self.ours["train_text_encoder"]
        self.put("network_train_unet_only", not encoders, "train_text_encoder")
        self.put("text_encoder_lr", self.ours["text_encoder_lr"], "text_encoder_lr")
        if self.ours["unet_lr"] == 0:
            self.made.pop("unet_lr", None)
            self.put("network_train_text_encoder_only", True)
        if self.config.caches_text_embeddings():
            self.put("cache_text_encoder_outputs", True)

    def _optimizer(self) -> None:
        name = self.config.optimizer_name()
        self.made["optimizer_type"] = NAMES.get(name, name)
        self.told.update(("optimizer", "use_8bit_adam", "optimizer_args"))
        adam = {"weight_decay": "adam_weight_decay", "eps": "adam_epsilon"}
        arguments: list[str] = []
        if name in ("adamw", "adamw8bit", "paged_adamw8bit", "prodigy"):
            arguments += [f"{key}={self.ours[ours]}" for key, ours in adam.items()]
            arguments.append(f"betas={self.ours['adam_beta1']},{self.ours['adam_beta2']}")
            self.told.update((*adam.values(), "adam_beta1", "adam_beta2"))
        if name == "prodigy":
            known = {key: self.ours[f"prodigy_{key}"] for key in PRODIGY}
            arguments += [f"{key}={value}" for key, value in known.items() if value is not None]
            self.told.update(f"prodigy_{key}" for key in PRODIGY)
        if name == "muon":
            arguments += ["adjust_lr_fn=match_rms_adamw", f"weight_decay={self.ours['adam_weight_decay']}"]
            self.told.add("adam_weight_decay")
            self.notes.append("optimizer muon is torch's there too, which refuses layers of convolutions.")
        if name == "adafactor":
            arguments += ["scale_parameter=False", "relative_step=False", "warmup_init=False"]
            arguments.append(f"weight_decay={self.ours['adam_weight_decay']}")
            self.told.add("adam_weight_decay")
        given = {
            argument.partition("=")[0]: argument for argument in (*arguments, *(self.ours["optimizer_args"] or []))
        }
        self.put("optimizer_args", list(given.values()))

    def _schedule(self) -> None:
        name, ratio = self.ours["lr_scheduler"], self.ours["lr_min_ratio"]
        if name in (*SCHEDULERS, "warmup_stable_decay"):
            self.put("lr_scheduler", "cosine_with_min_lr" if name == "cosine" and ratio else name, "lr_scheduler")
        if ratio and name in ("cosine", "warmup_stable_decay"):
            self.put("lr_scheduler_min_lr_ratio", ratio, "lr_min_ratio")
        if name != "constant":  # which takes no warm-up there
            share = self.ours["lr_warmup_ratio"]
            self.put("lr_warmup_steps", self.ours["lr_warmup_steps"] if share is None else share, "lr_warmup_ratio")
        if name == "cosine_with_restarts":
            self.put("lr_scheduler_num_cycles", self.ours["lr_num_cycles"], "lr_num_cycles")
        if name == "polynomial":
            self.put("lr_scheduler_power", self.ours["lr_power"], "lr_power")
        if name == "warmup_stable_decay":
            self.put("lr_decay_steps", self.ours["lr_decay_ratio"], "lr_decay_ratio")

    def _run(self) -> None:
        if self.ours["max_train_steps"] is None:
            self.put("max_train_epochs", self.ours["num_train_epochs"], "num_train_epochs")
        else:
            self.put("max_train_steps", self.ours["max_train_steps"], "max_train_steps", "num_train_epochs")
        if self.ours["loss_type"] in ("huber", "smooth_l1"):
            self.put("huber_c", self.ours["huber_c"], "huber_c")
            self.put("huber_schedule", self.ours["huber_schedule"], "huber_schedule")
        if self.ours["multires_noise_iterations"]:
            for key in ("multires_noise_iterations", "multires_noise_discount"):
                self.put(key, self.ours[key], key)
        prompts = self.ours["sample_prompts"]
        if prompts:
            self.notes.append("sample_prompts is a file there: write these lines to one, and name it.")
            self.told.add("sample_prompts")
            if self.ours["validation_steps"] is not None:
                self.put("sample_every_n_steps", self.ours["validation_steps"], "validation_steps")
            elif self.ours["validation_share"] is None:
                self.put("sample_every_n_epochs", self.ours["validation_epochs"], "validation_epochs")
        if self.ours["validation_split"]:
            self.put("validate_every_n_steps", self.ours["heldout_steps"], "heldout_steps")

    def lost(self) -> list[str]:
        """A sentence for each setting that is not a default of ours, and not told."""
        left = {name: value for name, value in self.config.essentials().items() if name not in self.told}
        return [*self.notes, *_left_out(left, "kohya's script")]


def as_kohya(config: Config) -> Exported:
    """A TOML file for `sdxl_train_network.py --config_file`."""
    kohya = Kohya(config)
    lines = [f"{key} = {_toml(value)}" for key, value in sorted(kohya.made.items())]
    return Exported("\n".join(lines) + "\n", kohya.lost())


def as_diffusers(config: Config) -> Exported:
    """A command line of train_text_to_image_lora_sdxl.py."""
    values, ours = config.essentials(), config.model_dump(mode="json")
    flags = {"pretrained_model_name_or_path": ours["pretrained_model_name_or_path"]}
    if ours["pretrained_vae_model_name_or_path"]:
        flags["pretrained_vae_model_name_or_path"] = ours["pretrained_vae_model_name_or_path"]
    if ours["dataset_name"]:
        flags["dataset_name"] = ours["dataset_name"]
    flags |= {name: value for name, value in values.items() if name in OF_SCRIPT and value is not None}
    prompts, notes = ours["validation_prompt"] or [], []
    if prompts:
        flags["validation_prompt"] = prompts[0]
    if len(prompts) > 1:
        notes.append(f"validation_prompt is one prompt there: {len(prompts) - 1} are left out.")
    told = {
        *OF_SCRIPT,
        *ANYWAY,
        "validation_prompt",
        "optimizer",
        "use_8bit_adam",
        "lora_alpha",
        "aspect_ratio_buckets",
    }
    told.add("cache_latents")
    if config.optimizer_name() == "adamw8bit":
        flags["use_8bit_adam"] = True
    elif config.optimizer_name() != "adamw":
        notes.append(f"optimizer {config.optimizer_name()} is not one of that script, which uses AdamW.")
    if flags.get("lr_scheduler") in ("warmup_stable_decay", "rex"):
        notes.append(
            f"lr_scheduler {flags.pop('lr_scheduler')} is not one of that script, which keeps the rate constant."
        )
    if config.alpha() != ours["rank"]:
        notes.append(f"lora_alpha {config.alpha():g} is not set there: it is the rank, {ours['rank']}.")
    if config.uses_buckets():
        notes.append("aspect_ratio_buckets are not there: pictures are trained as squares.")
    if not ours["center_crop"] and ours["cache_latents"]:
        notes.append("cache_latents is not there: pictures are cropped anew at each step.")
    written = [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items() if value is not False
    ]
    words = ["accelerate launch train_text_to_image_lora_sdxl.py", *map(shlex.quote, written)]
    left = {name: value for name, value in values.items() if name not in told}
    return Exported(" \\\n  ".join(words) + "\n", [*notes, *_left_out(left, "diffusers' script")])


def _left_out(values: Mapping[str, Any], program: str) -> list[str]:
    return [
        f"{name} {_short(value)} is no setting of {program}, and is left out."
        for name, value in values.items()
        if not (name == "pretrained_model_name_or_path" and value == DEFAULT_BASE)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _toml(value: Any) -> str:
    """A value in TOML, whose plain texts are JSON's but for one control character."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
