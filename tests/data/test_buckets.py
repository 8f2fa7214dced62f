"""Aspect-ratio buckets: the shapes, what they keep of ten thousand sizes, and epochs drawn from them."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data import buckets
from sdxl_nb.data.buckets import choose, ladder, nearest, plan, square
from sdxl_nb.data.crops import plan_crop
from sdxl_nb.data.sampling import Stream, share
from sdxl_nb.system.errors import ConfigError


def ten_thousand():
    """Sides log-uniform in 256 to 4096, at most three times as long as wide."""
    rng, sizes = np.random.default_rng(0), np.empty((0, 2), int)
    while len(sizes) < 10_000:
        drawn = np.exp(rng.uniform(np.log(256), np.log(4096), (10_000, 2))).round().astype(int)
        sizes = np.concatenate([sizes, drawn[drawn.max(axis=1) <= 3 * drawn.min(axis=1)]])
    return sizes[:10_000]


SIZES = ten_thousand()
PLAN = plan(SIZES, 1024)


def assert_is_what_the_crops_do(sizes, planned):
    """kept and upscaled against the crop of every picture."""
    for index, (height, width) in enumerate(sizes.tolist()):
        crop = plan_crop((height, width), planned.shape(index), center_crop=True)
        area = crop.target_size[0] * crop.target_size[1]
        assert planned.kept[index] == pytest.approx(area / (crop.resized[0] * crop.resized[1]), rel=1e-6)
        enlarged = max(1, min(crop.resized[0] / height, crop.resized[1] / width))
        assert planned.upscaled[index] == pytest.approx(enlarged, rel=2e-3)  # a side is rounded to whole pixels
        if planned.upscaled[index] == 1:
            assert crop.resized[0] <= height and crop.resized[1] <= width


def test_ten_thousand_sizes_keep_their_area():
    assert PLAN.kept.mean() >= 0.92
    assert PLAN.kept.min() > 0.85
    assert sum(PLAN.counts()) == 10_000 and min(PLAN.counts()) >= 16
    assert_is_what_the_crops_do(SIZES[::7], plan(SIZES[::7], 1024))


def test_no_shape_exceeds_the_area_of_the_square_and_all_sides_are_multiples():
    shapes = np.array(PLAN.shapes)
    assert len(shapes) > 10 and (shapes % 64 == 0).all()
    areas = shapes.prod(axis=1)
    assert (areas <= 1024**2).all() and (areas >= 0.95 * 1024**2).all()
    assert (shapes.max(axis=1) <= 4 * shapes.min(axis=1)).all()


def test_what_is_enlarged_is_what_is_smaller_than_its_shape():
    targets = np.array(PLAN.shapes)[PLAN.assignment]
    assert ((PLAN.upscaled > 1) == (targets > SIZES).any(axis=1)).all()
    assert PLAN.upscaled.max() == pytest.approx((targets / SIZES).max(), rel=1e-6)


def test_without_upscaling_nothing_is_enlarged():
    own = plan(SIZES, 1024, no_upscale=True)
    assert own.upscaled.max() == 1 and own.kept.mean() >= 0.92
    large = PLAN.upscaled == 1
    assert np.array_equal(np.array(own.shapes)[own.assignment][large], np.array(PLAN.shapes)[PLAN.assignment][large])
    assert_is_what_the_crops_do(SIZES[:500], plan(SIZES[:500], 1024, 64, no_upscale=True))
    tiny = plan([(40, 300), (70, 90)], 1024, 64, no_upscale=True)  # below one step a side is enlarged to it
    assert tiny.shapes == [(64, 256), (64, 64)] and tiny.upscaled.tolist() == pytest.approx([1.6, 1])


@pytest.mark.parametrize(
    ("resolution", "step", "shapes"),
    [
        (64, 16, [(32, 128), (48, 80), (64, 64), (80, 48), (128, 32)]),
        (256, 64, [(128, 512), (192, 320), (256, 256), (320, 192), (512, 128)]),
        (32, 32, [(32, 32)]),
    ],
)  # fmt: skip
def test_ladder(resolution, step, shapes):
    assert [tuple(shape) for shape in ladder(resolution, step).tolist()] == shapes


def test_a_step_that_does_not_divide_the_resolution_gives_way():
    assert plan([(100, 100)], 1000, 64).shapes == [(1000, 1000)]
    assert plan([(100, 300)], 32, 64).shapes == [(32, 32)]


def test_squares_get_the_one_square():
    same = plan([(500, 500)] * 9, 512, 64)
    assert (same.shapes, same.counts(), same.assignment.tolist()) == ([(512, 512)], [9], [0] * 9)


def test_a_single_picture_gets_a_bucket_of_its_own_only_when_much_would_be_lost():
    sizes = [(1000, 1000)] * 40
    assert plan([*sizes, (1080, 1000)], 1024).counts() == [41]
    assert plan([*sizes, (1080, 1000), (500, 1500)], 1024).counts() == [1, 41]
    assert plan([*sizes, *[(1080, 1000)] * 9], 1024).counts() == [40, 9]


def test_twenty_pictures_keep_their_area_in_few_shapes():
    for first in range(0, 1000, 20):
        small = plan(SIZES[first : first + 20], 1024)
        assert len(small.shapes) <= 9 and small.kept.mean() > 0.9


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=12))
def test_the_chosen_shapes_cost_least(sizes):
    sizes, shapes = np.array(sizes), ladder(64, 16)

    def cost(chosen):
        ratios = (chosen[:, 0] / chosen[:, 1])[nearest(sizes, chosen)]
        aspect = sizes[:, 0] / sizes[:, 1]
        return (1 - np.minimum(ratios / aspect, aspect / ratios)).sum() + len(chosen) * buckets.PRICE

    subsets = ([bool(bits >> n & 1) for n in range(len(shapes))] for bits in range(1, 2 ** len(shapes)))
    assert cost(choose(sizes, shapes)) == pytest.approx(min(cost(shapes[subset]) for subset in subsets))


@pytest.mark.parametrize("no_upscale", [False, True])
def test_pictures_that_are_held_out_change_no_shape_of_the_others(no_upscale):
    own = plan(SIZES[:20], 1024, no_upscale=no_upscale)
    both = plan(SIZES[:2000], 1024, no_upscale=no_upscale, planned=20)
    assert [own.shape(index) for index in range(20)] == [both.shape(index) for index in range(20)]
    assert [own.shape(i) for i in range(20)] != [plan(SIZES[:2000], 1024).shape(i) for i in range(20)]
    assert no_upscale or set(both.shapes) == set(own.shapes)


def test_off_is_the_square_of_the_script_and_is_reported_too():
    off = square([(600, 800), (64, 64)], 512)
    assert off.shapes == [(512, 512)]
    assert off.kept.tolist() == pytest.approx([512 / 683, 1]) and off.upscaled.tolist() == [1, 8]


def test_the_config_says_which():
    sizes = [(600, 800)] * 3
    assert buckets.of(TrainConfig(), sizes).shapes == [(896, 1152)]
    assert buckets.of(TrainConfig(bucket_no_upscale=True), sizes).shapes == [(576, 768)]
    for off in ({"center_crop": True}, {"aspect_ratio_buckets": False}):
        assert buckets.of(TrainConfig(**off), sizes).shapes == [(1024, 1024)]
    both = TrainConfig(center_crop=True, aspect_ratio_buckets=True, bucket_reso_steps=16, resolution=64)
    assert buckets.of(both, sizes).shapes == [(48, 80)]


def test_a_step_that_latents_cannot_have():
    with pytest.raises(ConfigError, match="bucket_reso_steps must be a multiple of 8, not 12"):
        TrainConfig(bucket_reso_steps=12)


def test_summary_in_one_sentence():
    line = plan([(600, 800)] * 3 + [(2000, 1000)], 1024, 64).summary()
    assert line == (
        "Pictures by size (width x height): 3 at 1152x896, 1 at 704x1472; 3.8 % of their area is cropped away, "
        "3 are enlarged, at most 1.5 times."
    )
    assert PLAN.summary().endswith(f", {(PLAN.upscaled > 1).sum()} are enlarged, at most 4.0 times.")
    assert f"at {len(PLAN.shapes) - 1} other sizes;" in PLAN.summary(most=1)


# Epochs drawn from buckets.


def epoch_of(stream, epoch, processes=1):
    """Pictures of each step of an epoch, by rank."""
    steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
    return [
        [stream.pictures(share(stream.positions(step), rank, processes)) for rank in range(processes)] for step in steps
    ]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_each_picture_exactly_once_an_epoch(processes):
    stream = Stream(10_000, 6 * processes, 3, groups=PLAN.assignment)
    for epoch in (0, 1):
        steps = epoch_of(stream, epoch, processes)
        assert len(steps) == stream.steps_per_epoch == -(-10_000 // (6 * processes))
        seen = np.array([picture for step in steps for rank in step for picture in rank])
        assert np.array_equal(np.sort(seen), np.arange(10_000))
        mixed = [step for step in steps if len({int(PLAN.assignment[p]) for rank in step for p in rank}) > 1]
        assert len(mixed) <= len(PLAN.shapes)  # all others are of one bucket
        assert all(len(rank) <= 6 for step in steps for rank in step)


def test_ranks_that_run_out_get_nothing_and_the_others_all_that_is_left():
    stream = Stream(9, 8, 0, groups=np.array([0] * 5 + [1] * 4))
    last = epoch_of(stream, 0, processes=4)[-1]
    assert [len(rank) for rank in last] == [1, 0, 0, 0]


def test_leftovers_share_batches_equal_shapes_side_by_side():
    groups = np.array([0] * 5 + [1] * 6 + [2] * 7)
    stream = Stream(18, 4, 1, groups=groups)
    for epoch in range(20):
        steps = [step[0] for step in epoch_of(stream, epoch)]
        assert [len(step) for step in steps] == [4, 4, 4, 4, 2]
        kinds = [[int(groups[picture]) for picture in step] for step in steps]
        assert sum(len(set(kind)) == 1 for kind in kinds[:-1]) >= 2  # the short one is of any
        assert all(sum(a != b for a, b in pairwise(kind)) == len(set(kind)) - 1 for kind in kinds)


def test_the_last_short_batch_is_not_always_of_the_same_bucket():
    groups = np.repeat([0, 1, 2], 5)
    stream = Stream(15, 4, 2, groups=groups)
    assert {int(groups[epoch_of(stream, epoch)[-1][0][-1]]) for epoch in range(30)} == {0, 1, 2}


def test_the_order_is_a_function_of_seed_and_epoch_and_the_same_after_resume():
    fresh, used = (Stream(1000, 8, 7, groups=PLAN.assignment[:1000]) for _ in range(2))
    for epoch in range(5):
        epoch_of(used, epoch)
    middle = range(3 * used.steps_per_epoch + 60, 3 * used.steps_per_epoch + 70)
    after = [used.pictures(used.positions(step)) for step in middle]
    assert after == [fresh.pictures(fresh.positions(step)) for step in middle]
    orders = [epoch_of(fresh, 0), epoch_of(fresh, 1), epoch_of(Stream(1000, 8, 8, groups=PLAN.assignment[:1000]), 0)]
    assert orders[0] != orders[1] and orders[0] != orders[2]


def test_batches_of_different_buckets_come_mixed():
    stream = Stream(10_000, 16, 0, groups=PLAN.assignment)
    kinds = [int(PLAN.assignment[step[0][0]]) for step in epoch_of(stream, 0)]
    changes = sum(a != b for a, b in pairwise(kinds))
    assert changes > 0.8 * len(kinds)


def test_one_bucket_is_the_order_without_buckets():
    plain, bucketed = Stream(50, 8, 4), Stream(50, 8, 4, groups=np.full(50, 3))
    assert epoch_of(plain, 2) == epoch_of(bucketed, 2)


def test_a_million_pictures_are_a_few_arrays():
    groups = (np.arange(1_000_000) % 17).astype(np.int32)
    tracemalloc.start()
    stream = Stream(1_000_000, 16, 0, groups=groups)
    for epoch in range(3):
        stream.pictures(stream.positions(epoch * stream.steps_per_epoch))
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 15e6 and most < 120e6  # two epochs of int32 and the entries; while one is made, some int64
