"""The parts of a run, made ready: pictures, frozen models with LoRA on them, device, precision, batches, predictions.

In: a TrainConfig. Out: a Studio, which the trainer asks for batches, predictions and validation pictures. Data are
opened and checked before any model is loaded, and nothing is written to the run folder here.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..cache.embeddings import EmbeddedPrompts, Prompt, TextEncoders, refuse_too_deep
from ..cache.identity import combined, contents
from ..cache.latents import CachedLatents, LiveLatents, cache_folder
from ..cache.masks import LiveMasks
from ..config.train_config import TrainConfig
from ..data import buckets
from ..data.captions import unmarked, varied
from ..data.dataset import CaptionedPictures, Faults, open_dataset
from ..data.file_facts import Memo, examine
from ..data.masks import Masks
from ..data.sampling import Choices, Stream, loss_weights
from ..data.split import appended, divide
from ..lora.acceleration import is_short, lay_out, make_ready, wants_ours
from ..lora.adapter import add_lora
from ..lora.files.writer import check_names
from ..lora.layers import LoraWeights, collect
from ..lora.starting.frozen import Change, FrozenLoras
from ..lora.starting.going_on import file_of, shapes_of, starting_weights
from ..lora.timestep_ranks import REMARK
from ..models import variants
from ..models.files import text_layers
from ..models.loading import in_tiles, load, load_text_encoder, load_vae, load_vae_encoder, open_unet
from ..models.objective import base_objective
from ..models.objective.base_objective import BaseObjective
from ..models.sources import Source
from ..models.stored import apart
from ..runs.events import EventLog
from ..runs.folder import RunFolder
from ..system.errors import ConfigError, ModelError
from ..system.memory import give_back, trim
from ..system.progress import counting_bar
from ..system.transfer import sent
from .class_pictures import open_class_pictures
from .encoding import TEXT_PARTS, Encoding
from .processes import Processes
from .state.fingerprint import fingerprint
from .teachers import pairs
from .validation import Validator

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
VARIED = (
    "Captions change from step to step, so the text encoders stay in memory and run at every step; without "
    "shuffle_caption and caption_tag_dropout_rate they would run once."
)


SKIPPED = (
    "Captions are read at layer {0} of the text encoders, counted from the end (clip_skip): draw so too, in ComfyUI "
    "with CLIP Set Last Layer -{0}, in diffusers with clip_skip={1}; A1111 and Forge read SDXL at its own layer, 2."
)


class Batch(NamedTuple):
    """A micro-batch on the device: latents, noise and offset (N, 4, h, w) or (N, 4, 1, 1), timesteps (N,), prompt.

    `around` (N, 5, h, w) is the mask and what is around the hole, for an inpainting base.
    """

    names: list[str]
    latents: torch.Tensor
    noise: torch.Tensor
    offset: torch.Tensor
    timesteps: torch.Tensor
    prompt: Prompt
    time_ids: torch.Tensor
    around: torch.Tensor | None = None


def prepare(config: TrainConfig, folder: RunFolder, progress: bool) -> "Studio":
    """Open the data, load the models, put LoRA on them. Raises SdxlNbError before anything is written."""
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    opened, memo, processes = open_dataset(config), Memo(cache_folder(config)), Processes.join()

    def check(pictures: CaptionedPictures) -> Faults:
        return examine(pictures, memo, counting_bar("checking pictures", progress), processes)

    objective = base_objective.of_config(config)  # what cannot be trained is refused before anything is computed
    if config.clip_skip != 2 and (layers := text_layers(Source.of(config))):
        refuse_too_deep(config.clip_skip, layers)
    faults = check(opened)
    trim()  # opening a million pictures leaves hundreds of megabytes
    pictures, held_out = divide(config, opened.without(faults.names), check)
    pictures, opposites, of_pairs = pairs.paired(config, pictures, check)
    if config.with_prior_preservation:
        others = open_class_pictures(config, counting_bar("drawing class pictures", progress), processes, objective)
        pictures = pictures.with_class(others.without(check(others).names))
    tracker = None if config.report_to == "none" else config.report_to
    accelerator = Accelerator(
        log_with=tracker,
        project_config=ProjectConfiguration(str(folder.path), logging_dir=str(folder.path / config.logging_dir)),
    )
    remarks = [
        *objective.remarks,
        *variants.remarks(Source.of(config)),
        *opened.notes,
        *([str(faults)] if faults else []),
        *of_pairs,
        *([REMARK] if config.tlora_min_rank else []),
        *([SKIPPED.format(config.clip_skip, config.clip_skip - 2)] if config.clip_skip != 2 else []),
    ]
    return Studio(
        config, accelerator, processes, pictures, held_out, opposites, memo, remarks, folder, progress, objective
    )


class Studio:
    """See the module. `trained` are the models with LoRA, by component name; `models` are the same for saving."""

    prompt: EmbeddedPrompts | TextEncoders  # from `encode` on
    latents: CachedLatents | LiveLatents
    masks: LiveMasks | None = None

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Any,
        processes: Processes,
        pictures: CaptionedPictures,
        held_out: CaptionedPictures,
        opposites: CaptionedPictures,
        memo: Memo,
        remarks: list[str],
        folder: RunFolder,
        progress: bool,
        objective: BaseObjective,
    ):
        self.config, self.accelerator, self.pictures, self.folder = config, accelerator, pictures, folder
        # accelerate's own precision is fixed for the life of a kernel; ours is that of this run
        precision = config.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        device = accelerator.device  # on CPUs accelerate numbers it by process, and .to(cpu:1) copies what is on cpu
        self.device, self.dtype = torch.device("cpu") if device.type == "cpu" else device, DTYPES[precision]
        self.processes, self.memo, self.remarks, self.progress = processes, memo, remarks, progress
        self.source, self.objective = Source.of(config), objective
        self.caches_latents = config.cache_latents and not objective.inpaints
        # what is trained on comes first: indices below len(pictures) are its own
        self.everything = appended(pictures, held_out)
        self.heldout = range(len(pictures), len(self.everything))
        self.encoded = appended(self.everything, opposites)  # and last the opposite of each picture, if any
        self.heldout_identities = [held_out.identity(index) for index in range(len(held_out))]
        self.captions, self.every_caption = self.everything.captions, self.everything.every_caption()
        self.buckets = buckets.of(config, self.everything.sizes(), len(pictures), self.everything.folders)
        self.configs = self.everything.configs(config)  # more than one where a data file has settings by folder
        self.keeps_embeddings = all(each.caches_text_embeddings() for each in self.configs)
        of_class = pictures.class_pictures
        self.counts = loss_weights(len(pictures) - of_class, of_class, pictures.weights, config.prior_loss_weight)
        varies = any(each.varies_captions() for each in self.configs)
        if varies and config.cache_text_embeddings and not config.train_text_encoder:
            self.remarks.append(VARIED)
        if config.cached_variants > 1:
            self.remarks.append(self._crops())
        self.given_masks = Masks(pictures) if config.masked_loss else None
        if self.given_masks:
            self.given_masks.refuse_unusable()
            self.remarks.append(str(self.given_masks))
        self.data_fingerprint = fingerprint(pictures, self.given_masks, opposites)
        self.heldout_fingerprint = fingerprint(held_out)
        self.frozen = FrozenLoras(self.source, shapes_of(self.source)) if self.source.loras else None
        self.base = processes.from_first(lambda: self._contents(memo))
        kept = apart(config.base_precision, self.dtype)
        # hollow until the encoders have left: what it takes then is most of all memory
        self.unet, self._fill = open_unet(
            self.source, self.dtype, ours=wants_ours(config), precision=kept, change=self._change("unet")
        )
        if config.use_dora:  # its magnitudes are the weights' own norms
            self._fill(None)
        self.encoders = () if self.keeps_embeddings else self.load_encoders()
        names = add_lora(config, self.unet, self.encoders, starting_weights(config))
        self.models = {name: self.unet if name == "unet" else self.encoders[TEXT_PARTS.index(name)] for name in names}
        self.trained = self.models
        self._check_names()
        for parameter in self.unet.parameters():
            if parameter.requires_grad:  # here already: the optimizer's flat vector takes their place
                parameter.data = parameter.data.to(self.device)
        self._speed_up()

    def _crops(self) -> str:
        """How many crops of each picture there are, in words."""
        how = "kept in the cache" if self.caches_latents else "encoded when they are wanted"
        flips = ", every second mirrored" if any(each.random_flip for each in self.configs) else ""
        return f"Each picture has {self.config.cached_variants} crops{flips}, {how}; each time one of them is drawn."

    def lora(self) -> LoraWeights:
        """The LoRA as it is on the models, on the CPU."""
        models = self.models
        return collect(models["unet"], models.get("text_encoder"), models.get("text_encoder_2"))

    def _check_names(self) -> None:
        """Raise ConfigError for a module that a LoRA file could not name, before steps are spent on it."""
        try:
            check_names(self.lora())
        except ModelError as error:
            raise ConfigError(f"target_modules: {error}") from error

    def _speed_up(self) -> None:
        config = self.config
        for model in self.trained.values():
            model.train()
        if self.dtype != torch.float32 and not config.use_dora:  # DoRA's norms want fp32
            for module in self.unet.modules():
                if hasattr(module, "cast_input_dtype_enabled"):
                    module.cast_input_dtype_enabled = False  # autocast would undo peft's cast to fp32 at once
        if config.gradient_checkpointing:
            for name, encoder in zip(TEXT_PARTS, self.encoders, strict=False):
                if name in self.trained:
                    # with frozen inputs the reentrant kind would leave the gradients zero
                    encoder.gradient_checkpointing_enable({"use_reentrant": False})
        make_ready(self.unet, config, self.device, self.remarks)

    @functools.cached_property
    def tokenizers(self) -> list[Any]:
        return [load(self.source, name) for name in ("tokenizer", "tokenizer_2")]

    @functools.cached_property
    def vae(self) -> Any:
        """On the CPU until it is used; where no pictures are drawn, the half that encodes."""
        if self.config.vae_tiling:
            return in_tiles(load_vae(self.source, self.dtype))
        read = load_vae if self.config.drawings() else load_vae_encoder
        return read(self.source, self.dtype)

    def load_encoders(self) -> tuple[Any, ...]:
        """Both text encoders on the device, in the dtype and precision that they compute in."""
        dtype = torch.float32 if self.config.train_text_encoder and self.dtype == torch.float16 else self.dtype
        precision = apart(self.config.base_precision, dtype)
        whole = self.config.train_text_encoder or self.config.lora_weights is not None  # what peft may put layers on
        return tuple(
            load_text_encoder(self.source, name, dtype, precision, self._change(name), whole).to(self.device)
            for name in TEXT_PARTS
        )

    def _change(self, part: str) -> Change | None:
        """What the frozen LoRAs change of a part of the base."""
        return self.frozen.change(part) if self.frozen else None

    def _contents(self, memo: Memo) -> dict[str, str]:
        """What the base and the LoRAs that the run begins with are, by their contents."""
        found = contents(self.source, self.objective, memo)
        if self.frozen:
            digests = [memo.file_digest(path).hex() for path in self.frozen.files]
            found["base_lora"] = combined(*digests, *self.frozen.scales)
        if (path := file_of(self.config)) is not None:
            found["lora_weights"] = memo.file_digest(path).hex()
        return found

    def text_encoders(self, encoders: Sequence[Any]) -> TextEncoders:
        """What embeds captions with these encoders."""
        return TextEncoders(
            self.tokenizers,
            encoders,
            zeros_for_empty=self.objective.zeros_for_empty,
            chunks=self.config.chunks(),
            clip_skip=self.config.clip_skip,
        )

    def encode(self, log: EventLog, asked: Callable[[], bool] = lambda: False) -> None:
        """Latents and prompt embeddings; what is cached is not computed again, and its models are never loaded.

        Each encoder leaves before the next part takes its memory. When `asked` says that the run is to stop, what is
        encoded by then is kept and Stopped is raised.
        """
        encoding = Encoding(self, log, asked)
        self.prompt = encoding.prompts()
        self.latents = encoding.pictures()
        self.masks = encoding.masks(self.latents)
        encoding.tell(self.prompt)
        self.memo.close()
        if not self.config.use_dora:
            self._fill(self.device)
        lay_out(self.unet, self.device)
        self.unet.to(self.device)
        give_back(self.device)

    def let_vae_go(self) -> None:
        """Off the device, and out of memory unless validation pictures will want it again."""
        loaded = self.__dict__.pop("vae", None)
        if loaded is not None and self.config.drawings():
            self.vae = loaded.to("cpu")
        del loaded
        give_back(self.device)

    def opposites(self, indices: Sequence[int]) -> list[int]:
        """The opposite of each of these pictures, of a slider from pairs; none where there are none."""
        return [len(self.everything) + i for i in indices] if len(self.encoded) > len(self.everything) else []

    def owner(self, index: int) -> int:
        """The picture whose caption, shape and settings a picture has: itself, or that which it is the opposite of."""
        return index % len(self.everything)

    def caption(self, index: int, choices: Choices) -> str:
        """The caption of a picture at a position."""
        if choices.empty_caption:
            return ""
        index = self.owner(index)
        of_class = index >= len(self.pictures) - self.pictures.class_pictures  # or held out
        if of_class:
            return unmarked(self.captions[index], self.everything.config(index, self.config))
        texts = self.everything.alternatives(index)
        caption = texts[choices.one_of(len(texts))] if len(texts) > 1 else texts[0]
        config = self.everything.config(index, self.config)
        return varied(caption, config, choices.words()) if config.varies_captions() else caption

    def empty_share(self, index: int) -> float:
        """How often a picture is trained without its caption."""
        return self.everything.config(self.owner(index), self.config).proportion_empty_prompts

    def shape(self, index: int) -> tuple[int, int]:
        """Height and width that a picture is trained at: pictures computed at once share it."""
        return self.buckets.shape(self.owner(index))

    def stream(self, batch: int) -> Stream:
        """The order of the pictures to train on, `batch` at each step."""
        pictures, of_class = self.pictures, self.pictures.class_pictures
        assigned = self.buckets.assignment[: len(pictures)]
        groups = (np.cumsum(np.bincount(assigned) > 0, dtype=np.int32) - 1)[assigned]  # numbered without gaps
        count, repeats = len(pictures) - of_class, pictures.repeats
        return Stream(count, batch, self.config.seed, groups=groups, repeats=repeats, class_pictures=of_class)

    def weights(self, indices: Sequence[int]) -> torch.Tensor | None:
        """What the loss of each of these pictures counts, (N,) on the device; None when all count one."""
        return None if self.counts is None else self._sent(torch.from_numpy(self.counts[list(indices)]))

    def mask(self, indices: Sequence[int], choices: Sequence[Choices]) -> torch.Tensor | None:
        """What the loss counts at each place of these latents, (N, 1, h, w) fp32 on the device; None: 1 everywhere."""
        return self._sent(self.masks.counts(indices, choices)) if self.masks else None

    def batch(self, indices: Sequence[int], choices: Sequence[Choices]) -> Batch:
        """The pictures at these indices with these random choices, on the device, fp32 but for the prompt."""
        latents, time_ids = self.latents(indices, choices)
        around = None
        if self.objective.inpaints:
            latents, around = latents.split([latents.shape[1] // 2, latents.shape[1] // 2 + 1], dim=1)
        captions = [self.caption(i, c) for i, c in zip(indices, choices, strict=True)]
        shape = tuple(latents.shape[1:])
        noise = torch.from_numpy(np.stack([c.noise(shape) for c in choices]))
        offset = torch.from_numpy(np.stack([c.noise((shape[0], 1, 1)) for c in choices]))
        return Batch(
            [self.everything.names[self.owner(i)] for i in indices] if self.config.debug_loss else [],
            self._sent(latents),
            self._sent(noise),
            self._sent(offset),
            self._sent(torch.tensor([c.timestep for c in choices])),
            self.embedded(captions),
            self._sent(time_ids),
            None if around is None else self._sent(around),
        )

    def embedded(self, captions: list[str]) -> Prompt:
        """The embeddings of these captions, on the device."""
        return Prompt(*map(self._sent, self.prompt(captions)))

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on its way to this run's device."""
        return sent(tensor, self.device)

    def predict(self, noisy: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The U-Net's prediction, in the compute dtype; time ids stay fp32 (bf16 would turn 1023 into 1024)."""
        added = {"text_embeds": batch.prompt.pooled.to(self.dtype), "time_ids": batch.time_ids}
        hidden = batch.prompt.hidden.to(self.dtype)
        mixed = self.dtype != torch.float32 and not is_short(self.unet)
        if batch.around is not None:
            noisy = torch.cat([noisy, batch.around], dim=1)
        with torch.autocast(self.device.type, self.dtype, enabled=mixed):
            (predicted,) = self.unet(
                noisy.to(self.dtype), batch.timesteps, hidden, added_cond_kwargs=added, return_dict=False
            )
        noise: torch.Tensor = predicted
        return noise

    def validate(self, step: int) -> list[tuple[str, bytes]]:
        """Draw this process's part of the validation pictures with the LoRA as it is: (name, PNG bytes) of each."""
        encoders = [model for model in self.trained.values() if model is not self.unet]
        for encoder in encoders:
            encoder.eval()
        with torch.no_grad():
            drawings = self.config.drawings()
            prompts = self.prompt(self.config.drawn_prompts())
            away = {text: self.prompt([text]) for text in dict.fromkeys(each.negative for each in drawings)}
        for encoder in encoders:
            encoder.train()
        validator = Validator(drawings, self.unet, self.vae, self.objective, prompts, away)
        state = self.accelerator
        return validator.draw(self.device, self.dtype, state.process_index, state.num_processes)
