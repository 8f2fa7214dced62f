"""The parts of a run, made ready: pictures, frozen models with LoRA on them, device, precision, batches, predictions.

In: a TrainConfig. Out: a Studio, which the trainer asks for batches, predictions and validation pictures. Data are
opened and checked before any model is loaded, and nothing is written to the run folder here.
"""

import gc
import hashlib
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import torch

from .cache import CachedLatents, LiveLatents
from .captions import long_captions
from .data import CaptionedPictures, open_dataset
from .events import EventLog
from .folder import RunFolder
from .models import Source, add_lora, load, load_vae
from .prompts import EmbeddedPrompts, Prompt, TextEncoders
from .sampling import Choices
from .validation import Validator

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TEXT_PARTS = ("text_encoder", "text_encoder_2")


class Batch(NamedTuple):
    """A micro-batch on the device: latents, noise and offset (N, 4, h, w) or (N, 4, 1, 1), timesteps (N,), prompt."""

    names: list[str]
    latents: torch.Tensor
    noise: torch.Tensor
    offset: torch.Tensor
    timesteps: torch.Tensor
    prompt: Prompt
    time_ids: torch.Tensor


def join_processes(config: Any) -> tuple[Any, bool]:
    """The configuration with one seed for all processes of this run, and whether this is the first of them."""
    from accelerate import PartialState
    from accelerate.utils import broadcast

    state = PartialState(timeout=timedelta(hours=2))  # how long others wait while the first one draws or saves
    if state.num_processes > 1:
        config = config.replace(seed=int(broadcast(torch.tensor([config.seed], device=state.device))))
    return config, state.is_main_process


def prepare(config: Any, folder: RunFolder, progress: bool) -> "Studio":
    """Open the data, load the models, put LoRA on them. Raises SdxlNbError before anything is written."""
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    opened = open_dataset(config)
    faults = opened.check(_bar("checking pictures", progress))
    pictures = opened.without(faults.names)
    tracker = None if config.report_to == "none" else config.report_to
    accelerator = Accelerator(
        log_with=tracker,
        project_config=ProjectConfiguration(str(folder.path), logging_dir=str(folder.path / config.logging_dir)),
    )
    return Studio(config, accelerator, pictures, [*opened.notes, *([str(faults)] if faults else [])], folder, progress)


