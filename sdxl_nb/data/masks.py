"""The masks of pictures: where the loss of each counts, for --masked_loss.

In: CaptionedPictures, some of which have a mask: a file beside them, a cell of a table, or their own transparency, in
this rank. Out: Masks, which cuts one out as a Crop cuts its picture, at the resolution of the latents: (h, w) uint8,
255 where the loss counts whole. A mask may be of another size than its picture, but must have its shape. Pictures
without one, and those of the class, count wholly. What the loss makes of it, training/objective.py says.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..system.errors import DataError
from ..system.keys import key_of
from ..system.threads import ahead
from .crops import Crop
from .dataset import CaptionedPictures
from .decoding import TURNS, Fault, PictureError, loaded, opacity, open_header, orientation_of, upright_size

NONE, GIVEN, OWN = range(3)  # where a picture's mask comes from: nowhere, a file or cell, its transparency
WHITE = 255


class Facts(NamedTuple):
    """What is known of a picture's mask: where it comes from, what tells it from others, and why it cannot be used."""

    kind: int
    key: bytes = b""
    fault: Fault | None = None


class Masks:
    """Of each picture `kinds` (N,) says where its mask comes from; `faults` are masks that cannot be used."""

    def __init__(self, pictures: CaptionedPictures) -> None:
        self.pictures = pictures
        self.own = len(pictures) - pictures.class_pictures
        facts = list(ahead(self._facts, range(self.own)))
        self.kinds = np.full(len(pictures), NONE, np.uint8)
        self.kinds[: self.own] = [each.kind for each in facts]
        self.keys = [each.key for each in facts]
        self.faults = [each.fault for each in facts if each.fault]

    def _facts(self, index: int) -> Facts:
        pictures = self.pictures
        try:
            data = pictures.mask_bytes(index)
        except PictureError as error:
            return Facts(GIVEN, fault=Fault(pictures.names[index], str(error)))
        if data is not None:
            return Facts(GIVEN, key_of("mask", data), self._fault(index, data))
        if transparency(pictures.picture_bytes(index), pictures.names[index]) is not None:
            return Facts(OWN, key_of("transparency", pictures.identity(index)))
        return Facts(NONE)

    def _fault(self, index: int, data: bytes) -> Fault | None:
        """Why a mask file cannot be used, from its header and pixels."""
        name, picture = self.pictures.mask_name(index), self.pictures.names[index]
        try:
            read_mask(data, name)
            size, wanted = upright_size(data, name), self.pictures.size(index)
        except PictureError as error:
            return Fault(picture, str(error))
        if has_shape(size, wanted):
            return None
        told = f"{name} is {size[1]}x{size[0]}, another shape than its picture {picture} of {wanted[1]}x{wanted[0]}"
        return Fault(picture, f"{told}: save it in the picture's shape, or remove it.")

    def __str__(self) -> str:
        found, given = int((self.kinds > NONE).sum()), int((self.kinds == GIVEN).sum())
        own = f", {found - given} of them by their transparency" if found > given else ""
        rest = "" if found == self.own else "; the others are trained wholly"
        return f"{found} of {self.own} pictures have a mask{own}{rest}."

    def refuse_unusable(self) -> None:
        """Raise DataError where masks cannot be used, or where there is none at all."""
        if self.faults:
            more = f" ({len(self.faults) - 1} other masks cannot be used either)" if self.faults[1:] else ""
            raise DataError(self.faults[0].sentence.removesuffix(".") + f"{more}.")
        if not self.kinds.any():
            raise DataError(
                f"None of the {self.own} pictures has a mask: add NAME-masklabel.png beside NAME, files of the same "
                "names in a folder masks, a mask column or transparency, or drop --masked_loss."
            )

    def indices(self) -> Iterator[int]:
        """The pictures that have a mask."""
        yield from np.flatnonzero(self.kinds).tolist()

    def read(self, index: int) -> Image.Image:
        """The whole mask of a picture that has one, upright, as an L picture. Raises PictureError."""
        found = mask_of(self.pictures, index)
        if found is None:
            raise PictureError(f"{self.pictures.names[index]} has lost its mask since the run began: start again.")
        return found

    def cut(self, index: int, crop: Crop, scale: int) -> np.ndarray:
        """(h, w) uint8: the mask in this crop, `scale` pixels a latent; white where there is none."""
        if self.kinds[index] == NONE:
            return np.full((crop.target_size[0] // scale, crop.target_size[1] // scale), WHITE, np.uint8)
        return cut(self.read(index), crop, scale)


def mask_of(pictures: CaptionedPictures, index: int) -> Image.Image | None:
    """The whole mask of a picture, upright, as an L picture; None where it has none. Raises PictureError."""
    data = pictures.mask_bytes(index)
    if data is not None:
        return read_mask(data, pictures.mask_name(index))
    return transparency(pictures.picture_bytes(index), pictures.names[index])


def cut(mask: Image.Image, crop: Crop, scale: int) -> np.ndarray:
    """(h, w) uint8: an L mask of the picture's shape, in this crop; each value the mean of `scale` x `scale` pixels.

    sd-scripts' "area" and OneTrainer's scaling are that mean too. White alone stays 255 everywhere.
    """
    if crop.flip:
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    down, across = mask.height / crop.original_size[0], mask.width / crop.original_size[1]
    left, top, right, bottom = crop.box
    box = (left * across, top * down, min(right * across, mask.width), min(bottom * down, mask.height))
    height, width = crop.target_size
    return np.asarray(mask.resize((width // scale, height // scale), Image.Resampling.BOX, box=box))


def has_shape(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether a mask of (height, width) has the shape of a picture: as near as whole pixels of the smaller allow."""
    small, large = sorted((size, wanted))
    (height, width), (large_height, large_width) = small, large
    return abs(height * large_width - width * large_height) < max(large_height, large_width)


def read_mask(data: bytes, name: str) -> Image.Image:
    """An encoded mask as an upright L picture; what is transparent in it counts as black. Raises PictureError."""
    picture = loaded(open_header(data, name), name)
    return upright(grey(picture, name), orientation_of(picture, name))


def grey(picture: Image.Image, name: str) -> Image.Image:
    """A decoded mask of any of Pillow's modes as an L picture. Raises PictureError."""
    if picture.mode in ("F", "I"):
        raise PictureError(f"{name} has {picture.mode} pixels (32 bits a channel): save it as an 8-bit grey picture.")
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture).astype(np.uint32) // 257).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("L")
    layer = picture.convert("RGBA")
    return Image.composite(layer.convert("L"), Image.new("L", layer.size), layer.getchannel("A"))


def transparency(data: bytes, name: str) -> Image.Image | None:
    """How opaque an encoded picture is, as an upright L picture; None where it is wholly so. Raises PictureError."""
    picture = open_header(data, name)
    if not picture.has_transparency_data:
        return None
    found = opacity(loaded(picture, name))
    darkest = np.asarray(found).min()
    return upright(found, orientation_of(picture, name)) if darkest < WHITE else None


def upright(picture: Image.Image, turn: int) -> Image.Image:
    """The picture turned as EXIF's number says."""
    return picture.transpose(TURNS[turn]) if turn in TURNS else picture
