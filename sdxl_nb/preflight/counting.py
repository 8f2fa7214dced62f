"""What a training step costs, counted without doing it: bytes and FLOPs of the very same code on the meta device.

In: a TrainConfig and a U-Net's configuration. Out: a Count. The U-Net, its LoRA layers and the flat weights are made
by the modules that train (models/unet.py, lora/adapter.py, training/state/parameters.py, lora/acceleration.py), of
tensors that have shapes and no memory. A Ledger (ledger.py) follows every storage through forward and backward, so the
peak has the true lifetimes of activations, gradients and temporaries. Real SDXL takes seconds,
anywhere.
"""

import functools
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..config.train_config import TrainConfig
from ..models.lock import ALONE
from ..models.stored import apart, store_all
from ..system.misfits import leave_out_xformers
from .ledger import Device, Ledger

if TYPE_CHECKING:
    from ..training.state.parameters import FlatParameters

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
STATE_BYTES = {  # a weight
    "adamw": 8.0,
    "adamw8bit": 2.1,
    "paged_adamw8bit": 2.1,
    "prodigy": 16.0,
    "adafactor": 4.1,
    "lion": 4.0,
    "came": 4.2,
    "muon": 4.0,
    "adamw_schedulefree": 8.0,
    "radam_schedulefree": 8.0,
    "prodigy_schedulefree": 4.6,
}
UNKNOWN = 8.0  # of a class by its path: as AdamW


@dataclass(frozen=True)
class Count:
    """Bytes on the device, and what one process does for `pictures` pictures at once.

    resident: frozen weights, LoRA masters, gradient and optimizer state. peak: with everything that lives at the worst
    moment of forward and backward. kept: activations between the two. flops and operations: of both together.
    """

    frozen: int
    trained: int  # number of LoRA weights
    state: int
    kept: int
    peak: int
    flops: int
    operations: int
    pictures: int

    @property
    def resident(self) -> int:
        return self.frozen + self.state

    def at(self, pictures: int) -> "Count":
        """The same for another number of pictures: what is not resident grows with it."""
        many = pictures / self.pictures
        kept, moving = round(self.kept * many), round((self.peak - self.resident) * many)
        return replace(self, kept=kept, peak=self.resident + moving, flops=round(self.flops * many), pictures=pictures)


class Timing(NamedTuple):
    """A step that was really taken: seconds, and on a GPU the peak of bytes allocated."""

    seconds: float
    peak: int | None


