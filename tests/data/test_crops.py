"""Crops and micro-conditioning against cases worked out by hand, and against resize-then-crop done the plain way."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdxl_nb.data.crops import INTERPOLATION, cover, plan_crop
from sdxl_nb.data.decoding import decode

# size, target, (u, v) or None for the centre -> resized, time ids; all (height, width)
BY_HAND = {
    "landscape, centre": ((600, 800), 512, None, (512, 683), (600, 800, 0, 85, 512, 512)),  # 800*512/600 = 682.67
    "portrait, centre": ((800, 600), 512, None, (683, 512), (800, 600, 85, 0, 512, 512)),
    "square, same size": ((64, 64), 64, None, (64, 64), (64, 64, 0, 0, 64, 64)),
    "enlarged": ((50, 100), 64, None, (64, 128), (50, 100, 0, 32, 64, 64)),
    "odd spare rounds down": ((64, 67), 64, None, (64, 67), (64, 67, 0, 1, 64, 64)),
    "random, first place": ((64, 164), 64, (0.0, 0.0), (64, 164), (64, 164, 0, 0, 64, 64)),
    "random, last place": ((64, 164), 64, (0.99, 0.9999), (64, 164), (64, 164, 0, 100, 64, 64)),
    "random, middle place": ((164, 64), 64, (0.5, 0.5), (164, 64), (164, 64, 50, 0, 64, 64)),
    "bucket, landscape": ((3024, 4032), (832, 1216), None, (912, 1216), (3024, 4032, 40, 0, 832, 1216)),
    "bucket, wider than picture": ((1000, 1000), (768, 1344), None, (1344, 1344), (1000, 1000, 288, 0, 768, 1344)),
    "bucket, portrait of landscape": ((480, 640), (96, 64), None, (96, 128), (480, 640, 0, 32, 96, 64)),
    "very wide": ((10, 10000), 64, None, (64, 64000), (10, 10000, 0, 31968, 64, 64)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_hand_computed(case):
    size, target, place, resized, time_ids = BY_HAND[case]
    u, v = place or (0.7, 0.7)
    crop = plan_crop(size, target, center_crop=place is None, u=u, v=v)
    assert (crop.resized, crop.time_ids) == (resized, time_ids)
    assert all(type(value) is int for value in crop.time_ids)


def numbered(height, width):
    """A picture whose red channel is the column and whose green channel is the row."""
    values = np.zeros((height, width, 3), np.uint8)
    values[..., 0], values[..., 1] = np.arange(width), np.arange(height)[:, None]
    return Image.fromarray(values)


def test_crop_coordinates_are_those_of_the_flipped_picture():
    picture = numbered(8, 20)
    crop = plan_crop((8, 20), 8, flip=True, v=0.25)  # 13 places: int(0.25 * 13) = 3
    assert crop.time_ids == (8, 20, 0, 3, 8, 8)
    columns = np.asarray(crop.picture(picture))[0, :, 0]
    assert columns.tolist() == [16, 15, 14, 13, 12, 11, 10, 9]  # column 3 of the mirrored picture is column 16
    plain = plan_crop((8, 20), 8, v=0.25)
    assert np.asarray(plain.picture(picture))[0, :, 0].tolist() == [3, 4, 5, 6, 7, 8, 9, 10]


def test_top_and_left_are_on_their_axes():
    crop = plan_crop((20, 8), 8, u=0.25)
    assert crop.time_ids == (20, 8, 3, 0, 8, 8)
    assert np.asarray(crop.picture(numbered(20, 8)))[:, 0, 1].tolist() == [3, 4, 5, 6, 7, 8, 9, 10]


def test_exif_rotation_comes_before_everything():
    stored = numbered(8, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned 90 degrees clockwise: 20 high, 8 wide
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    picture = decode(file.getvalue(), "turned.png")
    crop = plan_crop((picture.height, picture.width), 8, u=0.25)
    assert crop.time_ids == (20, 8, 3, 0, 8, 8)
    seen = np.asarray(crop.picture(picture))
    assert seen[:, 0, 0].tolist() == [3, 4, 5, 6, 7, 8, 9, 10]  # stored columns now run down
    assert seen[0, :, 1].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]  # stored rows run from right to left
    flipped = plan_crop((picture.height, picture.width), 8, u=0.25, flip=True)
    assert np.asarray(flipped.picture(picture))[0, :, 1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("interpolation", INTERPOLATION)
@pytest.mark.parametrize(("size", "target"), [((90, 131), (48, 48)), ((90, 131), (64, 40)), ((20, 31), (48, 56))])
def test_box_resize_is_resize_then_crop(interpolation, size, target):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    crop = plan_crop(size, target, u=0.6, v=0.6, flip=True, interpolation=interpolation)
    whole = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    whole = whole.resize(crop.resized[::-1], INTERPOLATION[interpolation])
    plain = whole.crop((crop.left, crop.top, crop.left + target[1], crop.top + target[0]))
    difference = np.abs(np.asarray(plain).astype(int) - np.asarray(crop.picture(picture)))
    if interpolation in ("nearest", "nearest_exact", "box"):  # ties may fall to the neighbouring pixel
        assert (difference.max(axis=2) > 0).mean() < 0.05
    else:
        assert difference.max() <= 1


def test_values_are_what_the_vae_wants():
    picture = Image.new("RGB", (6, 4), (0, 255, 51))
    values = plan_crop((4, 6), 4, center_crop=True).apply(picture)
    assert values.shape == (3, 4, 4) and values.dtype == np.float32 and values.flags.c_contiguous
    assert np.allclose(values[:, 0, 0], [-1, 1, -0.6])


def test_a_crop_of_another_picture_is_refused():
    with pytest.raises(ValueError, match=r"planned for \(4, 6\)"):
        plan_crop((4, 6), 4).apply(Image.new("RGB", (4, 6)))


SIDE = st.integers(1, 5000)


@given(SIDE, SIDE, st.integers(1, 300), st.integers(1, 300), st.floats(0, 1, exclude_max=True), st.booleans())
def test_every_crop_lies_inside(height, width, target_height, target_width, where, center):
    crop = plan_crop((height, width), (target_height, target_width), center, u=where, v=where)
    assert 0 <= crop.top <= crop.resized[0] - target_height and 0 <= crop.left <= crop.resized[1] - target_width
    assert crop.resized[0] == target_height or crop.resized[1] == target_width
    left, top, right, bottom = crop.box
    assert left >= 0 and top >= 0 and right <= width + 1e-6 and bottom <= height + 1e-6


@given(SIDE, SIDE)
def test_cover_is_symmetric(height, width):
    assert cover((height, width), (64, 64)) == cover((width, height), (64, 64))[::-1]
