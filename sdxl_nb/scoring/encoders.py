"""Encoders of pictures and texts, by name: CLIP, SigLIP, DINOv2 or another of transformers, a folder, or `pixels`.

In: a hub id or a folder with safetensors; nothing pickled is read and no code of a repository is run. Out: embeddings
of length 1. `pixels` is no model: the picture itself at 32 x 32, for what needs no download.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..models.quiet import hushed
from ..models.sources import PICKLES, find, locate
from ..system.errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

PIXELS = "pixels"
IMAGE, TEXT = "facebook/dinov2-base", "openai/clip-vit-large-patch14"
SIDE = 32  # pixels
AT_ONCE = 16  # pictures


class Encoder(Protocol):
    """Pictures as (N, D) and texts as (N, D) float32 of length 1, and how many texts were cut."""

    name: str

    def pictures(self, pictures: "Sequence[Image]") -> np.ndarray: ...

    def texts(self, texts: Sequence[str]) -> tuple[np.ndarray, int]: ...


class Pixels:
    """The middle square of a picture at 32 x 32, its colours around mid-grey."""

    name = PIXELS

    def pictures(self, pictures: "Sequence[Image]") -> np.ndarray:
        """(N, 3072)."""
        from PIL import Image, ImageOps

        squares = (ImageOps.fit(p.convert("RGB"), (SIDE, SIDE), Image.Resampling.BOX) for p in pictures)
        return unit(np.stack([np.asarray(square, np.float32).ravel() / 127.5 - 1 for square in squares]))

    def texts(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        raise ModelError("pixels reads no text: give a CLIP or SigLIP as the text encoder.")


class Pretrained:
    """A model of transformers that embeds pictures, and texts where it can. Raises ModelError."""

    def __init__(self, name: str):
        import torch

        self.name, place = name, located(name)
        files_of(name)  # what the hub does not have, or cannot be asked for, is said in one sentence
        with hushed():
            from transformers import AutoImageProcessor, AutoModel

            self._processor = loaded(AutoImageProcessor, place)
            self._model = loaded(AutoModel, place, use_safetensors=True).eval()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer: Any = None

    @property
    def reads_text(self) -> bool:
        """Whether it embeds texts too."""
        return hasattr(self._model, "get_text_features")

    def pictures(self, pictures: "Sequence[Image]") -> np.ndarray:
        """(N, D): the projection of a CLIP or SigLIP, the pooled output of others."""
        call = getattr(self._model, "get_image_features", self._model)
        portions = [pictures[first : first + AT_ONCE] for first in range(0, len(pictures), AT_ONCE)]
        return unit(np.concatenate([self._run(call, self._pixels(portion)) for portion in portions]))

    def _pixels(self, pictures: "Sequence[Image]") -> dict[str, Any]:
        found = self._processor(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        return {"pixel_values": found["pixel_values"]}

    def texts(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """(N, D), and how many texts were longer than the model reads."""
        if not self.reads_text:
            raise ModelError(f"{self.name} reads no text: give a CLIP or SigLIP as the text encoder.")
        if self._tokenizer is None:
            with hushed():
                from transformers import AutoTokenizer

                self._tokenizer = loaded(AutoTokenizer, located(self.name))
        most = self._model.config.text_config.max_position_embeddings
        whole = "max_length" if self._model.config.model_type.startswith("siglip") else True  # as it was trained
        cut = sum(len(ids) > most for ids in self._tokenizer(list(texts))["input_ids"])
        tokens = self._tokenizer(list(texts), padding=whole, truncation=True, max_length=most, return_tensors="pt")
        wanted = {key: tokens[key] for key in ("input_ids", "attention_mask") if key in tokens}
        return unit(self._run(self._model.get_text_features, wanted)), cut

    def _run(self, call: Any, tensors: dict[str, Any]) -> np.ndarray:
        import torch

        self._model.to(self._device)
        with torch.no_grad():
            found = call(**{key: tensor.to(self._device) for key, tensor in tensors.items()})
        found = getattr(found, "pooler_output", found)  # of transformers 5 an output, before the tensor itself
        if not isinstance(found, torch.Tensor):
            raise ModelError(f"{self.name} gives no embedding of a whole picture: use CLIP, SigLIP or DINOv2.")
        return found.float().cpu().numpy()


class AestheticHead:
    """Linear layers, one after the other, in a safetensors file: LAION's predictors in that form. Raises ModelError."""

    def __init__(self, path: str):
        from safetensors.numpy import load_file

        if not path.endswith(".safetensors"):
            raise ModelError(f"the aesthetic head {path} must be a .safetensors file of linear layers.")
        try:
            tensors = load_file(Path(path).expanduser())
        except Exception as error:  # OSError, and safetensors' own
            raise ModelError(f"the aesthetic head {path} cannot be read: {error}") from error
        names = sorted((n.removesuffix(".weight") for n in tensors if n.endswith("weight")), key=_place)
        self.layers = [(tensors[_with(n, "weight")], tensors.get(_with(n, "bias"), np.zeros(1))) for n in names]
        widths = [weight.shape for weight, _ in self.layers]
        fits = all(len(w) == 2 for w in widths) and all(b[1] == a[0] for a, b in pairwise(widths))
        if not widths or not fits or widths[-1][0] != 1:
            raise ModelError(f"the aesthetic head {path} must hold linear layers that end in one number.")

    def __call__(self, embedded: np.ndarray) -> np.ndarray:
        """(...,) for embeddings (..., D)."""
        if embedded.shape[-1] != self.layers[0][0].shape[1]:
            wide = self.layers[0][0].shape[1]
            raise ModelError(
                f"the aesthetic head takes {wide} numbers and the text encoder gives {embedded.shape[-1]}: give the "
                "CLIP that it was made for."
            )
        for weight, bias in self.layers:
            embedded = embedded @ weight.astype(np.float32).T + bias
        return embedded[..., 0]


