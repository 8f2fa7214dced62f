"""The few parts of torchvision that diffusers' training script imports, on Pillow as torchvision itself does it.

torchvision's wheels cannot load beside a CPU build of torch. `install` puts these in its place for one process, so
that the script runs unmodified; what it computes is the same: resize, crop, flip, tensor, normalise.
"""

import random
import sys
import types
from collections.abc import Callable, Sequence
from enum import Enum
from importlib.machinery import ModuleSpec
from typing import Any


class InterpolationMode(Enum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class Resize:
    """The shorter side to `size`."""

    def __init__(self, size: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR):
        self.size, self.interpolation = size, interpolation

    def __call__(self, picture: Any) -> Any:
        from PIL import Image

        width, height = picture.size
        if min(width, height) == self.size:
            return picture
        short = min(width, height)
        size = (int(self.size * width / short), int(self.size * height / short))
        return picture.resize(size, Image.Resampling[self.interpolation.name])


class CenterCrop:
    def __init__(self, size: int):
        self.size = size

    def __call__(self, picture: Any) -> Any:
        top = round((picture.height - self.size) / 2.0)
        left = round((picture.width - self.size) / 2.0)
        return crop(picture, top, left, self.size, self.size)


class RandomCrop:
    def __init__(self, size: int):
        self.size = size

    @staticmethod
    def get_params(picture: Any, size: tuple[int, int]) -> tuple[int, int, int, int]:
        top = random.randint(0, picture.height - size[0])
        left = random.randint(0, picture.width - size[1])
        return top, left, *size


class RandomHorizontalFlip:
    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, picture: Any) -> Any:
        from PIL import Image

        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < self.p else picture


class ToTensor:
    def __call__(self, picture: Any) -> Any:
        import numpy as np
        import torch

        return torch.from_numpy(np.array(picture, copy=True)).permute(2, 0, 1).contiguous().float().div(255)


class Normalize:
    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = mean[0], std[0]

    def __call__(self, tensor: Any) -> Any:
        return (tensor - self.mean) / self.std


class Compose:
    def __init__(self, steps: Sequence[Callable[[Any], Any]]):
        self.steps = steps

    def __call__(self, value: Any) -> Any:
        for step in self.steps:
            value = step(value)
        return value


def crop(picture: Any, top: int, left: int, height: int, width: int) -> Any:
    return picture.crop((left, top, left + width, top + height))


def install() -> None:
    """Answer `import torchvision` with this module's parts."""
    modules = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
    modules["torchvision.transforms.functional"] = types.ModuleType("torchvision.transforms.functional")
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
    transforms = modules["torchvision.transforms"]
    parts = (InterpolationMode, Resize, CenterCrop, RandomCrop, RandomHorizontalFlip, ToTensor, Normalize, Compose)
    for part in parts:
        setattr(transforms, part.__name__, part)
    modules["torchvision.transforms.functional"].crop = crop
    modules["torchvision"].transforms = transforms
    transforms.functional = modules["torchvision.transforms.functional"]
    sys.modules.update(modules)
