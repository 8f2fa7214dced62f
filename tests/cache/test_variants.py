"""Several kept crops of a picture: each position draws one, and a cache of them gives what encoding them live gives."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from random_sdxl import make_pipeline
from small_runs import assert_goes_on, assert_same, home, small, train

from sdxl_nb.cache.latents import CachedLatents, LiveLatents
from sdxl_nb.cache.masks import CachedMasks, LiveMasks
from sdxl_nb.cache.shards import Store
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.masks import Masks
from sdxl_nb.data.sampling import Choices
from sdxl_nb.models.architectures import of
from sdxl_nb.models.objective.latent_scaling import LatentScaling
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.disk import needed
from sdxl_nb.training.heldout import choices as heldout_choices

CROPS = {"center_crop": False, "aspect_ratio_buckets": False, "random_flip": True, "cached_variants": 3}


@pytest.fixture(scope="module")
def vae():
    return make_pipeline().vae


def both(folder, vae, **changes):
    config = small(folder, **CROPS | changes)
    stored = CachedLatents(open_dataset(config), config, LatentScaling.of(vae.config), Store(folder / "s"))
    done = []
    stored.fill(lambda: vae, lambda *numbers: done.append(numbers))
    assert stored.computed == 7 and done[-1] == (7, 7)
    return stored, LiveLatents(open_dataset(config), config, vae)


def choices(positions):
    return [Choices.at(5, position, timesteps=1000, empty_share=0) for position in positions]


def test_a_cache_gives_what_live_encoding_gives_bit_for_bit(tmp_path, vae):
    stored, live = both(tmp_path, vae)
    crops = Counter()
    for index in range(7):
        for first in range(0, 12, 4):
            pictures, positions = [index] * 4, range(first, first + 4)
            ours, theirs = stored(pictures, choices(positions)), live(pictures, choices(positions))
            assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
            crops.update((index, *ids) for ids in ours[1].tolist())
    assert {each.variant(3) for each in choices(range(12))} == {0, 1, 2}
    assert len([key for key in crops if key[0] == 5]) == 3  # 64 x 48 has three places; those of 32 x 32 have one
    assert len([key for key in crops if key[0] == 0]) == 1


def test_the_first_is_the_middle_and_every_second_is_mirrored(tmp_path, vae):
    stored, _ = both(tmp_path, vae)
    one = stored.variant(5, 0)
    assert (one.top, one.left, one.flip) == (0, 6, False)  # 43 wide, 11 too many, 12 places
    assert [stored.variant(5, number).flip for number in range(3)] == [False, True, False]
    plain, _ = both(tmp_path / "plain", vae, random_flip=False)
    assert [plain.variant(5, number).flip for number in range(3)] == [False] * 3
    (held_out, *_) = heldout_choices("0" * 64, 1000)
    assert stored.row(5, held_out) == 15


def test_masks_are_cut_where_the_pictures_are(tmp_path, vae):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(7):
        with Image.open(home()[0] / "pictures" / f"{number}.png") as picture:
            picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("card")
    mask = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    Image.fromarray(mask).save(folder / "5-masklabel.png")
    stored, live = both(tmp_path, vae, train_data_dir=str(folder), masked_loss=True)
    masks = Masks(stored.pictures)
    cached = CachedMasks(masks, stored, 4, Store(tmp_path / "m"))
    cached.fill()
    for position in range(6):
        args = [5, 1], choices([position] * 2)
        assert torch.equal(cached(*args), LiveMasks(masks, live, 4)(*args))
    assert cached.computed == 3


def test_a_folder_of_middle_crops_has_one_beside_others(tmp_path, vae):
    for name in ("wide", "middle"):
        (tmp_path / name).mkdir()
        for suffix in ("png", "txt"):
            shutil.copy(home()[0] / "pictures" / f"5.{suffix}", tmp_path / name / f"5.{suffix}")
    folders = [{"path": "wide"}, {"path": "middle", "center_crop": True}]
    (tmp_path / "data.json").write_text(json.dumps({"folders": folders}))
    config = small(tmp_path / "run", **CROPS | {"train_data_dir": str(tmp_path / "data.json")})
    stored = CachedLatents(open_dataset(config), config, LatentScaling.of(vae.config), Store(tmp_path / "s"))
    lefts = [[stored.variant(index, number).left for number in range(3)] for index in range(2)]
    assert len(set(lefts[0])) == 3 and len(set(lefts[1])) == 1


@pytest.mark.slow
def test_a_run_over_a_cache_is_the_run_that_encodes(tmp_path):
    cached = train(small(tmp_path / "cached", **CROPS))
    assert_same(cached.folder, train(small(tmp_path / "live", **CROPS, cache_latents=False)).folder)
    with pytest.raises(AssertionError):
        assert_same(cached.folder, train(small(tmp_path / "one", **CROPS | {"cached_variants": 1})).folder)
    (said,) = [e["message"] for e in cached.events("warning") if "crops" in e["message"]]
    assert said == "Each picture has 3 crops, every second mirrored, kept in the cache; each time one of them is drawn."
    assert_goes_on(tmp_path, **CROPS)


def test_the_disk_counts_them(tmp_path):
    config = small(tmp_path, **CROPS)
    built = of(config)
    several, one = (needed(config.replace(cached_variants=k), built, 7)[0].latents for k in (3, 1))
    assert several == 3 * one / 2  # one is mirrored or not


def test_other_crops_than_the_middle_are_not_for_center_crop():
    with pytest.raises(ConfigError, match="cached_variants keeps other crops than the middle, which center_crop"):
        TrainConfig(cached_variants=2, center_crop=True)
