"""Plain LoRA in a training step: the same sum as peft's layers, in a third of the operations.

    y = x W' + b + s (x A') B'        (LoRA, arXiv 2106.09685; peft's Linear and Conv2d)

In: a U-Net of models/unet.py that carries peft layers, and the flat vector of their weights
(training/state/parameters.py). Out: a `run` for its forward pass. Layers that share an input are one product (W and A
stacked); LoRA computes in the U-Net's dtype over the fp32 masters, cast once a step; the backward pass adds each
gradient where it belongs in one flat buffer, with no parameter-by-parameter bookkeeping. peft's layers stay what is
saved, and what draws pictures. Layers of one width, rank and scale are fewer products still (stacked/); those are
the attentions', in a base that is not stored in other numbers, and the frozen ones behind a feed-forward's gate.
Ideas: RunLoRA (arXiv 2312.03415), LoRAFusion (arXiv 2510.00206), sd-scripts pull request 1156.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn

from ..models import stored
from ..models.running import gated
from ..models.stored import Stored
from ..system.memory import trim
from .kinds.plain import ADAPTER
from .stacked.matrices import One, Several, alike, kind, texts
from .stacked.narrow import Narrowing
from .stacked.products import Multiple, Onto, Single
from .stacked.shifts import Shifts

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

    from ..models.unet import Attention, Resnet, SdxlUNet
    from ..training.state.parameters import FlatParameters

LARGE = 2**20  # bytes


class Up(NamedTuple):
    """B of one layer's LoRA, with B' (of a convolution B again), where its gradient goes, and the LoRA's scale."""

    weight: torch.Tensor
    weight_t: torch.Tensor
    grad: torch.Tensor
    scale: float


class Piece(NamedTuple):
    """One layer's part of a product: its rows of W, and of its LoRA what is its own (None where it has none).

    Where W is stored in other numbers (models/stored.py), `weight` are their codes, `scale` what belongs to them.
    """

    weight: torch.Tensor
    scale: torch.Tensor | None
    up: Up | None


class Product(NamedTuple):
    """Layers that share an input, stacked: `widths` are their outputs', `ranks` those of their LoRAs.

    `weight_t` and `down_t` are W' and A' of linear layers (of a convolution W and A again): on a small U-Net each view
    that is made in a step costs as much as its arithmetic. `options` are a convolution's stride, padding and dilation.
    Where W is stored in other numbers, `codes` are they, with their `scale`, and there is no W.
    """

    weight: torch.Tensor
    weight_t: torch.Tensor
    codes: torch.Tensor | None
    scale: torch.Tensor | None
    bias: torch.Tensor | None
    down: torch.Tensor
    down_t: torch.Tensor
    down_grad: torch.Tensor
    pieces: list[Piece]
    widths: list[int]
    ranks: list[int]
    options: tuple[Any, ...] = ()


def is_plain(unet: nn.Module) -> bool:
    """Whether every LoRA layer of the U-Net is plain: linear or convolution, no dropout, no DoRA, one adapter."""
    from .layers import lora_modules

    found = [module for _, module in lora_modules(unet)]
    return bool(found) and all(_is_plain(module) for module in found)


def _is_plain(module: "LoraLayer") -> bool:
    base = module.get_base_layer()
    return (
        hasattr(module, "lora_A")
        and isinstance(base, (nn.Linear, nn.Conv2d))
        and list(module.lora_A) == [ADAPTER]
        and isinstance(module.lora_dropout[ADAPTER], nn.Identity)
        and not module.lora_variant
        and not module.merged
        and not module.lora_bias.get(ADAPTER, False)
        and getattr(base, "groups", 1) == 1
        and getattr(base, "padding_mode", "zeros") == "zeros"
    )


