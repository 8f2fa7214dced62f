"""The half of SDXL's VAE that training needs: pictures in, the distribution of their latents out.

In: a VAE's configuration and tensors as diffusers stores them. Out: what AutoencoderKL.encode gives, tested equal to it
bit for bit; diffusers' models, 20 MB and a second to import, are left out. What it does not cover (`covers` says so)
is left to diffusers. Architecture: Rombach et al. 2022 (arXiv 2112.10752).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .unet import Config

FIXED = {"act_fn": "silu", "mid_block_add_attention": True, "in_channels": 3}
SHAPES = {"block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups"}
PARTS = ("encoder.", "quant_conv.")  # how the names of its tensors begin
EPS = 1e-6


def covers(config: Mapping[str, Any]) -> bool:
    """Whether this module builds the encoder of that configuration."""
    return (
        config.keys() >= SHAPES
        and all(config.get(name, value) == value for name, value in FIXED.items())
        and set(config.get("down_block_types", ["?"])) == {"DownEncoderBlock2D"}
    )


class Gaussian(NamedTuple):
    """Of each latent its mean and standard deviation, (N, 4, h, w)."""

    mean: torch.Tensor
    std: torch.Tensor


class Encoded(NamedTuple):
    """What `encode` returns, as diffusers' does."""

    latent_dist: Gaussian


class Resnet(nn.Module):
    """Two convolutions around a skip: (N, c, h, w)."""

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, inputs, EPS), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, outputs, EPS), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class Attention(nn.Module):
    """All pixels of (N, c, h, w) look at one another, with one head, around a skip."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = self.group_norm(x.flatten(2)).transpose(1, 2)
        q, k, v = (layer(pixels)[:, None] for layer in (self.to_q, self.to_k, self.to_v))
        mixed = self.to_out[0](F.scaled_dot_product_attention(q, k, v)[:, 0])
        return mixed.transpose(1, 2).reshape(x.shape) + x


class Halving(nn.Module):
    """The convolution that halves the sides, of pictures that have a row and a column of zeros at their ends."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """Residual blocks, then what halves the sides."""

    def __init__(self, resnets: Sequence[Resnet], halves: bool):
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = nn.ModuleList([Halving(resnets[-1].conv2.out_channels)] if halves else [])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in (*self.resnets, *self.downsamplers):
            x = part(x)
        return x


class Middle(nn.Module):
    """Attention between two residual blocks."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width, groups)])
        self.resnets = nn.ModuleList(Resnet(width, width, groups) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    """(N, 3, H, W) in [-1, 1] -> means and logarithms of variances, (N, 8, h, w)."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        widths, groups, count = config["block_out_channels"], config["norm_num_groups"], config["layers_per_block"]
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for at, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            resnets = [Resnet(width if i else before, width, groups) for i in range(count)]
            self.down_blocks.append(Level(resnets, halves=at < len(widths) - 1))
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config["latent_channels"], 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class VaeEncoder(nn.Module):
    """See the module; `encode` is what it is for."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.config = Config(config)
        self.encoder = Encoder(config)
        channels = 2 * config["latent_channels"]
        self.quant_conv = nn.Conv2d(channels, channels, 1) if config.get("use_quant_conv", True) else None

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.conv_out.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.encoder.conv_out.weight.device

    def encode(self, pictures: torch.Tensor) -> Encoded:
        """The distribution of the latents of (N, 3, H, W) pictures in [-1, 1]."""
        moments = self.encoder(pictures)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, logarithm = moments.chunk(2, dim=1)
        return Encoded(Gaussian(mean, torch.exp(0.5 * logarithm.clamp(-30.0, 20.0))))
