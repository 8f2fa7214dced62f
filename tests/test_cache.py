"""Latents computed once or anew: the same ones, at the crop and flip that the choices say."""

import pytest
import torch
from random_sdxl import make_pipeline
from small_runs import SIZES, home, small

from sdxl_nb.cache import CachedLatents, LiveLatents
from sdxl_nb.data import open_dataset
from sdxl_nb.errors import ModelError
from sdxl_nb.models import Source, load_vae
from sdxl_nb.sampling import Choices

EVERY = list(range(7))


@pytest.fixture(scope="module")
def vae():
    return make_pipeline().vae


def both(folder, vae, **changes):
    config = small(folder, **changes)
    pictures = open_dataset(config)
    return CachedLatents(pictures, vae, config), LiveLatents(pictures, vae, config)


def choices(count=7):
    return [Choices.at(5, position, timesteps=1000, empty_share=0) for position in range(count)]


@pytest.mark.parametrize("flip", [False, True])
def test_the_same_latents_and_time_ids(tmp_path, vae, flip):
    cached, live = both(tmp_path, vae, random_flip=flip)
    assert len({c.flip for c in choices()}) == 2
    ours, theirs = cached(EVERY, choices()), live(EVERY, choices())
    assert ours[0].shape == (7, 4, 8, 8) and ours[0].dtype == ours[1].dtype == torch.float32
    assert torch.allclose(ours[0], theirs[0], atol=1e-6) and torch.equal(ours[1], theirs[1])
    assert cached.moving == 0


def test_time_ids_are_true_sizes_and_the_middle(tmp_path, vae):
    cached, _ = both(tmp_path, vae)
    ids = cached(EVERY, choices())[1]
    assert ids[:, :2].tolist() == [[height, width] for width, height in SIZES]
    assert ids[1].tolist() == [32, 48, 0, 8, 32, 32]  # 48 wide, 32 high: 8 cut on each side
    assert ids[2].tolist() == [56, 32, 12, 0, 32, 32]


def test_random_crops_move_only_when_live(tmp_path, vae):
    cached, live = both(tmp_path, vae, center_crop=False)
    assert cached.moving == 4  # 48x32, 32x56, 64x48 and 36x32
    many = choices(40)
    assert len(set(live([1] * 40, many)[1][:, 3].tolist())) > 5
    assert set(cached([1] * 40, many)[1][:, 3].tolist()) == {8.0}


def test_a_batch_is_its_pictures(tmp_path, vae):
    _, live = both(tmp_path, vae, random_flip=True, center_crop=False)
    together = live(EVERY, choices())[0]
    alone = torch.cat([live([i], choices()[i : i + 1])[0] for i in EVERY])
    assert torch.allclose(together, alone, atol=1e-6)


def test_scaling_and_noise_by_hand(tmp_path, vae):
    cached, _ = both(tmp_path, vae)
    noise = torch.from_numpy(choices()[3].noise((4, 8, 8)))
    wanted = (cached.mean[3] + cached.std[3] * noise) * vae.config.scaling_factor
    assert torch.allclose(cached([3], choices()[3:4])[0][0], wanted, atol=1e-6)


def test_progress_and_portions(tmp_path, vae):
    config, done = small(tmp_path), []
    CachedLatents(open_dataset(config), vae, config, lambda *numbers: done.append(numbers), batch=3)
    assert done == [(3, 7), (6, 7), (7, 7)]


def test_latents_that_are_no_numbers_name_the_vae(tmp_path):
    broken = load_vae(Source(str(home()[0] / "base")), torch.float32)
    broken.encoder.conv_in.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="madebyollin/sdxl-vae-fp16-fix, or --mixed_precision no"):
        both(tmp_path, broken)
