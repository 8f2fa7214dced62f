"""SDXL's U-Net as training needs it: a fifth of diffusers' operations on the host, and a second less to import.

In: a U-Net's configuration and state dict as diffusers stores them (same names, same order, so that peft finds the
same layers and draws the same first values). Out: the same function, tested equal to diffusers'. What it does not
cover (`covers` says so) is left to diffusers' UNet2DConditionModel: other blocks, convolutional projections, class
embeddings, other attention than SDPA. Architecture: SDXL paper (arXiv 2307.01952, section 2.1), on Rombach et al.
2022 (arXiv 2112.10752).

Every layer that can carry a LoRA is called through a `Run`, layers that share an input together: plainly, layer by
layer, or as `lora/fast.py` does it in a training step.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .running import Run, plain, sinusoid

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from ..drawing.denoiser import Drawing
    from ..lora.fast import LoraFast

Layer = TypeVar("Layer", bound=nn.Module)
UNet: TypeAlias = "SdxlUNet | UNet2DConditionModel"  # ours, or diffusers' where it does not cover a base

SHAPES = {  # what may differ from base to base
    "in_channels",
    "out_channels",
    "block_out_channels",
    "down_block_types",
    "up_block_types",
    "layers_per_block",
    "transformer_layers_per_block",
    "attention_head_dim",
    "cross_attention_dim",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "norm_num_groups",
    "norm_eps",
}
FIXED = {  # what must be so where it is given; anything else must be null, false or absent
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "resnet_time_scale_shift": "default",
    "resnet_out_scale_factor": 1,
    "time_embedding_type": "positional",
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "attention_type": "default",
    "addition_embed_type_num_heads": 64,
}
IGNORED = {"sample_size"}
BLOCKS = ({"DownBlock2D", "CrossAttnDownBlock2D"}, {"UpBlock2D", "CrossAttnUpBlock2D"})


class Config(dict[str, Any]):
    """A configuration whose entries are attributes too, as in diffusers."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Output(NamedTuple):
    """What a call returns: `.sample` or `[0]`, (N, 4, h, w)."""

    sample: torch.Tensor


def covers(config: Mapping[str, Any]) -> bool:
    """Whether this module builds the U-Net of that configuration."""
    known = SHAPES | FIXED.keys() | IGNORED
    others = [value for name, value in config.items() if name not in known and not name.startswith("_")]
    kinds = (config.get("down_block_types", ["?"]), config.get("up_block_types", ["?"]))
    return (
        all(config.get(name, value) == value for name, value in FIXED.items())
        and {"use_linear_projection", "addition_embed_type", *SHAPES} - {"norm_eps"} <= config.keys()
        and not any(others)
        and all(set(used) <= allowed for used, allowed in zip(kinds, BLOCKS, strict=True))
        and all(isinstance(config[name], int) for name in ("layers_per_block", "cross_attention_dim"))
    )


def listed(modules: Iterable[Layer]) -> Sequence[Layer]:
    """An nn.ModuleList, which by itself does not say of what."""
    return cast(Sequence[Layer], nn.ModuleList(modules))


class Part(nn.Module):
    """A module that may be `recomputed`: only its input is kept, and the rest computed again in the backward pass."""

    recomputed = False

    def segment(self, function: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
        """Call a function of this part."""
        if self.recomputed and torch.is_grad_enabled():
            dropout = arguments[-1] is plain  # peft's own layers may draw random numbers
            return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=dropout)
        return function(*arguments)


class Embedding(nn.Module):
    """Two linear layers around a SiLU."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, run: Run) -> torch.Tensor:
        return run(F.silu(run(x.to(self.dtype), self.linear_1)[0]), self.linear_2)[0]

    @property
    def dtype(self) -> torch.dtype:
        return getattr(self.linear_1, "base_layer", self.linear_1).bias.dtype


class Resnet(Part):
    """Two convolutions with the timestep's embedding added between, around a skip: (N, c, h, w)."""

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int, eps: float):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: torch.Tensor, embedding: torch.Tensor, run: Run) -> torch.Tensor:
        h = run.shifted(F.silu(self.norm1(x)), embedding, self)
        (h,) = run(F.silu(self.norm2(h)), self.conv2)
        return (x if self.conv_shortcut is None else run(x, self.conv_shortcut)[0]) + h


class Attention(Part):
    """Multi-head attention of tokens (N, n, c) over themselves, or over a context (N, m, d)."""

    def __init__(self, width: int, heads: int, context: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, y: torch.Tensor, x: torch.Tensor, context: torch.Tensor | None, run: Run) -> torch.Tensor:
        """y and what x attends to."""
        if context is None:
            q, k, v = run.heads(x, self.to_q, self.to_k, self.to_v)
        else:
            (q,), (k, v) = run.heads(x, self.to_q), run.text(self, context)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return run.onto(y, mixed, self.to_out[0])