class _NoValues(TorchFunctionMode):
    """Leaves out the first values of new layers, which take tensors without memory a while and are nothing."""

    SKIPPED = (torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.zero_, torch.Tensor.fill_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in self.SKIPPED else func(*args, **(kwargs or {}))


def count_step(
    config: TrainConfig, unet: dict[str, Any], scale: int, tokens: int, *, pictures: int, cuda: bool
) -> Count:
    """The Count of one micro-batch. `unet` is its configuration, `scale` the VAE's, `tokens` those of a prompt.

    With `cuda` operations that CUDA's autocast does in fp32 are counted so, where training uses autocast at all.
    """
    side = config.resolution // scale
    cuda = cuda and config.mixed_precision not in (None, "no")  # else there is no difference
    counted = _counted(_shaping(config), json.dumps(dict(unet), default=list), side, tokens, pictures, cuda)
    state = round(counted.trained * (8 + STATE_BYTES.get(config.optimizer_name(), UNKNOWN) + 4 * config.use_ema))
    return replace(counted, state=state, peak=counted.peak + state - counted.state)


def count_pass(
    config: TrainConfig, unet: dict[str, Any], scale: int, tokens: int, height: int, width: int, pictures: int
) -> int:
    """Most bytes beside the weights while so many pictures of this size in pixels go through the U-Net to be drawn."""
    sides = (height // scale, width // scale)
    return _passed(_shaping(config), json.dumps(dict(unet), default=list), sides, tokens, pictures)


@functools.lru_cache(maxsize=16)
def _passed(wrapped: "_Config", architecture: str, sides: tuple[int, int], tokens: int, pictures: int) -> int:
    dtype = DTYPES[wrapped.config.mixed_precision or "no"]
    unet, _, ledger, mixed = _of_shapes(wrapped, architecture)
    ledger.begin()
    resident = ledger.now
    with torch.no_grad(), torch.device("meta"), ledger, Device(ledger, dtype if mixed else None, False):
        _forward(unet, json.loads(architecture), sides, tokens, pictures, dtype)
    return ledger.peak - resident


def _shaping(config: TrainConfig) -> "_Config":
    """The settings that decide what a step computes."""
    keys = ["lora_kind", "lokr_factor", "rank", "target_modules", "rank_pattern", "use_dora", "lora_dropout"]
    keys += ["rank_dropout", "module_dropout", "tlora_min_rank", "slider_negative_dir"]
    keys += ["gradient_checkpointing", "gradient_checkpointing_policy"]
    keys += ["mixed_precision", "base_precision", "use_ema"]
    keys += ["enable_xformers_memory_efficient_attention", "enable_npu_flash_attention"]
    return _Config(config, json.dumps({key: getattr(config, key, None) for key in keys}, sort_keys=True))


class _Config:
    """A TrainConfig that is equal to others with the same settings for memory, so that a count can be kept."""

    def __init__(self, config: TrainConfig, settings: str):
        self.config, self.settings = config, settings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Config) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash(self.settings)


@functools.lru_cache(maxsize=64)
def _counted(wrapped: _Config, architecture: str, side: int, tokens: int, pictures: int, cuda: bool) -> Count:
    config, unet_config = wrapped.config, json.loads(architecture)
    dtype = DTYPES[config.mixed_precision or "no"]
    unet, flat, ledger, mixed = _of_shapes(wrapped, architecture)
    ledger.begin()
    resident = ledger.now
    with torch.device("meta"), ledger, Device(ledger, dtype if mixed else None, mixed and cuda):
        loss = _forward(unet, unet_config, (side, side), tokens, pictures, dtype)
        kept = ledger.now - resident
        _backward(loss)
    trained = flat.weights.numel()
    frozen = resident - 8 * trained
    return Count(frozen, trained, 8 * trained, kept, ledger.peak, ledger.flops, ledger.operations, pictures)


@functools.lru_cache(maxsize=1)
def _of_shapes(wrapped: _Config, architecture: str) -> "tuple[nn.Module, FlatParameters, Ledger, bool]":
    """`_ready` on the meta device, for one count after the other: it takes longer than a step.

    With the ledger that knows all that stays, after a small pass: the first one lays the weights out (lora/stacked). At
    last whether autocast is used.
    """
    from ..lora.acceleration import is_short

    config, unet_config = wrapped.config, json.loads(architecture)
    dtype = DTYPES[config.mixed_precision or "no"]
    unet, flat = _ready(config, unet_config, dtype, torch.device("meta"))
    mixed, ledger = dtype != torch.float32 and not is_short(unet), Ledger()
    for tensor in (*unet.parameters(), *unet.buffers(), flat.weights, flat.gradient):
        ledger.add(tensor)
    with torch.no_grad(), torch.device("meta"), ledger, Device(ledger, dtype if mixed else None, False):
        _forward(unet, unet_config, (8, 8), 1, 1, dtype)
    return unet, flat, ledger, mixed


def time_step(
    config: TrainConfig, unet: dict[str, Any], scale: int, tokens: int, pictures: int, device: torch.device | str
) -> Timing:
    """One micro-batch really done on a device, with random weights: the second of two, which finds everything warm."""
    from ..lora.acceleration import is_short

    device = torch.device(device)
    dtype = DTYPES[config.mixed_precision or "no"]
    with torch.random.fork_rng(devices=[]):
        model, flat = _ready(config, unet, dtype, device)
    mixed = dtype != torch.float32 and not is_short(model)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    sides = (config.resolution // scale, config.resolution // scale)
    for _ in range(2):
        flat.zero_grad()
        begun = time.perf_counter()
        with device, torch.autocast(device.type, dtype, enabled=mixed):
            _forward(model, unet, sides, tokens, pictures, dtype).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begun
    return Timing(seconds, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None)


def cpu_rate() -> float:
    """FLOP/s of fp32 products on this CPU, from two of them."""
    left, right = torch.randn(512, 512), torch.randn(512, 512)
    left @ right
    begun = time.perf_counter()
    for _ in range(8):
        left @ right
    return 8 * 2 * 512**3 / (time.perf_counter() - begun)


def _ready(
    config: TrainConfig, architecture: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> "tuple[nn.Module, FlatParameters]":
    """(U-Net in training mode, flat weights) as training has them, on a device; small random weights on a real one."""
    from ..lora.acceleration import lay_out, make_ready, take_the_short_way
    from ..training.state.parameters import FlatParameters

    unet = _with_lora(config, architecture, dtype)
    if device.type != "meta":
        unet.to_empty(device=device)
        with torch.no_grad():
            for parameter in unet.parameters():
                parameter.normal_(std=0.02)
            for buffer in unet.buffers():  # codes and scales of stored layers
                buffer.zero_()
    flat = FlatParameters({"unet": unet.train()})
    make_ready(unet, config.replace(torch_compile=False), device, [])
    lay_out(unet, device)
    take_the_short_way(unet, flat, config)
    return unet, flat


def count_vae(
    vae: dict[str, Any], pixels: int, drawn: tuple[int, int], dtype: torch.dtype, tiled: bool = False
) -> tuple[int, int, int, int, int]:
    """(bytes of its weights, most that encoding one picture and decoding one take beside them, FLOPs of either).

    A square of so many `pixels` is encoded, a picture of the height and width `drawn` is decoded.
    """
    from ..models.loading import hushed, in_tiles

    with ALONE, hushed(), torch.device("meta"):
        from diffusers import AutoencoderKL

        model = AutoencoderKL.from_config(vae).to(dtype).requires_grad_(False).eval()
    if tiled:
        in_tiles(model)
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    ledgers = []
    latent = (vae.get("latent_channels", 4), drawn[0] // scale, drawn[1] // scale)
    for call, shape in ((model.encode, (3, pixels, pixels)), (model.decode, latent)):
        with torch.no_grad(), torch.device("meta"), Ledger() as ledger, Device(ledger, None, False):
            call(torch.empty(1, *shape, dtype=dtype))
        ledgers.append(ledger)
    return weights, ledgers[0].peak, ledgers[1].peak, ledgers[0].flops, ledgers[1].flops


def _backward(loss: torch.Tensor) -> None:
    """`loss.backward()`, which function modes would leave: what checkpointing computes again must see them too."""
    ones = (torch.ones_like(loss),)
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward((loss,), ones, False, False, (), allow_unreachable=True, accumulate_grad=True)


def _with_lora(config: TrainConfig, architecture: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    """The U-Net that training would use, on the meta device, with its LoRA layers in fp32."""
    from ..lora.acceleration import wants_ours
    from ..lora.adapter import add_lora
    from ..models.unet import SdxlUNet, covers

    with ALONE, torch.device("meta"), torch.random.fork_rng(devices=[]):  # peft draws; training's own must not move
        if wants_ours(config) and covers(architecture):
            unet = SdxlUNet(architecture)
        else:
            leave_out_xformers()
            from diffusers import UNet2DConditionModel

            unet = UNet2DConditionModel.from_config(architecture)
        unet.to(dtype).requires_grad_(False)
        store_all(unet, apart(config.base_precision, dtype))
        unet_only = config.replace(train_text_encoder=False) if config.train_text_encoder else config
        with _NoValues():
            add_lora(unet_only, unet)
    if dtype != torch.float32 and not config.use_dora:
        for module in unet.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = False  # type: ignore[assignment]  # peft's flag, as the studio has it
    return unet


def _forward(
    unet: nn.Module,
    architecture: dict[str, Any],
    sides: tuple[int, int],
    tokens: int,
    pictures: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """The loss of a batch of nothing, as studio.predict and the objective compute it."""
    ids = 6 * architecture["addition_time_embed_dim"]
    pooled = architecture["projection_class_embeddings_input_dim"] - ids
    latents = torch.empty(pictures, architecture["in_channels"], *sides)
    hidden = torch.empty(pictures, tokens, architecture["cross_attention_dim"], dtype=dtype)
    added = {"text_embeds": torch.empty(pictures, pooled, dtype=dtype), "time_ids": torch.empty(pictures, 6)}
    when = torch.zeros(pictures, dtype=torch.int64)
    predicted = unet(latents.to(dtype), when, hidden, added_cond_kwargs=added, return_dict=False)[0]
    return (predicted.float() - torch.empty_like(latents)).square().mean(dim=(1, 2, 3)).sum()
