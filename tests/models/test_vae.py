"""The encoder of vae.py is diffusers' own, bit for bit, and is used wherever its files allow."""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from random_sdxl import make_pipeline
from safetensors.torch import load_file, save_file

from sdxl_nb.models import vae
from sdxl_nb.models.loading import load_vae, load_vae_encoder
from sdxl_nb.models.sources import Source
from sdxl_nb.models.vae import VaeEncoder, covers
from sdxl_nb.system.errors import ModelError

SHAPES = [
    {"block_out_channels": (8, 16, 16), "layers_per_block": 1},
    {"block_out_channels": (16, 32), "layers_per_block": 2, "latent_channels": 16, "use_quant_conv": False},
]


def random_vae(**changes):
    torch.manual_seed(0)
    widths = changes.get("block_out_channels", (8, 16))
    config = {"norm_num_groups": 4, "layers_per_block": 2, "latent_channels": 4, "block_out_channels": widths} | changes
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * len(widths)}
    return AutoencoderKL(**config, **blocks, up_block_types=("UpDecoderBlock2D",) * len(widths)).eval()


def ours(theirs):
    made = VaeEncoder(theirs.config)
    wanted = {name: value for name, value in theirs.state_dict().items() if name.startswith(vae.PARTS)}
    made.load_state_dict(wanted)
    return made.eval()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(32, 32), (48, 24), (20, 28)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_it_is_the_encoder_of_diffusers_bit_for_bit(shape, size, dtype):
    theirs = random_vae(**shape)
    assert covers(theirs.config)
    mine, theirs = ours(theirs).to(dtype), theirs.to(dtype)
    pictures = (torch.rand(2, 3, *size) * 2 - 1).to(dtype)
    expected, found = theirs.encode(pictures).latent_dist, mine.encode(pictures).latent_dist
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.std, expected.std)
    assert found.std.min() > 0 and (mine.dtype, mine.device) == (dtype, torch.device("cpu"))


def test_it_is_as_large_as_the_half_of_sdxls():
    with torch.device("meta"):
        made = VaeEncoder(
            {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32}
            | {"latent_channels": 4}
        )
    assert sum(p.numel() for p in made.encoder.parameters()) == 34_163_592


@pytest.mark.parametrize(
    "other",
    [
        {"act_fn": "relu"},
        {"mid_block_add_attention": False},
        {"down_block_types": ["AttnDownEncoderBlock2D"]},
        {"in_channels": 4},
    ],
)
def test_what_it_does_not_cover_is_known(other):
    config = dict(random_vae().config)
    assert covers(config) and not covers(config | other)
    del config["latent_channels"]
    assert not covers(config)


@pytest.fixture
def base(tmp_path):
    make_pipeline().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def change_config(base, **changes):
    file = base / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_base_gives_its_encoder_in_the_dtype_that_its_vae_stands(base):
    source = Source(str(base))
    change_config(base, force_upcast=True)
    safe = load_vae_encoder(source, torch.bfloat16)
    assert isinstance(safe, VaeEncoder) and safe.dtype == torch.float32 and not safe.training
    change_config(base, force_upcast=False)
    assert load_vae_encoder(source, torch.bfloat16).dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in safe.parameters())
    pictures = torch.rand(1, 3, 32, 32)
    expected = load_vae(source, torch.float32).encode(pictures).latent_dist.mean
    assert torch.equal(safe.encode(pictures).latent_dist.mean, expected)


def test_what_is_stored_otherwise_is_left_to_diffusers(base, tmp_path):
    other = tmp_path / "other"
    random_vae(block_out_channels=(16, 32, 32), norm_num_groups=8).save_pretrained(other, max_shard_size="50KB")
    assert len(list(other.glob("*.safetensors"))) > 1
    assert isinstance(load_vae_encoder(Source(str(base), vae=str(other))), VaeEncoder)  # shards are read
    file = base / "vae" / "diffusion_pytorch_model.safetensors"
    old = {name.replace("to_q", "query").replace("to_k", "key"): value for name, value in load_file(file).items()}
    old = {name.replace("to_v", "value").replace("to_out.0", "proj_attn"): value for name, value in old.items()}
    save_file(old, file, {"format": "pt"})
    assert isinstance(load_vae_encoder(Source(str(base))), AutoencoderKL)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"^The vae of .* is truncated"):
        load_vae_encoder(Source(str(base)))