class FeedForward(Part):
    """Out to four times the width, gated, and back."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.ModuleList([nn.Module(), nn.Identity(), nn.Linear(4 * width, width)])
        self.net[0].proj = nn.Linear(width, 8 * width)

    def forward(self, y: torch.Tensor, x: torch.Tensor, run: Run) -> torch.Tensor:
        (wide,) = run(x, cast(nn.Module, self.net[0].proj))
        return run.narrowed(y, wide, self.net[2])


class Block(Part):
    """A transformer block: self-attention, attention over the prompt, feed-forward, each around a skip."""

    def __init__(self, width: int, heads: int, context: int):
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, heads, width)
        self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, heads, context)
        self.norm3, self.ff = nn.LayerNorm(width), FeedForward(width)

    def forward(self, x: torch.Tensor, prompt: torch.Tensor, run: Run) -> torch.Tensor:
        x = self.attn1(x, self.norm1(x), None, run)
        x = self.attn2.segment(self._look, x, prompt, run)
        return self.ff.segment(self._widen, x, run)

    def _look(self, x: torch.Tensor, prompt: torch.Tensor, run: Run) -> torch.Tensor:
        return self.attn2(x, self.norm2(x), prompt, run)

    def _widen(self, x: torch.Tensor, run: Run) -> torch.Tensor:
        return self.ff(x, self.norm3(x), run)


class Transformer(nn.Module):
    """Transformer blocks over the pixels of (N, c, h, w), around a skip."""

    def __init__(self, width: int, heads: int, depth: int, context: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = listed(Block(width, heads, context) for _ in range(depth))
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, prompt: torch.Tensor, run: Run) -> torch.Tensor:
        tokens = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        (tokens,) = run(tokens, self.proj_in)
        for block in self.transformer_blocks:  # drawing is not worth compiling once more
            tokens = block.segment(block if self.training else block.forward, tokens, prompt, run)
        (tokens,) = run(tokens, self.proj_out)
        return x + tokens.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class Sampler(nn.Module):
    """The convolution that halves the sides, or that follows their doubling."""

    def __init__(self, width: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride, padding=1)


class Level(nn.Module):
    """Residual blocks, each with a transformer or none; for the way down, the middle and the way up."""

    attentions: Sequence[Transformer]  # those three where there are any
    downsamplers: Sequence[Sampler]
    upsamplers: Sequence[Sampler]

    def __init__(
        self, resnets: Sequence[Resnet], attentions: Sequence[Transformer], samplers: str = "", stride: int = 1
    ):
        super().__init__()
        if attentions:  # before the resnets, as diffusers has them: peft draws first values in this order
            self.attentions = listed(attentions)
        self.resnets = listed(resnets)
        if samplers:
            width = resnets[-1].conv2.out_channels
            self.add_module(samplers, nn.ModuleList([Sampler(width, stride)]))


class SdxlUNet(nn.Module):
    """SDXL's U-Net; `fast` is the LoraFast that takes its training steps, `drawing` what computes a picture's."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.config = Config(config)
        self.fast: LoraFast | None = None
        self.drawing: Drawing | None = None
        widths, context, groups = config["block_out_channels"], config["cross_attention_dim"], config["norm_num_groups"]
        eps, count, many = config.get("norm_eps", 1e-5), config["layers_per_block"], len(widths)
        heads, depths = _each(config["attention_head_dim"], many), _each(config["transformer_layers_per_block"], many)
        embedding = 4 * widths[0]

        def resnet(inputs: int, outputs: int) -> Resnet:
            return Resnet(inputs, outputs, embedding, groups, eps)

        def transformers(at: int, number: int, kind: str = "CrossAttn") -> list[Transformer]:
            wanted = number if kind.startswith("CrossAttn") else 0
            return [Transformer(widths[at], heads[at], depths[at], context, groups) for _ in range(wanted)]

        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        self.time_embedding = Embedding(widths[0], embedding)
        self.add_embedding = Embedding(config["projection_class_embeddings_input_dim"], embedding)
        down: list[Level] = []
        up: list[Level] = []
        skips, width = [widths[0]], widths[0]
        for at, kind in enumerate(config["down_block_types"]):
            resnets = [resnet(widths[at] if i else width, widths[at]) for i in range(count)]
            last, width = at == many - 1, widths[at]
            down.append(Level(resnets, transformers(at, count, kind), "" if last else "downsamplers", 2))
            skips += [width] * (count if last else count + 1)
        for at, kind in zip(reversed(range(many)), config["up_block_types"], strict=True):
            inputs = [width, *[widths[at]] * count]
            resnets = [resnet(inputs[i] + skips.pop(), widths[at]) for i in range(count + 1)]
            width = widths[at]
            up.append(Level(resnets, transformers(at, count + 1, kind), "upsamplers" if at else ""))
        self.down_blocks, self.up_blocks = listed(down), listed(up)
        middle = widths[-1]
        self.mid_block = Level([resnet(middle, middle) for _ in range(2)], transformers(many - 1, 1))
        self.conv_norm_out = nn.GroupNorm(groups, widths[0], eps)
        self.conv_out = nn.Conv2d(widths[0], config["out_channels"], 3, padding=1)

    @property
    def dtype(self) -> torch.dtype:
        return self.conv_norm_out.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.conv_norm_out.weight.device

    def enable_gradient_checkpointing(self, policy: str = "whole") -> None:
        """Keep only the inputs of some parts, and compute the rest again in the backward pass.

        whole: residual and transformer blocks. selective: in each transformer block the cross-attention and the
        feed-forward layers, which are large for what they cost. At 1024 px, bf16, rank 16, a picture keeps 4.75 GB
        without, 2.41 GB selective and 0.48 GB whole, for 0, 2.4 and 5.2 more TFLOP on 15.
        """
        for name, part in self.named_modules():
            if isinstance(part, Part):
                selected = name.endswith((".attn2", ".ff"))
                part.recomputed = isinstance(part, (Resnet, Block)) if policy == "whole" else selected

    def attentions_over_text(self) -> list[Attention]:
        """Those over the prompt, in their order, whose blocks are not computed again in the backward pass."""
        blocks = (part for part in self.modules() if isinstance(part, Block))
        return [block.attn2 for block in blocks if not block.recomputed]

    def resnets(self) -> list[Resnet]:
        return [part for part in self.modules() if isinstance(part, Resnet)]

    def compile_repeated_blocks(self, **options: Any) -> None:
        """Compile each transformer block by itself, at its first call; options are those of torch.compile."""
        for part in self.modules():
            if isinstance(part, Block):
                part.compile(**options)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        added_cond_kwargs: Mapping[str, torch.Tensor],
        return_dict: bool = True,
        **unused: Any,
    ) -> Output:
        """What diffusers' UNet2DConditionModel predicts: (N, 4, h, w) from latents, timestep, prompt and time ids.

        `unused` are arguments of diffusers' pipeline that must be None.
        """
        if any(value is not None for value in unused.values()):
            raise TypeError(f"this U-Net does not take {', '.join(unused)}")
        run: Run = plain
        if self.fast is not None and self.training:
            run = self.fast.begin(encoder_hidden_states)
        elif self.drawing is not None and not self.training:
            run = self.drawing.begin(encoder_hidden_states, *added_cond_kwargs.values())
        if run is not plain and run is not self.drawing:  # on CPUs pixels as tokens need no copy then
            sample = sample.contiguous(memory_format=torch.channels_last)
        embedding = F.silu(self._embed(sample, timestep, added_cond_kwargs, run))
        (x,) = run(sample, self.conv_in)
        skips = [x]
        for level in self.down_blocks:
            for i, resnet in enumerate(level.resnets):
                x = self._layer(level, i, resnet, x, embedding, encoder_hidden_states, run)
                skips.append(x)
            if hasattr(level, "downsamplers"):
                (x,) = run(x, level.downsamplers[0].conv)
                skips.append(x)
        first, second = self.mid_block.resnets
        x = self._layer(self.mid_block, 0, first, x, embedding, encoder_hidden_states, run)
        x = second.segment(second, x, embedding, run)
        for level in self.up_blocks:
            for i, resnet in enumerate(level.resnets):
                x = torch.cat([x, skips.pop()], dim=1)
                x = self._layer(level, i, resnet, x, embedding, encoder_hidden_states, run)
            if hasattr(level, "upsamplers"):
                x = F.interpolate(x, size=skips[-1].shape[2:], mode="nearest")  # odd sides are not doubled
                (x,) = run(x, level.upsamplers[0].conv)
        (x,) = run(F.silu(self.conv_norm_out(x)), self.conv_out)
        return Output(x)

    def _embed(
        self, sample: torch.Tensor, timestep: torch.Tensor | float, added: Mapping[str, torch.Tensor], run: Run
    ) -> torch.Tensor:
        """The embedding of timestep, pooled prompt and time ids; sinusoids in fp32, for bf16 makes 1024 of 1023."""
        many, config = len(sample), self.config
        when = torch.as_tensor(timestep, device=sample.device).expand(many)
        time = self.time_embedding(sinusoid(when, config.block_out_channels[0]), run)
        return time + (self._add(added, run) if run is not self.drawing else self.drawing.once(self._add, added))

    def _add(self, added: Mapping[str, torch.Tensor], run: Run) -> torch.Tensor:
        """What pooled prompt and time ids add to the embedding of the timestep."""
        many, width = len(added["text_embeds"]), self.config.addition_time_embed_dim
        sizes = sinusoid(added["time_ids"].flatten(), width).reshape(many, -1)
        return self.add_embedding(torch.cat([added["text_embeds"], sizes], dim=-1), run)

    def _layer(self, level: Level, i: int, resnet: Resnet, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        """One residual block and its transformer, if it has one."""
        embedding, prompt, run = rest
        x = resnet.segment(resnet, x, embedding, run)
        return level.attentions[i](x, prompt, run) if hasattr(level, "attentions") else x


def _each(value: int | Sequence[int], many: int) -> Sequence[int]:
    return [value] * many if isinstance(value, int) else value
