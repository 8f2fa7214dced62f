"""Holes, and what an inpainting base sees of a picture that has one."""

import numpy as np
import torch

from sdxl_nb.models.inpainting import draw_hole, hollowed, inpaints, mask_of


def holes(count, height=24, width=40):
    return [draw_hole(height, width, np.random.default_rng(number)) for number in range(count)]


def test_a_quarter_hides_everything_and_the_rest_something_anywhere():
    drawn = holes(4000)
    whole = np.mean([hole.all() for hole in drawn])
    assert abs(whole - 0.25) < 4.5 * (0.25 * 0.75 / 4000) ** 0.5 + 0.01  # and a few rectangles as large
    assert all(hole.shape == (24, 40) and hole.dtype == bool for hole in drawn)
    often = np.mean([hole for hole in drawn if not hole.all()], axis=0)
    assert often.min() > 0 and abs(often - often[::-1, ::-1]).max() < 0.05  # no side is preferred


def test_holes_are_rectangles_and_ellipses():
    partly = [hole for hole in holes(400) if hole.any() and not hole.all()]
    boxes = []
    for hole in partly:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        boxes.append(hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean())
    assert {box == 1 for box in boxes} == {True, False}
    large = [box for box, hole in zip(boxes, partly, strict=True) if hole.sum() > 200 and box < 1]
    assert large and all(abs(box - np.pi / 4) < 0.06 for box in large)


def test_the_mask_is_torchs_nearest_and_the_hole_is_grey():
    for hole in holes(20):
        asked = torch.from_numpy(hole[None, None].astype(np.float32))
        assert torch.equal(
            torch.nn.functional.interpolate(asked, size=(3, 5)), torch.from_numpy(mask_of(hole, 8))[None]
        )
    pixels = np.full((3, 24, 40), 0.5, dtype=np.float32)
    left = hollowed(pixels, hole)
    assert left.dtype == np.float32 and (left[:, hole] == 0).all() and (left[:, ~hole] == 0.5).all()


def test_what_inpaints():
    assert inpaints({"in_channels": 9, "out_channels": 4}) and inpaints({"in_channels": 33, "out_channels": 16})
    assert not inpaints({"in_channels": 4, "out_channels": 4}) and not inpaints({"in_channels": 8}) and not inpaints({})
