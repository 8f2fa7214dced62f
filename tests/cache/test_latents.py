"""Latents computed once or anew: the same ones, at the crop and flip that the choices say."""

import contextlib
import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from random_sdxl import make_pipeline
from small_runs import SIZES, home, small

from sdxl_nb.cache.latents import CachedLatents, LiveLatents, cache_folder, encode
from sdxl_nb.cache.shards import Store
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import CaptionedPictures, open_dataset
from sdxl_nb.data.sampling import Choices
from sdxl_nb.models.loading import load_vae
from sdxl_nb.models.objective.latent_scaling import LatentScaling
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ModelError, SdxlNbError
from sdxl_nb.system.keys import key_of

EVERY = list(range(7))


@pytest.fixture(scope="module")
def vae():
    return make_pipeline().vae


def cached(folder, vae, *, batch=None, progress=None, pictures=None, target=None, **changes):
    """Filled latents of the small pictures, their store in `folder`."""
    config = small(folder, **changes)
    made = CachedLatents(
        pictures or open_dataset(config), config, LatentScaling.of(vae.config), Store(folder / "s"), target
    )
    made.fill(lambda: vae, progress, batch=batch)
    return made


def both(folder, vae, **changes):
    config = small(folder, **changes)
    return cached(folder, vae, **changes), LiveLatents(open_dataset(config), config, vae)


def choices(many=7):
    return [Choices.at(5, position, timesteps=1000, empty_share=0) for position in range(many)]


@pytest.mark.parametrize("flip", [False, True])
def test_the_same_latents_and_time_ids(tmp_path, vae, flip):
    stored, live = both(tmp_path, vae, random_flip=flip)
    assert len({c.flip for c in choices()}) == 2
    ours, theirs = stored(EVERY, choices()), live(EVERY, choices())
    assert ours[0].shape == (7, 4, 8, 8) and ours[0].dtype == ours[1].dtype == torch.float32
    assert torch.allclose(ours[0], theirs[0], atol=1e-6) and torch.equal(ours[1], theirs[1])
    assert stored.moving == 0


def test_live_latents_are_encoded_as_many_at_once_as_there_is_room_for(tmp_path, vae, monkeypatch):
    """The U-Net trains more pictures at once than the VAE has room for, which keeps its full size in its layers."""
    _, live = both(tmp_path, vae)
    whole, sizes = live(EVERY, choices()), []
    monkeypatch.setattr("sdxl_nb.cache.latents.at_once", lambda resolution, device: 3)
    monkeypatch.setattr(
        "sdxl_nb.cache.latents.encode", lambda vae, pixels: (sizes.append(len(pixels)), encode(vae, pixels))[1]
    )
    parts = live(EVERY, choices())
    assert sizes == [3, 3, 1]
    assert torch.allclose(parts[0], whole[0], atol=1e-6) and torch.equal(parts[1], whole[1])


def test_time_ids_are_true_sizes_and_the_middle(tmp_path, vae):
    ids = cached(tmp_path, vae)(EVERY, choices())[1]
    assert ids[:, :2].tolist() == [[height, width] for width, height in SIZES]
    assert ids[1].tolist() == [32, 48, 0, 8, 32, 32]  # 48 wide, 32 high: 8 cut on each side
    assert ids[2].tolist() == [56, 32, 12, 0, 32, 32]


def test_random_crops_move_only_when_live(tmp_path, vae):
    stored, live = both(tmp_path, vae, center_crop=False)
    assert stored.moving == 4  # 48x32, 32x56, 64x48 and 36x32
    many = choices(40)
    assert len(set(live([1] * 40, many)[1][:, 3].tolist())) > 5
    assert set(stored([1] * 40, many)[1][:, 3].tolist()) == {8.0}


@pytest.mark.parametrize("changes", [{}, {"random_flip": True}, {"cached_variants": 3, "center_crop": False}])
def test_a_key_is_made_of_the_picture_and_its_own_crop(tmp_path, changes):
    """Whatever pictures of its size came before: caches on disk are found by it."""
    config = small(tmp_path, **changes)
    pictures = open_dataset(config)
    twice = pictures.select([*range(7), *range(7)])
    made = CachedLatents(twice, config, LatentScaling(1.0), Store(tmp_path / "s"))
    for row, key in enumerate(made.keys.tolist()):
        index, number = divmod(row, made.variants)
        crop = made.variant(index, number)
        told = (crop.original_size, crop.resized, crop.top, crop.left, crop.target_size, crop.flip, crop.interpolation)
        assert key.ljust(16, b"\0") == key_of(twice.identity(index), told)