def _place(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in name.split(".")]


def _with(name: str, end: str) -> str:
    return end if name in ("", "weight") else f"{name}.{end}"


def open_encoder(name: str) -> Encoder:
    """The encoder of this name, loaded. Raises ModelError, with the reason and what to give instead."""
    return Pixels() if name == PIXELS else Pretrained(name)


def located(name: str, what: str = "an encoder") -> str:
    """The folder or hub id; ModelError for a pickle, an address, and a folder without safetensors."""
    place = locate(name)
    if Path(place).is_dir():
        if not any(Path(place).glob("*.safetensors")):
            pickled = any(path.name.endswith(PICKLES) for path in Path(place).iterdir())
            why = "pickles, which can run code, and no .safetensors" if pickled else "no .safetensors file"
            raise ModelError(f"{name} holds {why}: give the folder of {what} as save_pretrained writes it.")
    elif Path(place).exists():
        raise ModelError(f"{name} is a file: give the folder of {what}, or its hub id (owner/name).")
    return place


def files_of(name: str) -> list[Path]:
    """The files that say which encoder this is: all of a folder, or config.json in the hub's snapshot."""
    place = located(name)
    if Path(place).is_dir():
        return sorted(path for path in Path(place).iterdir() if path.suffix in (".json", ".safetensors", ".txt"))
    try:
        found = find(place, "config.json")
    except ModelError as error:
        raise ModelError(f"The encoder: {error} Or give a local folder, or pixels as the image encoder.") from error
    if found is None:
        raise ModelError(f"{name} has no config.json: give a CLIP, SigLIP or DINOv2 of transformers.")
    return [found]


def loaded(kind: Any, place: str, what: str = "an encoder", **options: Any) -> Any:
    """`from_pretrained`, without a repository's own code; its errors as one sentence."""
    try:
        return kind.from_pretrained(place, trust_remote_code=False, **options)
    except Exception as error:  # OSError, ValueError, KeyError, huggingface_hub's and safetensors' own
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{place} is not {what} that transformers reads from safetensors: {first}") from error


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row at length 1; one of zeros stays."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
