"""LoHa and LoKr layers: a weight's change as other products than LoRA's, named as by LyCORIS.

    delta W = s (W1a W1b) * (W2a W2b)       LoHa (FedPara, arXiv 2108.06098), elementwise; or by Tucker
    delta W = s W1 (x) W2                   LoKr (arXiv 2212.10650), Kronecker; each whole, or a product of two

s is alpha / rank as in LoRA, and 1 for a LoKr whose factors are both whole, whatever its alpha says: so LyCORIS trains
and ComfyUI draws. In: tensors by part, alpha. Out: a `Factored`, which stands beside `layers.Layer`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch

PARTS = {
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    "lokr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
}
WORDS = {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr"}
Parts = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Factored:
    """One module's LoHa or LoKr: `parts` by LyCORIS' names, in fp32, with its alpha."""

    parts: Parts
    alpha: float
    dora_scale: ClassVar[None] = None  # LyCORIS can, peft's layers cannot

    @property
    def algo(self) -> str:
        """loha or lokr."""
        return "loha" if "hada_w1_a" in self.parts else "lokr"

    @property
    def rank(self) -> int:
        """The rank of what is decomposed; of a LoKr whose factors are both whole, the largest it could have."""
        for name in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if name in self.parts:
                return self.parts[name].shape[0]
        return min(self.outputs, self.columns)

    @property
    def decomposed(self) -> bool:
        """Whether there is a rank, which alpha is divided by."""
        return "lokr_w1" not in self.parts or "lokr_w2" not in self.parts

    @property
    def scale(self) -> float:
        return self.alpha / self.rank if self.decomposed else 1.0

    @property
    def outputs(self) -> int:
        """Rows of the change."""
        return _loha_sides(self.parts)[0] if self.algo == "loha" else _lokr_sides(self.parts)[0]

    @property
    def columns(self) -> int:
        """Inputs of the change times the places of a convolution's kernel."""
        return _loha_sides(self.parts)[1] if self.algo == "loha" else _lokr_sides(self.parts)[1]

    def scaled(self, factor: float) -> "Factored":
        """The same with its change times `factor`."""
        if self.decomposed:
            return replace(self, alpha=self.alpha * factor)
        return replace(self, parts={**self.parts, "lokr_w1": self.parts["lokr_w1"] * factor})

    def change(self) -> torch.Tensor:
        """delta W at strength 1: (out, in) or (out, in, h, w), or what a convolution's has flattened, (out, in h w)."""
        return (_loha(self.parts) if self.algo == "loha" else _lokr(self.parts)) * self.scale


def has_rank(layer: object) -> bool:
    """Whether a layer, of any kind, has a rank: a LoKr of two whole factors has none."""
    return not isinstance(layer, Factored) or layer.decomposed


def is_whole(parts: Parts) -> bool:
    """Whether these parts, by their names and shapes, are all that one layer's change is made of."""
    return _is_whole(tuple((name, tuple(tensor.shape)) for name, tensor in parts.items()))


@lru_cache(maxsize=1024)  # hundreds of layers have the same few shapes
def _is_whole(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> bool:
    try:
        one = Factored({name: torch.empty(shape, device="meta") for name, shape in shapes}, 1.0)
        made = one.change()
        return one.rank > 0 and (made.shape[0], made[0].numel()) == (one.outputs, one.columns)
    except (KeyError, IndexError, RuntimeError, ZeroDivisionError, ValueError):
        return False


def _loha(parts: Parts) -> torch.Tensor:
    factors = [
        _tucker(parts[f"hada_t{n}"], parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"])
        if "hada_t1" in parts
        else parts[f"hada_w{n}_a"] @ parts[f"hada_w{n}_b"]
        for n in (1, 2)
    ]
    return factors[0] * factors[1]


def _lokr(parts: Parts) -> torch.Tensor:
    first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    if "lokr_w2" in parts:
        second = parts["lokr_w2"]
    elif "lokr_t2" in parts:
        second = _tucker(parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    else:
        second = parts["lokr_w2_a"] @ parts["lokr_w2_b"]
    return torch.kron(first[..., None, None] if second.ndim == 4 else first, second.contiguous())


def _tucker(inner: torch.Tensor, out: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """A convolution's weight of its Tucker parts: (r, r, h, w), (r, out), (r, in) -> (out, in, h, w)."""
    return torch.einsum("ijkl,ip,jr->prkl", inner, out, inputs)


def _loha_sides(parts: Parts) -> tuple[int, int]:
    a, b = parts["hada_w1_a"].shape, parts["hada_w1_b"].shape
    if "hada_t1" in parts:
        return a[1], b[1] * parts["hada_t1"].shape[2:].numel()
    return a[0], b[1]


def _lokr_sides(parts: Parts) -> tuple[int, int]:
    first = tuple(parts["lokr_w1"].shape) if "lokr_w1" in parts else _ends(parts, "lokr_w1")
    if "lokr_w2" in parts:
        whole = parts["lokr_w2"].shape
        second = (whole[0], whole[1:].numel())
    elif "lokr_t2" in parts:
        sides = parts["lokr_w2_a"].shape[1], parts["lokr_w2_b"].shape[1]
        second = (sides[0], sides[1] * parts["lokr_t2"].shape[2:].numel())
    else:
        second = _ends(parts, "lokr_w2")
    return first[0] * second[0], first[1] * second[1]


def _ends(parts: Parts, name: str) -> tuple[int, int]:
    return parts[f"{name}_a"].shape[0], parts[f"{name}_b"].shape[1]
