"""Resize, flip and crop, and what SDXL is told about it (micro-conditioning, SDXL paper section 2.2).

Pure geometry in whole pixels, all sizes (height, width): plan_crop decides, Crop.apply does it, Crop.time_ids is
what the U-Net gets. Order: upright picture (EXIF) -> flip -> resize until it just covers the target -> crop. The
flip comes first so that the crop coordinates are those of the picture that the model sees.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

INTERPOLATION = {
    "nearest": Image.Resampling.NEAREST,
    "nearest_exact": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Crop:
    """One way to turn a picture of `original_size` into a training picture of `target_size`."""

    original_size: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int
    target_size: tuple[int, int]
    flip: bool = False
    interpolation: str = "lanczos"

    @property
    def time_ids(self) -> tuple[int, int, int, int, int, int]:
        """(original height, original width, crop top, crop left, target height, target width), whole pixels."""
        return (*self.original_size, self.top, self.left, *self.target_size)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The crop in pixels of the flipped, not yet resized picture: (left, top, right, bottom) as Pillow counts."""
        down, across = (old / new for old, new in zip(self.original_size, self.resized, strict=True))
        height, width = self.target_size
        return (self.left * across, self.top * down, (self.left + width) * across, (self.top + height) * down)

    def picture(self, picture: Image.Image) -> Image.Image:
        """The cropped RGB picture, from one of the original size or of half its sides, as very large ones are read.

        Resizing only the box gives the pixels of resize-then-crop, without its memory.
        """
        stored = (picture.height, picture.width)
        if stored not in (self.original_size, half(self.original_size)):
            raise ValueError(f"planned for {self.original_size}, got a picture of {stored}")
        if self.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        down, across = (there / true for there, true in zip(stored, self.original_size, strict=True))
        left, top, right, bottom = (place * by for place, by in zip(self.box, (across, down) * 2, strict=True))
        inside = (left, top, min(right, picture.width), min(bottom, picture.height))  # rounding may exceed by 1e-13
        return picture.resize(self.target_size[::-1], INTERPOLATION[self.interpolation], box=inside)

    def apply(self, picture: Image.Image) -> np.ndarray:
        """The cropped picture as a float32 array (3, height, width) in [-1, 1], as the VAE wants it."""
        values = np.asarray(self.picture(picture), dtype=np.float32) / 127.5 - 1.0
        return np.ascontiguousarray(values.transpose(2, 0, 1))


def plan_crop(
    size: tuple[int, int],
    resolution: int | tuple[int, int],
    center_crop: bool = False,
    flip: bool = False,
    u: float = 0.0,
    v: float = 0.0,
    interpolation: str = "lanczos",
) -> Crop:
    """The Crop of a picture of `size` (height, width, after EXIF rotation) to `resolution`: an int, or (height, width).

    Without center_crop, u and v in [0, 1) choose top and left, each possible place equally likely.
    """
    target = (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[1])
    resized = cover(size, target)
    spare_height, spare_width = resized[0] - target[0], resized[1] - target[1]
    if center_crop:
        top, left = spare_height // 2, spare_width // 2
    else:
        top, left = int(u * (spare_height + 1)), int(v * (spare_width + 1))
    return Crop((size[0], size[1]), resized, top, left, target, flip, interpolation)


def half(size: tuple[int, int]) -> tuple[int, int]:
    """Half of both sides, rounded up, as decoders have it."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def cover(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of (nearly) the same shape that covers `target`: one side equal, the other rounded to nearest.

    Whole-number arithmetic, so that no float rounding differs between machines.
    """
    (height, width), (target_height, target_width) = size, target
    if target_height * width >= target_width * height:
        return target_height, max(target_width, (2 * width * target_height + height) // (2 * height))
    return max(target_height, (2 * height * target_width + width) // (2 * width)), target_width
