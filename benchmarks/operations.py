"""What one eager training step of full-size SDXL asks of a GPU, counted on the meta device: no GPU, no weights.

    python -m benchmarks.operations          a table: operations, bytes moved, activations kept, TFLOP

The rule: an operation that torch dispatches counts one, unless it only makes a view or claims memory; its bytes are
those of the tensors it is given and returns; attention is one operation each way, as a fused kernel is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sdxl_nb.models.architectures import UNET

FREE = {"alias", "detach", "empty", "empty_like", "empty_strided", "is_same_size", "lift_fresh", "new_empty"}
FREE |= {"resize_", "scalar_tensor", "t", "_unsafe_view"}
TOKENS, PIXELS = 77, 1024


class Step(NamedTuple):
    """Operations dispatched, GB moved, GB of activations between forward and backward; TFLOP without attention."""

    operations: int
    moved: float
    kept: float
    tflop: float


class _Tally(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = self.bytes = 0

    def add(self, *tensors: Any) -> None:
        self.operations += 1
        self.bytes += sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returned = func._schema.returns
        alias = returned[0].alias_info if returned else None
        if func._overloadpacket.__name__ not in FREE and (alias is None or alias.is_write):
            self.add(*tree_leaves((args, kwargs, result)))
        return result


@contextmanager
def tally() -> Iterator[_Tally]:
    """Count what is dispatched inside; attention is replaced by one operation each way that computes nothing."""
    counted = _Tally()

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            with torch._C._DisableTorchDispatch():
                mixed = torch.empty_like(q)
                ctx.save_for_backward(q, k, v, mixed)
            counted.add(q, k, v, mixed)
            return mixed

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
            q, k, v, mixed = ctx.saved_tensors
            counted.add(q, k, v, mixed, grad, q, k, v)
            return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)

    kept, F.scaled_dot_product_attention = F.scaled_dot_product_attention, lambda q, k, v, **_: Attention.apply(q, k, v)
    try:
        with counted:
            yield counted
    finally:
        F.scaled_dot_product_attention = kept


@contextmanager
def activations(model: torch.nn.Module) -> Iterator[dict[int, Any]]:
    """The storages that autograd keeps for the backward pass of what runs inside, apart from the model's own."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    found: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def full_size(rank: int = 16, dtype: torch.dtype = torch.bfloat16) -> tuple[Any, Any, Any]:
    """SDXL's U-Net without weights, with attention LoRA, its flat fp32 weights and AdamW on them."""
    from peft import LoraConfig, inject_adapter_in_model

    from sdxl_nb.lora.fast import LoraFast
    from sdxl_nb.lora.targets import ATTENTION
    from sdxl_nb.models.unet import SdxlUNet
    from sdxl_nb.training.state.parameters import FlatParameters

    with torch.device("meta"):
        unet = SdxlUNet(UNET).to(dtype).requires_grad_(False).train()
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION), unet)
        for parameter in unet.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        flat = FlatParameters({"unet": unet})
    unet.fast = LoraFast(unet, flat)
    return unet, flat, torch.optim.AdamW([flat.weights], foreach=False)


def inputs(pixels: int = PIXELS, batch: int = 1, dtype: torch.dtype = torch.bfloat16, device: str = "meta") -> Any:
    """What the U-Net is called with: latents, timesteps, prompt, pooled prompt and time ids."""
    with torch.device(device):
        latents = torch.randn(batch, 4, pixels // 8, pixels // 8, dtype=dtype)
        prompt = torch.randn(batch, TOKENS, UNET["cross_attention_dim"], dtype=dtype)
        added = {
            "text_embeds": torch.randn(batch, 1280, dtype=dtype),
            "time_ids": torch.full((batch, 6), float(pixels)),
        }
        return (latents, torch.full((batch,), 500), prompt), {"added_cond_kwargs": added}


def count(policy: str | None = None, rank: int = 16, pixels: int = PIXELS) -> Step:
    """One training step: forward, loss in fp32, backward, clipping, AdamW (fused: one operation, unknown to meta)."""
    unet, flat, _ = full_size(rank)
    if policy:
        unet.enable_gradient_checkpointing(policy)
    given, named = inputs(pixels)

    def loss() -> torch.Tensor:
        return unet(*given, **named).sample.float().square().mean()

    with tally():  # the first step lays the flat buffers out
        loss().backward()
    with tally() as counted:
        flat.zero_grad()
        with activations(unet) as kept:
            result = loss()
        result.backward()
        flat.clip(1.0)
        counted.add(*[flat.weights] * 4, *[flat.weights] * 3)  # weights, gradient, two moments; three come back
    with tally(), FlopCounterMode(display=False) as flops:
        loss().backward()
    storages = sum(storage.nbytes() for storage in kept.values())
    return Step(counted.operations, counted.bytes / 1e9, storages / 1e9, flops.get_total_flops() / 1e12)


if __name__ == "__main__":
    print(
        "| gradient checkpointing | operations | GB moved | GB kept | TFLOP, attention apart |\n|---|---|---|---|---|"
    )
    for policy in (None, "selective", "whole"):
        step = count(policy)
        print(f"| {policy or 'off'} | {step.operations:,} | {step.moved:.1f} | {step.kept:.2f} | {step.tflop:.2f} |")
