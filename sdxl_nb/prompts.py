"""Captions as SDXL's U-Net wants them: the penultimate hidden states of both text encoders, and a pooled embedding.

SDXL paper (arXiv 2307.01952), section 2.1. An empty caption is all zeros, as in diffusers' pipeline
(`force_zeros_for_empty_prompt`), so that training without a caption and guidance away from none are the same thing.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch


class Prompt(NamedTuple):
    """`hidden` (N, tokens, width of both encoders) and `pooled` (N, width of the second)."""

    hidden: torch.Tensor
    pooled: torch.Tensor


class TextEncoders:
    """Both tokenizers and encoders; `encode(captions)` keeps gradients where the encoders have any to keep."""

    def __init__(self, tokenizers: Sequence[Any], encoders: Sequence[Any]):
        self.tokenizers, self.encoders = tuple(tokenizers), tuple(encoders)

    def encode(self, captions: Sequence[str]) -> Prompt:
        """One Prompt for a batch of captions; longer ones than the tokenizers take are cut."""
        hidden, pooled = [], None
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            device = next(encoder.parameters()).device
            ids = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
            out = encoder(ids.to(device), output_hidden_states=True)
            hidden.append(out.hidden_states[-2])
            pooled = getattr(out, "text_embeds", None)
        filled = torch.tensor([bool(caption) for caption in captions], device=pooled.device)
        return Prompt(torch.cat(hidden, dim=-1) * filled[:, None, None], pooled * filled[:, None])

    __call__ = encode


class EmbeddedPrompts:
    """The embeddings of known captions, computed once; a call looks them up."""

    def __init__(
        self,
        encoders: TextEncoders,
        captions: Sequence[str],
        progress: Callable[[int, int], None] | None = None,
        batch: int = 32,
    ):
        self.index = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
        parts, texts = [], list(self.index)
        with torch.no_grad():
            for first in range(0, len(texts), batch):
                parts.append(Prompt(*(t.cpu() for t in encoders.encode(texts[first : first + batch]))))
                if progress:
                    progress(min(first + batch, len(texts)), len(texts))
        self.prompts = Prompt(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def __call__(self, captions: Sequence[str]) -> Prompt:
        rows = torch.tensor([self.index[caption] for caption in captions])
        return Prompt(self.prompts.hidden[rows], self.prompts.pooled[rows])
