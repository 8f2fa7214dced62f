"""The U-Net of a pipeline while it draws: what does not change from step to step is computed once a picture.

In: a U-Net of unet.py, or diffusers' one that unet.py covers, with LoRAs or without. Out: the same U-Net, whose forward
pass within the block is unet.py's with a `run` of its own: k and v of the prompt and what sizes and pooled prompt add
are kept as long as the prompt is the same tensor; layers that share an input are a Joint. Pictures are the same up to
rounding. What this does not know (hooks, attention that is not SDPA, a compiled U-Net) draws as it did.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..lora.stacked.shifts import Shifts
from ..models.running import gated
from ..models.unet import SdxlUNet, covers
from .joint import Joint, base_of, is_changed

if TYPE_CHECKING:
    from ..models.unet import Attention, Resnet

# diffusers' U-Nets in the shape of ours, and the names of their layers
SHAPED: "WeakKeyDictionary[nn.Module, tuple[SdxlUNet, list[str]]]" = WeakKeyDictionary()


@contextmanager
def denoising(unet: nn.Module) -> Iterator[bool]:
    """Let a U-Net draw so within the block, as its LoRAs are when it begins; says whether it does."""
    ours = unet if isinstance(unet, SdxlUNet) else _in_our_shape(unet)
    if ours is None or unet.training or _looked_into(unet):
        yield False
        return
    ours.drawing = Drawing(ours)
    if ours is not unet:
        unet.forward = ours.forward
    try:
        yield True
    finally:
        ours.drawing = None
        if ours is not unet:
            del unet.forward


def _looked_into(unet: nn.Module) -> bool:
    """Whether hooks, other forward passes or a compiler want the modules to be called as they are."""
    own = isinstance(unet, SdxlUNet)  # of which no compiled block draws
    return "forward" in vars(unet) or any(
        "forward" in vars(part)
        or (not own and part._compiled_call_impl is not None)
        or (part is not unet and (part._forward_pre_hooks or part._forward_hooks))
        for part in unet.modules()
    )


def _in_our_shape(unet: Any) -> SdxlUNet | None:
    """A SdxlUNet whose layers are those of diffusers' U-Net, with the LoRAs that they carry."""
    if type(unet).__name__ != "UNet2DConditionModel" or not covers(unet.config) or not _attends_plainly(unet):
        return None
    if unet not in SHAPED:
        with torch.device("meta"):
            hollow = SdxlUNet(unet.config).eval()
        SHAPED[unet] = hollow, [name for name, part in hollow.named_modules() if part._parameters]
    ours, names = SHAPED[unet]
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(ours.get_submodule(parent), child, unet.get_submodule(name))
    return ours


def _attends_plainly(unet: Any) -> bool:
    """Whether every attention is SDPA over all of its tokens, and no skip is weighted (FreeU)."""
    kinds = {type(processor).__name__ for processor in unet.attn_processors.values()}
    weighted = any(getattr(block, "b1", None) is not None for block in unet.up_blocks)
    return kinds <= {"AttnProcessor2_0"} and not weighted


class Drawing:
    """The `run` of every forward pass of one drawing."""

    def __init__(self, unet: SdxlUNet):
        fast = unet.fast
        self.shifts = fast.over_time() if fast is not None and fast.stacks else Shifts(unet.resnets())
        self.joints: dict[nn.Module, Joint | None] = {}
        self.given: tuple[Any, ...] = ()
        self.texts: dict[nn.Module, Sequence[torch.Tensor]] = {}
        self.added: torch.Tensor | None = None
        self.of_time: dict[nn.Module, torch.Tensor] | None = None

    def begin(self, *given: torch.Tensor) -> "Drawing":
        """Before each forward pass, which is about this prompt, pooled prompt and these sizes."""
        known = tuple((tensor, 0 if tensor.is_inference() else tensor._version) for tensor in given)
        if len(self.given) != len(known) or any(
            old is not new or before != now for (old, before), (new, now) in zip(self.given, known, strict=True)
        ):
            self.given, self.added = known, None
            self.texts.clear()
        self.of_time = None
        return self

    def once(self, compute: Callable[..., torch.Tensor], added: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What sizes and pooled prompt add to the embedding of the timestep."""
        if self.added is None:
            self.added = compute(added, self)
        return self.added

    def _joint(self, layers: Sequence[nn.Module]) -> Joint | None:
        """What computes layers that share an input; None where one of them is another kind."""
        if layers[0] not in self.joints:
            bases = [base_of(layer) for layer in layers]
            one = len({(base is None, base is not None and base.bias is None) for base in bases}) == 1
            self.joints[layers[0]] = Joint(layers) if one and bases[0] is not None else None
        return self.joints[layers[0]]

    def __call__(self, x: torch.Tensor, *layers: nn.Module) -> Sequence[torch.Tensor]:
        """The outputs of layers that share the input x."""
        if len(layers) == 1 and not is_changed(layers[0]):
            return [layers[0](x)]
        joint = self._joint(layers)
        return [layer(x) for layer in layers] if joint is None else joint(x)

    heads = __call__

    def text(self, attention: "Attention", prompt: torch.Tensor) -> Sequence[torch.Tensor]:
        """k and v of an attention over the prompt."""
        if attention not in self.texts:
            self.texts[attention] = self(prompt, attention.to_k, attention.to_v)
        return self.texts[attention]

    def onto(self, y: torch.Tensor, x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        """y and the output of a layer together."""
        joint = self._joint([layer])
        return cast(torch.Tensor, layer(x) + y) if joint is None else joint.onto(y, x)

    def narrowed(self, y: torch.Tensor, wide: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        """y and a layer's output for `gated` of what is wide, together."""
        return self.onto(y, gated(wide), layer)

    def shifted(self, x: torch.Tensor, embedding: torch.Tensor, resnet: "Resnet") -> torch.Tensor:
        """The first convolution of a residual block, moved by what it makes of the timestep's embedding."""
        if resnet not in self.shifts.widths:
            return cast(torch.Tensor, resnet.conv1(x) + self(embedding, resnet.time_emb_proj)[0][:, :, None, None])
        if self.of_time is None:
            self.of_time = self.shifts.of(embedding)
        return self.shifts.convolved(x, self.of_time[resnet], resnet)