class Studio:
    """See the module. `trained` are the models with LoRA, by component name; `models` are the same for saving."""

    def __init__(
        self,
        config: Any,
        accelerator: Any,
        pictures: CaptionedPictures,
        remarks: list[str],
        folder: RunFolder,
        progress: bool,
    ):
        self.config, self.accelerator, self.pictures, self.folder = config, accelerator, pictures, folder
        # accelerate's own precision is fixed for the life of a kernel; ours is that of this run
        precision = config.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        self.device, self.dtype = accelerator.device, DTYPES[precision]
        self.remarks, self.progress = remarks, progress
        self.source = Source.of(config)
        self.captions = pictures.captions
        self.data_fingerprint = _fingerprint(pictures)
        self.tokenizers = [load(self.source, name) for name in ("tokenizer", "tokenizer_2")]
        self._note_long_captions()
        self.scheduler = load(self.source, "scheduler")
        self.unet = load(self.source, "unet", self.dtype)  # on the device only when the encoders have left it
        encoder_dtype = torch.float32 if config.train_text_encoder and self.dtype == torch.float16 else self.dtype
        self.encoders = tuple(load(self.source, name, encoder_dtype).to(self.device) for name in TEXT_PARTS)
        self.vae = load_vae(self.source, self.dtype)
        names = add_lora(config, self.unet, self.encoders)
        self.models = {name: self.unet if name == "unet" else self.encoders[TEXT_PARTS.index(name)] for name in names}
        self.trained = self.models
        for parameter in self.unet.parameters():
            if parameter.requires_grad:  # here already: the optimizer's flat vector takes their place
                parameter.data = parameter.data.to(self.device)
        self._speed_up()

    def _speed_up(self) -> None:
        config = self.config
        for model in self.trained.values():
            model.train()
        if self.dtype != torch.float32 and not config.use_dora:  # DoRA's norms want fp32
            for module in self.unet.modules():
                if hasattr(module, "cast_input_dtype_enabled"):
                    module.cast_input_dtype_enabled = False  # autocast would undo peft's cast to fp32 at once
        if config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            for name in TEXT_PARTS:
                if name in self.trained:
                    # with frozen inputs the reentrant kind would leave the gradients zero
                    self.trained[name].gradient_checkpointing_enable({"use_reentrant": False})
        if config.enable_xformers_memory_efficient_attention:
            self.unet.enable_xformers_memory_efficient_attention()
        if config.enable_npu_flash_attention:
            self.unet.enable_npu_flash_attention()
        if config.allow_tf32 and self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    def _note_long_captions(self) -> None:
        cut = long_captions(self.captions, self.tokenizers)
        if cut:
            first = cut[0]
            limit = min(tokenizer.model_max_length for tokenizer in self.tokenizers)
            self.remarks.append(
                f"{len(cut)} of {len(self.captions)} captions are longer than {limit} tokens and are cut; "
                f"{self.pictures.names[first.index]} loses {first.cut!r}."
            )

    def encode(self, log: EventLog) -> None:
        """Latents and prompt embeddings, once; each encoder leaves before the next part takes its memory."""
        self._encode_captions()
        self._encode_pictures(log)
        self.unet.to(self.device)

    def _encode_captions(self) -> None:
        self.prompt = TextEncoders(self.tokenizers, self.encoders)
        if not self.config.caches_text_embeddings():
            return
        captions = ["", *self.captions, *(self.config.validation_prompt or [])]
        self.prompt = EmbeddedPrompts(self.prompt, captions, _bar("encoding captions", self.progress))
        self.encoders = ()
        self._free()

    def _free(self) -> None:
        """Give the memory of models that are let go back to the device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _encode_pictures(self, log: EventLog) -> None:
        config = self.config
        self.vae.to(self.device)
        if config.cache_latents:
            done = _bar("encoding pictures", self.progress)
            self.latents = CachedLatents(self.pictures, self.vae, config, done)
            self.vae.to("cpu")
            self._free()
            log.emit("cache", pictures=len(self.pictures), captions=len(set(self.captions)))
            if self.latents.moving:
                log.warn(
                    f"{self.latents.moving} pictures are not square: with cached latents each keeps one crop, its "
                    "middle, in every epoch; --no_cache_latents draws a new random crop each time, but is slower."
                )
        else:
            self.latents = LiveLatents(self.pictures, self.vae, config)

    def batch(self, indices: Sequence[int], choices: Sequence[Choices]) -> Batch:
        """The pictures at these indices with these random choices, on the device, fp32 but for the prompt."""
        latents, time_ids = self.latents(indices, choices)
        captions = ["" if c.empty_caption else self.captions[i] for i, c in zip(indices, choices, strict=True)]
        shape = tuple(latents.shape[1:])
        noise = torch.from_numpy(np.stack([c.noise(shape) for c in choices]))
        offset = torch.from_numpy(np.stack([c.noise((shape[0], 1, 1)) for c in choices]))
        return Batch(
            [self.pictures.names[i] for i in indices] if self.config.debug_loss else [],
            latents.to(self.device),
            noise.to(self.device),
            offset.to(self.device),
            torch.tensor([c.timestep for c in choices], device=self.device),
            Prompt(*(t.to(self.device) for t in self.prompt(captions))),
            time_ids.to(self.device),
        )

    def predict(self, noisy: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The U-Net's prediction, in the compute dtype; time ids stay fp32 (bf16 would turn 1023 into 1024)."""
        added = {"text_embeds": batch.prompt.pooled.to(self.dtype), "time_ids": batch.time_ids}
        hidden = batch.prompt.hidden.to(self.dtype)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.unet(noisy.to(self.dtype), batch.timesteps, hidden, added_cond_kwargs=added, return_dict=False)[
                0
            ]

    def add_up(self, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Sum loss and gradient over all processes; each holds its pictures' share of the mean already."""
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(gradient)
            torch.distributed.all_reduce(loss)
        return loss

    def agree(self, asked: bool) -> bool:
        """Whether any process was asked to stop."""
        if self.accelerator.num_processes == 1:
            return asked
        votes = torch.tensor([float(asked)], device=self.device)
        torch.distributed.all_reduce(votes)
        return bool(votes.item())

    def validate(self, step: int) -> list[Any]:
        """Draw the validation prompts with the LoRA as it is; the paths of the pictures."""
        if not self.config.validation_prompt or not self.accelerator.is_main_process:
            return []
        encoders = [model for model in self.trained.values() if model is not self.unet]
        for encoder in encoders:
            encoder.eval()
        with torch.no_grad():
            prompts = self.prompt(self.config.validation_prompt)
        for encoder in encoders:
            encoder.train()
        validator = Validator(self.config, self.unet, self.vae, self.scheduler, prompts, self.folder.path)
        return validator.draw(step, self.device, self.dtype)


def _fingerprint(pictures: CaptionedPictures) -> str:
    """SHA-256 over every picture's bytes and caption, in order."""
    digest = hashlib.sha256()
    for index, caption in enumerate(pictures.captions):
        digest.update(f"{pictures.identity(index)} {caption}\n".encode(errors="backslashreplace"))
    return digest.hexdigest()


def _bar(label: str, shown: bool):
    """A tqdm bar as a (done, total) callback; it closes itself at the end."""
    from .progress import progress_bar

    bar = progress_bar(desc=label, disable=not shown, leave=False)

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return update
