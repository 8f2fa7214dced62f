"""Pictures as VAE latents: encoded once for all runs and kept on disk, or anew for every step.

In: captioned pictures, a frozen VAE and a TrainConfig. Out: for the pictures and random choices of
a batch, scaled latents (N, 4, h, w) fp32 and SDXL's time ids (N, 6) fp32. The VAE gives a mean and a standard
deviation; the sample is drawn at every step from the position's own noise, so encoding once changes no loss.
"""

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..config.train_config import TrainConfig
from ..data.crops import Crop, plan_crop
from ..data.dataset import CaptionedPictures
from ..data.sampling import Choices, crop_place
from ..models.inpainting import draw_hole, hollowed, mask_of
from ..models.objective.latent_scaling import LatentScaling
from ..system.errors import ModelError, SdxlNbError
from ..system.keys import key_of
from ..system.memory import NO_MEMORY_TO_ENCODE, in_memory
from ..system.threads import Group, ahead, share_out
from ..system.transfer import sent
from .shards import KEY, Store, Writer

Progress = Callable[[int, int], None]
Shape = tuple[int, int]
SIZES = 10_000  # of pictures whose crops are remembered while keys are made
Target = Callable[[int], Shape]  # the (height, width) in pixels that a picture is trained at


def cache_folder(config: TrainConfig) -> Path:
    """The folder that runs share: latents_cache_dir, else SDXL_NB_CACHE, else sdxl_nb in the user's cache folder."""
    given = config.latents_cache_dir or os.environ.get("SDXL_NB_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sdxl_nb"


class Encoder:
    """Crops pictures and draws their latents: the part that both ways share.

    `target(index)` is the (height, width) in pixels that a picture is trained at; by default the square of
    `resolution`. A batch holds pictures of one target. With cached_variants K above 1 each picture has K crops, every
    second one mirrored with `random_flip`, of which a position takes one.
    """

    def __init__(
        self,
        pictures: CaptionedPictures,
        config: TrainConfig,
        scaling: LatentScaling,
        target: Target | None = None,
    ):
        self.pictures, self.sizes, self.config, self.scaling = pictures, pictures.sizes(), config, scaling
        self.target = target or (lambda index: (self.config_of(index).resolution,) * 2)
        self.largest = max(each.resolution for each in pictures.configs(config))
        self.kept = config.cached_variants

    def crop(self, index: int, choices: Choices | None, flip: bool) -> Crop:
        """The crop of a picture; without choices the one that does not change: its centre, or place (u, v) = (½, ½)."""
        u, v = (choices.u, choices.v) if choices else (0.5, 0.5)
        return self._planned(index, u, v, flip)

    def _planned(self, index: int, u: float, v: float, flip: bool) -> Crop:
        config = self.config_of(index)
        size = tuple(self.sizes[index].tolist())
        return plan_crop(size, self.target(index), config.center_crop, flip, u, v, config.image_interpolation_mode)

    def config_of(self, index: int) -> TrainConfig:
        """The configuration as it is for a picture."""
        return self.pictures.config(index, self.config)

    def flips(self, index: int, choices: Choices) -> bool:
        return self.config_of(index).random_flip and choices.flip

    def variant(self, index: int, number: int) -> Crop:
        """A crop that does not change: of one the middle, mirrored or not; a picture that is never mirrored has one."""
        if self.kept == 1:
            return self.crop(index, None, number > 0 and self.config_of(index).random_flip)
        u, v = crop_place(self.pictures.identity(index), number)
        return self._planned(index, u, v, number % 2 > 0 and self.config_of(index).random_flip)

    def taken(self, index: int, choices: Choices) -> Crop:
        """The crop that a position takes of a picture which is encoded for it."""
        if self.kept > 1:
            return self.variant(index, choices.variant(self.kept))
        return self.crop(index, choices, self.flips(index, choices))

    def sample(self, mean: torch.Tensor, std: torch.Tensor, choices: Sequence[Choices]) -> torch.Tensor:
        """Latents drawn from the VAE's distribution, shifted and scaled, where mean and std are."""
        noise = sent(torch.from_numpy(np.stack([c.noise(tuple(mean.shape[1:])) for c in choices])), mean.device)
        return self.scaling.scaled(mean + std * noise)


@torch.no_grad()
def encode(vae: Any, pixels: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the latents of (3, H, W) pictures in [-1, 1], fp32 on the VAE's device."""
    batch = sent(torch.from_numpy(np.stack(pixels)), vae.device).to(vae.dtype)
    latents = vae.encode(batch).latent_dist
    return latents.mean.float(), latents.std.float()


def encode_alike(vae: Any, pixels: Sequence[np.ndarray], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same on the CPU, always as many at once, so that no latent depends on what is encoded beside it."""
    mean, std = encode(vae, [*pixels, *[pixels[-1]] * (batch - len(pixels))])
    return mean[: len(pixels)].cpu(), std[: len(pixels)].cpu()


def refuse_no_numbers(mean: torch.Tensor) -> None:
    """Raise ModelError for latents that a VAE made in too small a precision; waits for the device."""
    if not torch.isfinite(mean).all():
        raise ModelError(
            "The VAE made latents that are not numbers: use --pretrained_vae_model_name_or_path "
            "madebyollin/sdxl-vae-fp16-fix, or --mixed_precision no."
        )


def at_once(resolution: int, device: torch.device) -> int:
    """Pictures that the VAE encodes together: one of 512 px fills a GPU, and one of 256 px a CPU."""
    pixels = 256 if device.type == "cpu" else 512
    return min(8, max(1, pixels**2 // resolution**2))


class LiveLatents(Encoder):
    """Encodes the pictures of each batch when they are asked for, at the crop that their choices say.

    Threads decode them, and nothing waits for the VAE: on a GPU that happens while it computes the step before.
    """

    def __init__(
        self,
        pictures: CaptionedPictures,
        config: TrainConfig,
        vae: Any,
        target: Target | None = None,
        scaling: LatentScaling | None = None,
    ):
        super().__init__(pictures, config, scaling or LatentScaling.of(vae.config), target)
        self.vae, self.works = vae, False  # whether it is known to make numbers

    def __call__(self, indices: Sequence[int], choices: Sequence[Choices]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, time_ids = self._pixels(indices, choices)
        return self.sample(*self._encoded(pixels), choices), time_ids

    def _pixels(
        self, indices: Sequence[int], choices: Sequence[Choices]
    ) -> tuple[tuple[np.ndarray, ...], torch.Tensor]:
        """The crops of these pictures, (3, H, W) in [-1, 1], and their time ids (N, 6)."""
        pixels, time_ids = zip(*ahead(self._cut, zip(indices, choices, strict=True)), strict=True)
        return pixels, torch.tensor(time_ids, dtype=torch.float32)

    def _encoded(self, pixels: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of their latents."""
        some = at_once(self.largest, self.vae.device)  # the U-Net's batch is larger than the VAE has room for
        cut = [pixels[first : first + some] for first in range(0, len(pixels), some)]
        if self.kept > 1:  # the very numbers that a cache would have
            parts = [encode_alike(self.vae, part, some) for part in cut]
        else:
            parts = [encode(self.vae, part) for part in cut]
        mean, std = map(torch.cat, zip(*parts, strict=True))
        if not self.works:
            refuse_no_numbers(mean)
            self.works = True
        return mean, std

    def _cut(self, chosen: tuple[int, Choices]) -> tuple[np.ndarray, tuple[int, ...]]:
        """Pixels and time ids of a picture."""
        index, choices = chosen
        crop = self.taken(index, choices)
        return crop.apply(self.pictures[index].picture), crop.time_ids


class HollowedLatents(LiveLatents):
    """For inpainting bases: latents (N, 9, h, w), each picture's followed by a mask and the latents around its hole.

    Each hole comes from its position's own draws, before all noise; see models/inpainting.py.
    """

    def __call__(self, indices: Sequence[int], choices: Sequence[Choices]) -> tuple[torch.Tensor, torch.Tensor]:
        holes = [draw_hole(*self.target(i), c.generator) for i, c in zip(indices, choices, strict=True)]
        pixels, time_ids = self._pixels(indices, choices)
        latents = self.sample(*self._encoded(pixels), choices)
        around = [hollowed(picture, hole) for picture, hole in zip(pixels, holes, strict=True)]
        masks = np.stack([mask_of(hole, hole.shape[0] // latents.shape[2]) for hole in holes])
        parts = [latents, sent(torch.from_numpy(masks), latents.device)]
        return torch.cat([*parts, self.sample(*self._encoded(around), choices)], dim=1), time_ids


class Piece(NamedTuple):
    """One variant of a picture, ready for the VAE: its row, its crop, and (3, H, W) pixels."""

    row: int
    crop: Crop
    pixels: np.ndarray


class CachedLatents(Encoder):
    """Each picture's latents at one crop, and mirrored too with `random_flip`, from a Store; `fill` adds what lacks.

    A row is a variant of a picture: picture x variants + its number, which of two says whether it is mirrored. Its key
    tells the picture's bytes and its crop, so what changed is encoded anew and nothing else. Where some folders are
    mirrored and others not, the two rows of a picture that is not are one.
    """

    def __init__(
        self,
        pictures: CaptionedPictures,
        config: TrainConfig,
        scaling: LatentScaling,
        store: Store,
        target: Target | None = None,
    ):
        super().__init__(pictures, config, scaling, target)
        mirrored = any(each.random_flip for each in pictures.configs(config))
        self.store, self.variants = store, self.kept if self.kept > 1 else 1 + mirrored
        self.moving = 0  # pictures whose random crop would have moved from epoch to epoch
        self.keys = np.empty(len(pictures) * self.variants, KEY)
        known: dict[Hashable, tuple[list[str], bool]] = {}  # a million pictures are of few sizes
        for index, digest in enumerate(pictures.identities()):
            background, alike = pictures.background(index), self._alike(index)
            told = known.get(alike) or self._told(index)
            if alike and len(known) < SIZES:
                known[alike] = told
            self._note(index, digest + (background if background != "white" else ""), *told)
        self.places = store.find(self.keys)
        self.computed = 0  # pictures that `fill` encoded

    def _alike(self, index: int) -> Hashable:
        """What pictures have in common that are cropped alike; None where each has crops of its own."""
        if self.kept > 1:
            return None
        return self.sizes[index].tobytes(), self.target(index), id(self.config_of(index))

    def _told(self, index: int) -> tuple[list[str], bool]:
        """What a key says of each of a picture's crops, and whether another epoch would have moved it."""
        crops = [self.variant(index, number) for number in range(self.variants)]
        places = [(each.original_size, each.resized, each.top, each.left, each.target_size) for each in crops]
        told = [str((*place, each.flip, each.interpolation)) for place, each in zip(places, crops, strict=True)]
        last = crops[-1]
        return told, self.kept == 1 and not self.config_of(index).center_crop and last.resized != last.target_size

    def _note(self, index: int, digest: str, told: Sequence[str], moves: bool) -> None:
        for row, crop in enumerate(told, start=index * self.variants):
            self.keys[row] = key_of(digest, crop)
        self.moving += moves

    def missing(self) -> int:
        """How many rows are not in the store."""
        return int((self.places < 0).sum())

    def fill(
        self,
        load_vae: Callable[[], Any],
        progress: Progress | None = None,
        processes: Group | None = None,
        batch: int | None = None,
    ) -> None:
        """Encode what is not in the store; `load_vae()` is called only when something is. Raises SdxlNbError."""
        many = self.variants

        def work(share: range) -> None:
            rows = (np.asarray(share)[:, None] * many + np.arange(many)).ravel()
            self.store.refresh()
            rows = rows[self.places[rows] < 0]  # what was here once is not looked for again
            rows = rows[self.store.find(self.keys[rows]) < 0]
            rows = rows[np.sort(np.unique(self.keys[rows], return_index=True)[1])]  # copies of a picture are one
            if len(rows):
                with in_memory(NO_MEMORY_TO_ENCODE):
                    counted = _counted(progress, len(share), len(set((rows // many).tolist())))
                    self._fill(rows, load_vae(), batch, counted)

        share_out(len(self.pictures), work, processes)
        lacking = np.flatnonzero(self.places < 0)
        self.places[lacking] = self.store.find(self.keys[lacking])
        if self.missing():
            raise SdxlNbError(f"The cache folder {self.store.folder} lost files while it was used: start again.")

    def forget_keys(self) -> None:
        """Give back what only `fill` needs: rows are found by their places from now on."""
        self.keys = self.keys[:0].copy()
        self.store.forget_keys()

    def _fill(self, rows: np.ndarray, vae: Any, batch: int | None, progress: Callable[[int], None]) -> None:
        """Encode these rows, those of one shape together, and count pictures."""
        batch = batch or at_once(self.largest, vae.device)
        targets = np.array([self.target(row // self.variants) for row in rows.tolist()])
        shapes, numbers = np.unique(targets, axis=0, return_inverse=True)
        wanted = [rows[numbers.ravel() == number] for number in range(len(shapes))]
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        areas = [height * width // scale**2 * len(part) for (height, width), part in zip(shapes, wanted, strict=True)]
        self.store.refuse_to_fill(int(sum(areas)) * vae.config.latent_channels * 8 + 40 * len(rows))
        seen: set[int] = set()
        for part in wanted:
            with self.store.writer() as writer:
                # on a CPU the VAE has the cores already, and a thread's pictures would only cost memory
                pieces = self._pieces(part, threads=1 if vae.device.type == "cpu" else None)
                while portion := list(islice(pieces, batch)):
                    self._encode(portion, vae, batch, writer)
                    new = {piece.row // self.variants for piece in portion} - seen
                    seen |= new
                    self.computed += len(new)
                    progress(len(new))

    def _encode(self, portion: list[Piece], vae: Any, batch: int, writer: Writer) -> None:
        mean, std = encode_alike(vae, [piece.pixels for piece in portion], batch)
        refuse_no_numbers(mean)
        for number, piece in enumerate(portion):
            time_ids = torch.tensor(piece.crop.time_ids, dtype=torch.float32)
            key = bytes(self.keys[piece.row]).ljust(16, b"\0")
            writer.add(key, mean=mean[number], std=std[number], time_ids=time_ids)

    def _pieces(self, rows: np.ndarray, threads: int | None) -> Iterator[Piece]:
        """The rows that no other run has stored meanwhile, each picture decoded once, by threads ahead of the VAE."""
        for pieces in ahead(self._cut, self._still_missing(rows), threads):
            yield from pieces

    def _still_missing(self, rows: np.ndarray) -> Iterator[list[int]]:
        for _, same in groupby(rows.tolist(), key=lambda row: row // self.variants):
            self.store.refresh()
            lacking = [row for row in same if self.store.find(self.keys[row : row + 1])[0] < 0]
            if lacking:
                yield lacking

    def _cut(self, rows: list[int]) -> list[Piece]:
        index = rows[0] // self.variants
        picture = self.pictures[index].picture
        crops = [(row, self.variant(index, row % self.variants)) for row in rows]
        return [Piece(row, crop, crop.apply(picture)) for row, crop in crops]

    def row(self, index: int, choices: Choices) -> int:
        """The row that a position takes of a picture."""
        if self.kept > 1:
            return index * self.variants + choices.variant(self.kept)
        return index * self.variants + (self.flips(index, choices) if self.variants > 1 else 0)

    def __call__(self, indices: Sequence[int], choices: Sequence[Choices]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [self.row(index, chosen) for index, chosen in zip(indices, choices, strict=True)]
        mean, std, time_ids = self.store.read(self.places[rows], ("mean", "std", "time_ids"))
        return self.sample(mean, std, choices), time_ids


def _counted(progress: Progress | None, total: int, missing: int) -> Callable[[int], None]:
    """Calls `progress(done, total)` with what was there already counted in."""
    done = total - missing

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(min(done, total), total)

    return count
