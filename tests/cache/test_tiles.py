"""The VAE in tiles: less memory, latents of their own, and a cache that knows which ones it holds."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from small_runs import small, studio

from sdxl_nb.cache.latents import encode
from sdxl_nb.models.files import vae_config
from sdxl_nb.models.loading import in_tiles
from sdxl_nb.models.sources import Source
from sdxl_nb.preflight.counting import count_vae

BASE = Source("embedded:tiny-sdxl")


def test_a_large_picture_is_encoded_tile_by_tile():
    picture = np.random.default_rng(0).uniform(-1, 1, (3, 600, 520)).astype(np.float32)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    model = AutoencoderKL(block_out_channels=(4, 4), norm_num_groups=2, mid_block_add_attention=False, **blocks)
    vae = in_tiles(model.eval().requires_grad_(False))
    mean, _ = encode(vae, [picture])
    part, _ = encode(vae, [np.ascontiguousarray(picture[:, :512, :512])])
    assert mean.shape[-2:] == (300, 260)
    assert torch.equal(mean[..., :192, :192], part[..., :192, :192])  # a quarter of each tile overlaps the next
    vae.disable_tiling()
    whole, _ = encode(vae, [picture])
    assert not torch.allclose(mean, whole, atol=1e-4) and (mean - whole).abs().mean() < whole.std() / 10


def test_its_memory_is_that_of_a_tile():
    whole, tiled = (count_vae(vae_config(BASE), 1024, (1024, 1024), torch.float32, tiles) for tiles in (False, True))
    assert whole[0] == tiled[0]
    assert tiled[1] < whole[1] / 3 and tiled[2] < whole[2] / 2  # and what the tiles are put together from


def test_what_is_cached_in_tiles_is_kept_apart(tmp_path):
    """Pictures of 64 px are one tile, so the latents are the same; they are computed again all the same."""
    kept = []
    for name, tiled in (("whole", False), ("tiles", True), ("again", True)):
        made = studio(small(tmp_path / name, vae_tiling=tiled, latents_cache_dir=str(tmp_path / "cache")))
        kept.append((made.latents.computed, len(list((tmp_path / "cache" / "latents").iterdir()))))
    assert kept == [(7, 1), (7, 2), (0, 2)]