class LoraFast:
    """See the module. `flat` is a FlatParameters that holds the U-Net's LoRA; its `weights.grad` gets the gradients.

    Without `stacks` every layer, or those that share an input, are computed by themselves: for comparison.
    """

    low: torch.Tensor  # from here on: what `begin` makes
    low_grad: torch.Tensor
    casts: bool

    def __init__(self, unet: "SdxlUNet", flat: "FlatParameters", stacks: bool = True):
        self.unet, self.flat, self.stacks = unet, flat, stacks
        self.products: dict[nn.Module, Product | None] = {}
        self.ones: dict[nn.Module, One | None] = {}
        self.several: dict[nn.Module, Several | None] = {}
        self.narrowing = Narrowing(stacks)
        self.texts: list[tuple[list[Attention], Several]] | None = None
        self.shifts: Shifts | None = None
        self.places: dict[int, int] = {}  # identity of a parameter: where it begins in the flat weights
        self.copies: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])  # to, from: before each forward pass

    def begin(self, prompt: torch.Tensor) -> "Pass":
        """Take the weights as they are now; before each forward pass, which is about this prompt."""
        if not self.places:
            self._lay_out()
        if self.copies[0]:
            torch._foreach_copy_(*self.copies)
        return Pass(self, _Begin.apply(self.flat.weights, self), prompt)  # type: ignore[no-untyped-call]  # no types

    def copy_in(self, places: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> None:
        """Copy weights of the LoRA to these places now and before each forward pass."""
        targets, sources = list(places), [weight.data for weight in weights]
        torch._foreach_copy_(targets, sources)
        self.copies[0].extend(targets)
        self.copies[1].extend(sources)

    def one(self, layer: nn.Module) -> One | None:
        """A layer's matrix, if it can have one; its weight becomes a view of it."""
        if layer not in self.ones:
            self.ones[layer] = One(self, layer) if self.stacks and kind(layer) else None
        return self.ones[layer]

    def many(self, layers: Sequence[nn.Module]) -> Several | None:
        """The matrix of layers that share an input, if they can have one."""
        if layers[0] not in self.several:
            self.several[layers[0]] = Several(self, layers) if self.stacks and alike(layers) else None
        return self.several[layers[0]]

    def over_text(self) -> "list[tuple[list[Attention], Several]]":
        """Attentions over the prompt, whose k and v are computed at once; not those that are computed again later."""
        if self.texts is None:
            found = texts(self.unet.attentions_over_text()) if self.stacks else ()
            self.texts = [(each, Several(self, [m for a in each for m in (a.to_k, a.to_v)])) for each in found]
        return self.texts

    def _lay_out(self) -> None:
        """The buffers that the products look into: the weights themselves in fp32, else copies in the U-Net's dtype."""
        weights, dtype = self.flat.weights, self.unet.dtype
        self.casts = dtype != weights.dtype
        self.low = torch.empty_like(weights, dtype=dtype) if self.casts else weights.data
        self.low_grad = torch.zeros_like(weights, dtype=dtype) if self.casts else cast(torch.Tensor, weights.grad)
        places = [0]
        for size in self.flat.sizes:
            places.append(places[-1] + size)
        self.places = {id(p): place for p, place in zip(self.flat.parameters, places, strict=False)}

    def over_time(self) -> Shifts:
        """What the residual blocks make of the timestep's embedding, all at once where they have no LoRA."""
        if self.shifts is None:
            self.shifts = Shifts(self.unet.resnets() if self.stacks else [])
        return self.shifts

    def product(self, layers: Sequence[nn.Module]) -> Product | None:
        """The Product of layers that share an input; None where none of them has a LoRA."""
        if layers[0] not in self.products:
            self.products[layers[0]] = self._product(cast("Sequence[LoraLayer]", layers))
        return self.products[layers[0]]

    def _product(self, layers: "Sequence[LoraLayer]") -> Product | None:
        if not any(hasattr(layer, "lora_A") for layer in layers):
            return None
        bases = [getattr(layer, "base_layer", layer) for layer in layers]
        loras = [layer for layer in layers if hasattr(layer, "lora_A")]
        weight, scale = _stacked(bases)
        codes = weight if isinstance(bases[0], Stored) else None
        widths = [base.out_channels if weight.ndim == 4 else base.out_features for base in bases]
        ranks = [layer.r[ADAPTER] if layer in loras else 0 for layer in layers]
        pieces: list[Piece] = []
        scales = [None] * len(layers) if scale is None else scale.split(widths)
        for layer, rank, rows, factor in zip(layers, ranks, weight.split(widths), scales, strict=True):
            pieces.append(Piece(rows, factor, self._up(layer) if rank else None))
        down, down_grad = self.places_of([layer.lora_A[ADAPTER] for layer in loras])
        options = (bases[0].stride, bases[0].padding, bases[0].dilation) if weight.ndim == 4 else ()
        weight_t, down_t = (weight, down) if options else (weight.t(), down.t())
        frozen = (weight, weight_t, codes, scale, bases[0].bias)
        return Product(*frozen, down, down_t, down_grad, pieces, widths, ranks, options)

    def _up(self, layer: "LoraLayer") -> Up:
        weight, grad = self.places_of([layer.lora_B[ADAPTER]])
        return Up(weight, weight.t() if weight.ndim == 2 else weight, grad, layer.scaling[ADAPTER])

    def places_of(self, modules: Sequence[nn.Linear | nn.Conv2d]) -> tuple[torch.Tensor, torch.Tensor]:
        """The stacked weights of some of peft's layers and their gradients, inside the flat buffers."""
        weights = [module.weight for module in modules]
        first, size = self.places[id(weights[0])], sum(w.numel() for w in weights)
        ends = [self.places[id(w)] + w.numel() for w in weights]
        if ends[-1] != first + size:
            raise ValueError("LoRA layers that share an input do not lie side by side in the flat weights")
        shape = (sum(w.shape[0] for w in weights), *weights[0].shape[1:])
        return self.low[first : first + size].view(shape), self.low_grad[first : first + size].view(shape)


class Pass:
    """One forward pass: the `run` of its layers."""

    def __init__(self, fast: LoraFast, token: torch.Tensor, prompt: torch.Tensor):
        self.fast, self.token = fast, token
        self.of_time: dict[nn.Module, torch.Tensor] | None = None
        self.of_text: dict[nn.Module, Sequence[torch.Tensor]] = {}
        for attentions, several in fast.over_text():
            made = Multiple.apply(prompt, token, several)  # type: ignore[no-untyped-call]  # torch says no types
            self.of_text |= {each: made[2 * at : 2 * at + 2] for at, each in enumerate(attentions)}

    def __call__(self, x: torch.Tensor, *layers: nn.Module) -> Sequence[torch.Tensor]:
        """The outputs of layers that share the input x."""
        product = self.fast.product(layers)
        if product is None:
            return [layer(x) for layer in layers]
        if product.options:
            return (_LoraConv.apply(x, self.token, product),)  # type: ignore[no-untyped-call]  # torch says no types
        outputs: tuple[torch.Tensor, ...] = _LoraLinear.apply(x, self.token, product)  # type: ignore[no-untyped-call]  # torch says no types
        return outputs

    def heads(self, x: torch.Tensor, *layers: nn.Module) -> Sequence[torch.Tensor]:
        """The same of an attention's projections, whose rows may lie apart in memory."""
        if len(layers) == 1 and alike(layers) and (one := self.fast.one(layers[0])):
            return (Single.apply(x, self.token, one),)  # type: ignore[no-untyped-call]  # torch says no types
        if len(layers) > 1 and (several := self.fast.many(layers)):
            outputs: tuple[torch.Tensor, ...] = Multiple.apply(x, self.token, several)  # type: ignore[no-untyped-call]  # torch says no types
            return outputs
        return self(x, *layers)

    def text(self, attention: "Attention", prompt: torch.Tensor) -> Sequence[torch.Tensor]:
        return self.of_text.get(attention) or self.heads(prompt, attention.to_k, attention.to_v)

    def onto(self, y: torch.Tensor, x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        if one := self.fast.one(layer):
            return cast(torch.Tensor, Onto.apply(y, x, self.token, one))  # type: ignore[no-untyped-call]  # no types
        return self(x, layer)[0] + y

    def narrowed(self, y: torch.Tensor, wide: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        """y and a layer's output for `gated` of what is wide, together."""
        narrow = None if torch.compiler.is_compiling() else self.fast.narrowing.of(layer)
        return self.onto(y, gated(wide), layer) if narrow is None else self.fast.narrowing(y, wide, narrow)

    def shifted(self, x: torch.Tensor, embedding: torch.Tensor, resnet: "Resnet") -> torch.Tensor:
        """The first convolution of a residual block, moved by what it makes of the timestep's embedding."""
        shifts = self.fast.over_time()
        if embedding.requires_grad or resnet not in shifts.widths:
            return self(x, resnet.conv1)[0] + self(embedding, resnet.time_emb_proj)[0][:, :, None, None]
        if self.of_time is None:
            self.of_time = shifts.of(embedding)
        return shifts.convolved(x, self.of_time[resnet], resnet)


def _stacked(layers: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One matrix of several frozen ones, which become views of it; of stored ones their codes, and their scales."""
    if not isinstance(layers[0], Stored):
        return _joined([layer.weight for layer in layers]), None
    codes = _joined([layer.codes for layer in layers])
    scales = [layer.scale for layer in layers]
    return codes, None if scales[0] is None else _joined(scales)


def _joined(owners: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(owners) == 1:
        return owners[0].data
    parts = [owner.data for owner in owners]
    bits = [part.view(torch.int8) if part.dtype == torch.float8_e4m3fn else part for part in parts]  # no cat for fp8
    dtype = parts[0].dtype
    whole = torch.cat(bits).view(dtype)
    del bits, parts
    for owner, rows in zip(owners, whole.split([len(owner) for owner in owners]), strict=True):
        owner.data = rows
    if whole.is_cpu and whole.nbytes > LARGE:
        trim()  # else what the parts took stays a hole: of SDXL a gigabyte
    return whole


class _Begin(torch.autograd.Function):
    """Casts the masters before the forward pass, and is the last to run in the backward: hands the gradient over.

    Its output, a token, goes into every product, whose backward passes write into the flat buffer.
    """

    @staticmethod
    def forward(ctx: Any, weights: torch.Tensor, fast: LoraFast) -> torch.Tensor:
        ctx.fast = fast
        if fast.casts:
            fast.low.copy_(weights)
            fast.low_grad.zero_()  # of a step that ran out of memory halfway
        return torch.zeros((), dtype=weights.dtype, device=weights.device)

    @staticmethod
    def backward(ctx: Any, _: Any) -> tuple[None, None]:
        fast = ctx.fast
        if fast.casts:  # else it is written into the gradient already
            fast.flat.gradient.add_(fast.low_grad)
            fast.low_grad.zero_()
        return None, None


class _LoraLinear(torch.autograd.Function):
    """A Product of linear layers: (..., in) -> one (..., out) for each."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, token: torch.Tensor, product: Product) -> tuple[torch.Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])
        if product.codes is not None:
            y = stored.linear(rows, product.codes, product.scale, product.bias)
        elif product.bias is None:
            y = torch.mm(rows, product.weight_t)
        else:
            y = torch.addmm(product.bias, rows, product.weight_t)
        low = torch.mm(rows, product.down_t)
        outs, lows = _parts(y, product.widths), _parts(low, product.ranks)
        for piece, out, part in zip(product.pieces, outs, lows, strict=True):
            if piece.up is not None:
                out.addmm_(part, piece.up.weight_t, alpha=piece.up.scale)
        ctx.save_for_backward(rows, low)
        ctx.product, ctx.shape = product, x.shape
        return tuple(out.view(*x.shape[:-1], width) for out, width in zip(outs, product.widths, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        rows, low = ctx.saved_tensors
        product, wanted, back, low_grad = ctx.product, ctx.needs_input_grad[0], None, torch.empty_like(low)
        parts = zip(product.pieces, grads, _parts(low, product.ranks), _parts(low_grad, product.ranks), strict=True)
        for piece, grad, part, part_grad in parts:
            grad = grad.reshape(-1, grad.shape[-1])
            if wanted and product.codes is not None:
                part_back = stored.linear_back(grad, piece.weight, piece.scale)
                back = part_back if back is None else back.add_(part_back)
            elif wanted:
                back = torch.mm(grad, piece.weight) if back is None else back.addmm_(grad, piece.weight)
            if piece.up is not None:
                piece.up.grad.addmm_(grad.t(), part, alpha=piece.up.scale)
                torch.addmm(part_grad, grad, piece.up.weight, beta=0, alpha=piece.up.scale, out=part_grad)
        product.down_grad.addmm_(low_grad.t(), rows)
        return None if back is None else back.addmm_(low_grad, product.down).view(ctx.shape), None, None


def _parts(whole: torch.Tensor, sizes: list[int]) -> Sequence[torch.Tensor]:
    """Views of the columns, so many each."""
    return (whole,) if len(sizes) == 1 else whole.split_with_sizes(sizes, dim=1)


class _LoraConv(torch.autograd.Function):
    """A Product of one convolution: A has its kernel, B is 1 x 1."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, token: torch.Tensor, product: Product) -> torch.Tensor:
        up = _only(product)
        low = F.conv2d(x, product.down, None, *product.options)
        if product.codes is not None:
            y = stored.conv(x, product.codes, product.scale, product.bias, product.options)
        else:
            y = F.conv2d(x, product.weight, product.bias, *product.options)
        ctx.save_for_backward(x, low)
        ctx.product = product
        return y.add_(F.conv2d(low, up.weight), alpha=up.scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        x, low = ctx.saved_tensors
        product, wanted = ctx.product, ctx.needs_input_grad[0]
        up = _only(product)
        low_grad, up_grad, _ = _conv_backward(grad, low, up.weight, ((1, 1), (0, 0), (1, 1)), (True, True, False))
        up.grad.add_(up_grad, alpha=up.scale)
        low_grad.mul_(up.scale)
        back, down_grad, _ = _conv_backward(low_grad, x, product.down, product.options, (wanted, True, False))
        product.down_grad.add_(down_grad)
        if wanted and product.codes is not None:
            back.add_(stored.conv_back(grad, x, product.codes, product.scale, product.options))
        elif wanted:
            back.add_(_conv_backward(grad, x, product.weight, product.options, (True, False, False))[0])
        return back, None, None


def _only(product: Product) -> Up:
    """What the one layer of a convolution's product has of a LoRA: without any it would be no product."""
    return cast(Up, product.pieces[0].up)


def _conv_backward(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, options: Any, mask: Any) -> Any:
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *options, False, (0, 0), 1, mask)