def test_a_batch_is_its_pictures(tmp_path, vae):
    _, live = both(tmp_path, vae, random_flip=True, center_crop=False)
    together = live(EVERY, choices())[0]
    alone = torch.cat([live([i], choices()[i : i + 1])[0] for i in EVERY])
    assert torch.allclose(together, alone, atol=1e-6)


def test_live_pictures_are_decoded_side_by_side(tmp_path, vae, monkeypatch):
    """Each waits for another one to be decoded at the same time."""
    _, live = both(tmp_path, vae)
    expected = live(EVERY, choices())[0]
    monkeypatch.setattr("sdxl_nb.system.threads.os.sched_getaffinity", lambda number: range(4), raising=False)
    together, crop = threading.Barrier(2, timeout=1200), live.crop
    live.crop = lambda *arguments: (together.wait(), crop(*arguments))[1]
    assert torch.equal(live(EVERY[:6], choices()[:6])[0], expected[:6])


def test_live_latents_wait_for_no_number_of_the_device(tmp_path):
    """The meta device has none, so that reading one is an error; only the first batch is looked at."""
    config = small(tmp_path)
    live = LiveLatents(open_dataset(config), config, make_pipeline().vae.to("meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        live(EVERY, choices())
    live.works = True
    latents, _ = live(EVERY, choices())
    assert latents.device.type == "meta" and latents.shape == (7, 4, 8, 8)


def test_scaling_and_noise_by_hand(tmp_path, vae):
    stored = cached(tmp_path, vae)
    noise = torch.from_numpy(choices()[3].noise((4, 8, 8)))
    mean, std = stored.store.read(stored.places[[3]], ("mean", "std"))
    assert torch.allclose(stored([3], choices()[3:4])[0][0], (mean[0] + std[0] * noise) * 0.18215, atol=1e-6)
    assert LatentScaling.of({"scaling_factor": 0.13025, "shift_factor": None}) == LatentScaling(0.13025)
    stored.scaling = LatentScaling.of({"scaling_factor": 2.0, "shift_factor": 0.5})
    assert torch.allclose(stored([3], choices()[3:4])[0][0], (mean[0] + std[0] * noise - 0.5) * 2, atol=1e-6)
    many = {"scaling_factor": 0.5, "latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [1.0, 2.0, 4.0, 8.0]}
    stored.scaling = LatentScaling.of(many)
    found = stored([3], choices()[3:4])[0]
    by_hand = [(mean[0, c] + std[0, c] * noise[c] - many["latents_mean"][c]) * 0.5 / 2**c for c in range(4)]
    assert torch.allclose(found[0], torch.stack(by_hand), atol=1e-6)
    assert torch.allclose(stored.scaling.unscaled(found)[0], mean[0] + std[0] * noise, atol=1e-5)


def test_progress_counts_what_is_there_already(tmp_path, vae):
    done = []
    cached(tmp_path, vae, batch=3, progress=lambda *numbers: done.append(numbers))
    assert done == [(3, 7), (6, 7), (7, 7)]
    done.clear()
    cached(tmp_path, vae, batch=3, progress=lambda *numbers: done.append(numbers), random_flip=True)
    assert done[-1] == (7, 7)
    done.clear()
    cached(tmp_path, vae, batch=3, progress=lambda *numbers: done.append(numbers), random_flip=True)
    assert done == []


def test_latents_that_are_no_numbers_name_the_vae(tmp_path):
    broken = load_vae(Source(str(home()[0] / "base")), torch.float32)
    broken.encoder.conv_in.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="madebyollin/sdxl-vae-fp16-fix, or --mixed_precision no"):
        cached(tmp_path, broken)
    assert not list((tmp_path / "s").glob("*.safetensors"))
    with pytest.raises(ModelError, match="madebyollin/sdxl-vae-fp16-fix, or --mixed_precision no"):
        LiveLatents(open_dataset(small(tmp_path)), small(tmp_path), broken)([0], choices()[:1])


class Counting:
    """A VAE that counts the pictures it encodes, fillers left out by `batch` 1."""

    def __init__(self, vae):
        self.vae, self.seen = vae, 0
        self.config, self.device, self.dtype = vae.config, vae.device, vae.dtype

    def encode(self, batch):
        self.seen += len(batch)
        return self.vae.encode(batch)


@pytest.fixture
def folder(tmp_path):
    """A copy of the small pictures that a test may change."""
    return shutil.copytree(home()[0] / "pictures", tmp_path / "pictures")


def encoded(tmp_path, vae, **changes):
    """How many pictures had to be encoded."""
    counting = Counting(vae)
    cached(tmp_path, counting, batch=1, **changes)
    return counting.seen


def test_only_what_changed_is_encoded_anew(tmp_path, vae, folder):
    source = {"train_data_dir": str(folder)}
    assert [encoded(tmp_path, vae, **source) for _ in range(2)] == [7, 0]
    Image.new("RGB", (40, 40), "red").save(folder / "3.png")
    assert encoded(tmp_path, vae, **source) == 1
    (folder / "2.txt").write_text("another caption")
    (folder / "1.png").rename(folder / "renamed.png")
    (folder / "1.txt").rename(folder / "renamed.txt")
    assert encoded(tmp_path, vae, **source) == 0
    assert encoded(tmp_path, vae, **source, random_flip=True) == 7  # mirrored ones; the others are there
    assert encoded(tmp_path, vae, **source, resolution=40) == 7
    assert encoded(tmp_path, vae, **source, image_interpolation_mode="nearest") == 7
    assert encoded(tmp_path, vae, **source) == encoded(tmp_path, vae, **source, resolution=40) == 0
    shutil.copy(folder / "5.png", folder / "copy.png")
    (folder / "copy.txt").write_text("the same")
    assert encoded(tmp_path, vae, **source) == 0


def test_copies_of_a_picture_are_encoded_once(tmp_path, vae, folder):
    for number in range(3):
        shutil.copy(folder / "0.png", folder / f"copy {number}.png")
        (folder / f"copy {number}.txt").write_text("a copy")
    assert encoded(tmp_path, vae, train_data_dir=str(folder)) == 7


def test_a_latent_does_not_depend_on_its_neighbours(tmp_path, vae):
    """Or else a run that was killed while caching would end with other bits."""
    whole = cached(tmp_path / "whole", vae, batch=3)
    for at in EVERY:
        pictures = open_dataset(small(tmp_path)).select([at])
        alone = cached(tmp_path / str(at), vae, batch=3, pictures=pictures)
        ours, theirs = (each.store.read(each.places[[i]], ("mean", "std")) for each, i in ((whole, at), (alone, 0)))
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_pictures_of_several_shapes(tmp_path, vae):
    shapes = [(32, 32), (32, 48), (48, 32), (32, 32), (32, 32), (32, 48), (32, 32)]
    stored = cached(tmp_path, vae, batch=2, target=shapes.__getitem__)
    latents, ids = stored([1, 5], choices()[:2])
    assert latents.shape == (2, 4, 8, 12) and ids[:, 4:].tolist() == [[32, 48]] * 2
    assert ids[0, 2:4].tolist() == [0, 0]  # this picture has the shape already
    assert stored([2], choices()[:1])[0].shape == (1, 4, 12, 8)
    assert sorted(shard.count for shard in stored.store.shards) == [1, 2, 4]


def test_what_another_run_stores_meanwhile_is_left_out(tmp_path, vae, monkeypatch):
    class Joined(Counting):
        def encode(self, batch):
            if self.seen == 2:
                cached(tmp_path, vae, batch=1)  # another run does the whole set while this one is at its third picture
            return super().encode(batch)

    slow = Joined(vae)
    # with threads some are decoded already
    monkeypatch.setattr("sdxl_nb.cache.latents.ahead", lambda work, items, threads: map(work, items))
    stored = cached(tmp_path, slow, batch=1)
    assert slow.seen == 3 and stored.missing() == 0


def test_each_process_encodes_its_share(tmp_path, vae):
    class Two:
        """Two processes, of which this is one; `other` is what the other one does meanwhile."""

        def __init__(self, index, other=None):
            self.count, self.index, self.other, self.waits = 2, index, other, 0

        @contextlib.contextmanager
        def together(self):
            yield
            self.waits += 1
            if self.other:
                self.other()

    config, seen = small(tmp_path, random_flip=True), []

    def fill(index, other=None):
        counting, processes = Counting(vae), Two(index, other)
        made = CachedLatents(open_dataset(config), config, LatentScaling.of(vae.config), Store(tmp_path / "s"))
        made.fill(lambda: counting, None, processes, batch=1)
        seen.append((counting.seen, processes.waits))
        return made

    made = fill(0, lambda: fill(1) if not seen else None)
    assert seen[-1] == (8, 2) and seen[0][0] == 6  # pictures 0, 2, 4, 6 and 1, 3, 5, each twice
    alone = cached(tmp_path / "alone", vae, batch=1, random_flip=True)
    assert torch.equal(made(EVERY, choices())[0], alone(EVERY, choices())[0])


def test_a_store_that_loses_its_files_is_said(tmp_path, vae, monkeypatch):
    monkeypatch.setattr(Store, "_open", lambda self, name: None)
    with pytest.raises(SdxlNbError, match="lost files while it was used: start again"):
        cached(tmp_path, vae)


def test_pictures_decoded_by_threads_raise_here(tmp_path, vae, monkeypatch):
    def fails(self, index):
        raise OSError("gone")

    monkeypatch.setattr(CaptionedPictures, "picture_bytes", fails)
    config = small(tmp_path)
    pictures = open_dataset(config)
    pictures.sizes, pictures.identity = (lambda: np.array([[32, 32]] * 7)), str
    with pytest.raises(OSError, match="gone"):
        cached(tmp_path, vae, pictures=pictures)


def test_where_the_cache_is(monkeypatch, tmp_path):
    config = TrainConfig(seed=1)
    monkeypatch.setenv("SDXL_NB_CACHE", "/a/b")
    assert cache_folder(config.replace(latents_cache_dir="~/mine")).as_posix().endswith("/mine")
    assert str(cache_folder(config)) == "/a/b"
    monkeypatch.delenv("SDXL_NB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(config) == tmp_path / "sdxl_nb"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(config) == tmp_path / ".cache" / "sdxl_nb"
    assert config.replace(latents_cache_dir="/x").fingerprint() == config.fingerprint()


def test_folders_of_a_data_file_are_cut_as_each_says(tmp_path, vae):
    """Mirrored or not, larger or not; what is not mirrored is encoded once, under the key that it has alone."""
    for part, numbers in {"a": (0, 3), "b": (1, 4)}.items():
        (tmp_path / part).mkdir()
        for number in numbers:
            for suffix in ("png", "txt"):
                shutil.copy(home()[0] / "pictures" / f"{number}.{suffix}", tmp_path / part)
    (tmp_path / "data.yaml").write_text("folders: [{path: a, flip: yes, resolution: 64}, {path: b}]")
    config = small(tmp_path, train_data_dir=str(tmp_path / "data.yaml"))
    pictures, store = open_dataset(config), Store(tmp_path / "s")
    made = CachedLatents(pictures, config, LatentScaling.of(vae.config), store)
    made.fill(lambda: vae)
    assert made.computed == 4 and len(set(made.keys.tolist())) == 6  # two of a picture of a, one of one of b
    alone = CachedLatents(open_dataset(config.replace(train_data_dir=str(tmp_path / "b"))), config, made.scaling, store)
    assert alone.missing() == 0 and alone.keys.tolist() == made.keys[[4, 6]].tolist()
    live = LiveLatents(pictures, config, vae)
    for part in ([0, 1], [2, 3]):
        ours, theirs = made(part, choices(2)), live(part, choices(2))
        assert torch.allclose(ours[0], theirs[0], atol=1e-6) and torch.equal(ours[1], theirs[1])
    assert made([0], choices(1))[0].shape == (1, 4, 16, 16) and made([2], choices(1))[0].shape == (1, 4, 8, 8)
