"""TIFFs by tifffile that Pillow opens otherwise than they are meant."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile

from sdxl_nb.data.decoding import PictureError, decode, upright_size

GREY = np.array([[0, 51, 204, 255]], np.uint8)
RGB = np.array([[[200, 100, 50], [30, 160, 90]], [[60, 70, 220], [240, 240, 20]]], np.uint8)


def written(*pages: tuple[np.ndarray, dict[str, Any]], **how: Any) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **how) as writer:
        for values, options in pages:
            writer.write(values, metadata=None, **options)
    return file.getvalue()


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of a tag that is one SHORT."""
    at = data.index(tag.to_bytes(2, "little") + bytes([3, 0, 1, 0, 0, 0])) + 8
    return data[:at] + value.to_bytes(2, "little") + data[at + 2 :]


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 1}, {"compression": "zlib"}])
def test_planes_of_16_bits(byteorder, options):
    """Of an unpacked plane Pillow takes each byte for a pixel, so that half a row filled the whole one."""
    planes = np.moveaxis(RGB.astype(np.uint16) * 257, 2, 0).copy()
    data = written((planes, {"photometric": "rgb", "planarconfig": "separate", **options}), byteorder=byteorder)
    np.testing.assert_array_equal(np.asarray(decode(data, "x")), RGB)


def test_grey_of_12_bits_has_its_own_white():
    """tifffile packs 12 bits with another library's help; here 0, 51, 204 and 255 times 4095 / 255."""
    wide = np.array([[1, 2, 3, 4]], np.uint16)
    data = with_tag(written((wide, {"photometric": "minisblack"})), 258, 12)
    data = data.replace(wide.tobytes(), bytes.fromhex("000333 cccfff 0000"))
    np.testing.assert_array_equal(np.asarray(decode(data, "x"))[..., 0], GREY)


def test_grey_multiplied_with_its_alpha():
    values = np.array([[[100, 255], [50, 128]]], np.uint8)
    data = written((values, {"photometric": "minisblack", "extrasamples": ["assocalpha"]}))
    assert np.asarray(decode(data, "x"))[0, :, 0].tolist() == [100, 177]  # 50 / 128 is 99 of 255, half of it on white


@pytest.mark.parametrize(
    ("first", "meant"),
    [({"subfiletype": 1}, 1), ({"extratags": [(255, "H", 1, 2, True)]}, 1), ({"subfiletype": 2}, 0), ({}, 0)],
)
def test_a_small_copy_before_the_picture_is_passed_over(first, meant):
    """subfiletype 2 is a page of several, and the first of those is meant."""
    data = written((RGB[:1, :1], {"photometric": "rgb", **first}), (RGB, {"photometric": "rgb"}))
    assert upright_size(data, "x") == decode(data, "x").size == ((2, 2) if meant else (1, 1))


def test_a_file_of_small_copies_alone_is_its_first():
    data = written(*[(RGB[:size, :1], {"photometric": "rgb", "subfiletype": 1}) for size in (1, 2)])
    assert decode(data, "x").size == (1, 1)


@pytest.mark.parametrize(
    ("kind", "said"), [(np.int8, "signed numbers"), (np.int16, "signed numbers"), (np.uint32, "32 bits a channel")]
)
def test_numbers_of_no_known_white_are_refused(kind, said):
    with pytest.raises(PictureError, match=f"^x has {said}, of which nobody can tell black and white: save it with"):
        decode(written((GREY.astype(kind), {"photometric": "minisblack"})), "x")


def planes_of_grey_and_alpha() -> bytes:
    how = {"photometric": "minisblack", "planarconfig": "separate", "extrasamples": ["unassalpha"]}
    return written((np.stack([GREY, GREY]), how))


def packed_by_webp() -> bytes:
    """A TIFF of compression 50001, which Pillow's libtiff lacks; its one strip need not be read for that."""
    return with_tag(written((RGB, {"photometric": "rgb"})), 259, 50001)


@pytest.mark.parametrize(("made", "packed"), [(planes_of_grey_and_alpha, "raw"), (packed_by_webp, "webp")])
def test_a_whole_file_that_pillow_lacks_a_way_for_is_not_called_damaged_alone(
    made: Callable[[], bytes], packed: str, capfd
):
    with pytest.raises(PictureError) as caught:
        decode(made(), "x.tif")
    assert str(caught.value) == (
        f"x.tif is damaged, or packed in a way that cannot be read ({packed}): save it as PNG."
    )
    capfd.readouterr()  # libtiff says so too
