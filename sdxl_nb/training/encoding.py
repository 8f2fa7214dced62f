"""What the frozen encoders make of pictures and captions, once: latents, masks and prompt embeddings, kept in caches.

In: a Studio's pictures, captions and models. Out: its `prompt`, `latents` and `masks`. What is cached already is not
computed again, and the models for it are never loaded.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ..cache.embeddings import EmbeddedPrompts, TextEncoders
from ..cache.identity import combined, identity
from ..cache.latents import CachedLatents, HollowedLatents, LiveLatents, cache_folder
from ..cache.masks import CachedMasks, LiveMasks
from ..cache.shards import Store
from ..data.captions import LongCaption, long_captions
from ..data.words.chunks import Chunks
from ..models.files import vae_config
from ..models.stored import apart
from ..runs.events import EventLog
from ..system.errors import Stopped
from ..system.memory import give_back
from ..system.progress import counting_bar
from .teachers import prior, slider

if TYPE_CHECKING:
    from .setup import Studio

TEXT_PARTS = ("text_encoder", "text_encoder_2")
EVENT_EVERY = 1.0  # seconds between two events that say how far caching is


class Encoding:
    """One pass over what a run has to encode; `asked` says that the run is to stop, which raises Stopped."""

    def __init__(self, studio: "Studio", log: EventLog, asked: Callable[[], bool]):
        self.studio, self.config, self.log, self.asked = studio, studio.config, log, asked

    def prompts(self) -> EmbeddedPrompts | TextEncoders:
        """The embeddings of every caption; where captions vary, the encoders that embed them at each step."""
        studio = self.studio
        if not studio.keeps_embeddings:
            bar = counting_bar("reading captions", studio.progress)
            self._note_long(self._long(studio.every_caption, bar))
            return studio.text_encoders(studio.encoders)
        others = [*self._drawn(), *prior.prompts(self.config), *slider.prompts(self.config)]
        known = EmbeddedPrompts(studio.every_caption, others, self._prompts())
        load_both = functools.cache(lambda: studio.text_encoders(studio.load_encoders()))
        known.fill(load_both, self._progress("captions"), studio.processes)
        load_both.cache_clear()
        give_back(studio.device)
        known.forget_keys()
        cut = known.cut()
        if len(cut):
            (first,) = self._long([studio.every_caption[int(cut[0])]])
            self._note_long([first._replace(index=int(cut[0]))] * len(cut))
        return known

    def _drawn(self) -> list[str]:
        """What is embedded to be drawn: prompts, those that guidance leads away from, and nothing."""
        away = dict.fromkeys(drawing.negative for drawing in self.config.drawings())
        return list(dict.fromkeys(["", *self.config.drawn_prompts(), *away]))

    def _long(self, captions: Sequence[str], bar: Callable[[int, int], None] | None = None) -> list[LongCaption]:
        """Those of the captions that are cut."""
        return long_captions(captions, self.studio.tokenizers, bar, chunks=self.config.chunks())

    def _prompts(self) -> Store:
        """The store of embeddings that these encoders, at this precision, made."""
        studio = self.studio
        parts = [identity(studio.source, name, studio.memo) for name in ("tokenizer", "tokenizer_2", *TEXT_PARTS)]
        stored = apart(self.config.base_precision, studio.dtype)
        empty = () if studio.objective.zeros_for_empty else ("empty captions encoded",)
        frozen = studio.frozen
        below = [studio.base["base_lora"]] if frozen and any(map(frozen.touches, TEXT_PARTS)) else []
        chunks = [f"{self.config.chunks()} chunks"] if self.config.chunks() > 1 else []
        layer = [f"clip skip {self.config.clip_skip}"] if self.config.clip_skip != 2 else []
        made_by = combined(*parts, studio.dtype, *([stored] if stored else []), *empty, *below, *chunks, *layer)
        return self._store("prompts", made_by, "--no_cache_text_embeddings")

    def _note_long(self, cut: Sequence[LongCaption]) -> None:
        studio = self.studio
        if cut:
            first = cut[0]
            limit = min(Chunks(tokenizer, self.config.chunks()).limit for tokenizer in studio.tokenizers)
            self.log.warn(
                f"{len(cut)} of {len(studio.every_caption)} captions are longer than {limit} tokens and are cut; "
                f"{studio.everything.names[studio.everything.owner(first.index)]} loses {first.cut!r}."
            )

    def pictures(self) -> CachedLatents | LiveLatents:
        """The latents of every picture; without a cache, what encodes them at each step."""
        studio, config, latents = self.studio, self.config, self.studio.objective.latents
        if not studio.caches_latents:
            live = HollowedLatents if studio.objective.inpaints else LiveLatents
            return live(studio.encoded, config, studio.vae.to(studio.device), studio.shape, latents)
        about = vae_config(studio.source)
        dtype = torch.float32 if about.get("force_upcast", True) else studio.dtype  # as load_vae does
        digest = identity(studio.source, "vae", studio.memo, dtype, *(["tiles"] if config.vae_tiling else []))
        store = self._store("latents", digest, "--no_cache_latents")
        cached = CachedLatents(studio.encoded, config, latents, store, studio.shape)
        cached.fill(lambda: studio.vae.to(studio.device), self._progress("pictures"), studio.processes)
        cached.forget_keys()
        studio.let_vae_go()
        if cached.moving and not any(each.uses_buckets() for each in studio.configs):
            self.log.warn(
                f"{cached.moving} pictures are not square: with cached latents each keeps one crop, its "
                "middle, in every epoch; --cached_variants 4 keeps several, --no_cache_latents draws a new random crop "
                "each time, but is slower."
            )
        return cached

    def masks(self, latents: CachedLatents | LiveLatents) -> LiveMasks | None:
        """The masks of masked_loss, cut as these latents are."""
        given = self.studio.given_masks
        if not given:
            return None
        scale = 2 ** (len(vae_config(self.studio.source)["block_out_channels"]) - 1)
        if isinstance(latents, LiveLatents):
            return LiveMasks(given, latents, scale)
        cached = CachedMasks(given, latents, scale, self._store("masks", "1", "--no_cache_latents"))
        cached.fill(self._progress("masks"), self.studio.processes)
        return cached

    def tell(self, prompt: EmbeddedPrompts | TextEncoders) -> None:
        """The event that caching is over."""
        captions = {"captions": len(prompt)} if isinstance(prompt, EmbeddedPrompts) else {}
        if captions or self.studio.caches_latents:
            self.log.emit("cache", pictures=len(self.studio.everything), **captions)

    def _store(self, kind: str, digest: str, without: str) -> Store:
        """The rows of this kind that were made by parts of this identity."""
        advice = f"choose another with --latents_cache_dir, or add {without}"
        return Store(cache_folder(self.config) / kind / digest, advice, self.log.warn)

    def _progress(self, kind: str) -> Callable[[int, int], None]:
        """Shows progress as a bar, and as an event about once a second; raises Stopped when the run is to stop."""
        bar, last = counting_bar(f"encoding {kind}", self.studio.progress), time.monotonic()

        def update(done: int, total: int) -> None:
            nonlocal last
            bar(done, total)
            if time.monotonic() - last > EVENT_EVERY:
                last = time.monotonic()
                self.log.emit("cache", kind=kind, done=done, total=total)
            if self.asked():
                raise Stopped(f"Stopped after {done:,} of {total:,} {kind} were encoded.")

        return update
