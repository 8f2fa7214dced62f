"""Many cached pictures without their hours of encoding: names that share few files, rows that are copies of few.

In: a folder and a count. Out: captioned pictures in subfolders, and `install`, after which a training run of this
process fills the caches with copies: of each shape one picture is encoded, of captions the first few, and what is
known of a file is made up from its name. Keys, shards and the memory of files are written by sdxl_nb's own code, so
that the next process finds what a real first run would have left.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIDES = ((80, 80), (96, 80), (160, 72), (72, 160), (80, 112), (180, 80))  # heights and widths, in turn
PLACE = 10_000  # pictures of a subfolder; each file has that many names at most
CAPTIONS = 50_000  # different ones at most: an embedding of base t takes 20 kB


def make(folder: Path, count: int) -> None:
    """So many names of pictures, each with a caption in metadata.jsonl."""
    from PIL import Image

    rng = np.random.default_rng(0)
    with open(_made(folder) / "metadata.jsonl", "w") as lines:
        for number in range(count):
            place, at = f"{number // PLACE:03d}", number % len(SIDES)
            if number % PLACE < len(SIDES):
                pixels = rng.integers(0, 256, (*SIDES[at], 3), np.uint8)
                Image.fromarray(pixels).save(_made(folder / place) / f"{number:07d}.jpg")
            else:
                first = number // PLACE * PLACE + (at - number // PLACE * PLACE) % len(SIDES)
                os.link(folder / place / f"{first:07d}.jpg", folder / place / f"{number:07d}.jpg")
            text = f"pattern {number % CAPTIONS} of soft colours"
            lines.write(f'{{"file_name": "{place}/{number:07d}.jpg", "text": "{text}"}}\n')


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def install() -> None:
    """Have this process fill its caches with copies."""
    from sdxl_nb.cache.embeddings import EmbeddedPrompts
    from sdxl_nb.cache.latents import CachedLatents, encode_alike
    from sdxl_nb.data import file_facts

    def look(pictures: Any, names: Sequence[str], index: int) -> file_facts.Known:
        name = names[index]
        size = SIDES[int(Path(name).stem) % len(SIDES)]
        return file_facts.Known(hashlib.sha256(name.encode()).digest(), *size)

    def latents(self: CachedLatents, rows: np.ndarray, vae: Any, batch: int | None, progress: Callable[[int], None]):
        shapes: dict[tuple[int, int], list[int]] = {}
        for row in rows.tolist():
            shapes.setdefault(self.target(row // self.variants), []).append(row)
        for alike in shapes.values():
            (piece,) = self._cut(alike[:1])
            mean, std = encode_alike(vae, [piece.pixels], 1)
            with self.store.writer() as writer:
                for row in alike:
                    time_ids = _tensor(self.variant(*divmod(row, self.variants)).time_ids)
                    writer.add(_key(self.keys[row]), mean=mean[0], std=std[0], time_ids=time_ids)

    def prompts(self: EmbeddedPrompts, mine: np.ndarray, encoders: Any, batch: int, progress: Any, total: int):
        few = mine[:batch].tolist()
        hidden, pooled = (each.detach().cpu() for each in encoders.encode([self._text(number) for number in few]))
        with self.store.writer() as writer:
            for number in mine.tolist():
                at = number % len(few)
                writer.add(_key(self.keys[number]), hidden=hidden[at], pooled=pooled[at], cut=_tensor([0], "int32"))

    file_facts._look, CachedLatents._fill, EmbeddedPrompts._fill = look, latents, prompts


def _key(key: Any) -> bytes:
    return bytes(key).ljust(16, b"\0")


def _tensor(values: Sequence[int], dtype: str = "float32") -> Any:
    import torch

    return torch.tensor(values, dtype=getattr(torch, dtype))
