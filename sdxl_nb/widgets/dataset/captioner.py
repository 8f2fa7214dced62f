"""A captioner by name: a model of transformers that says in words what a picture shows.

In: a hub id or a folder with safetensors (BLIP, GIT, a vision encoder-decoder, LLaVA and other models that one asks
about a picture), and a picture. Out: its caption. Nothing pickled is read and no code of a repository is run. The model
is read when the first caption is asked for, and given back after the last one.
"""

import os
from collections.abc import Callable
from typing import Any

from PIL.Image import Image

from ...config.messages import shown
from ...models.quiet import hushed
from ...models.sources import find
from ...scoring.encoders import loaded, located
from ...system.errors import DataError, ModelError
from ...system.memory import give_back

WHAT = "a captioner"
QUESTION = "Describe this picture in one sentence, as a caption: what is seen, where, and in which style."
SUCH = "Salesforce/blip-image-captioning-base"
LONGEST = 75  # new tokens: what SDXL reads of a caption


class Captioner:
    """A function of a picture, as `captioner=` takes it. `question` is asked of a model that answers one.

    A model that only describes (BLIP, GIT) goes on from `question` where one is given. Raises ModelError for what is no
    folder of a model.
    """

    def __init__(self, name: str | os.PathLike[str], question: str | None = None, longest: int = LONGEST):
        self.name, self.question, self.longest = os.fspath(name), question, longest
        self._place = located(self.name, WHAT)
        if self.name.startswith(("/", "./", "../", "~")):
            self._described()
        self._model: Any = None
        self._reader: Any = None  # of pictures and words, where the model has one for both
        self._parts: tuple[Any, Any] = None, None  # the reader of pictures, and that of words

    @property
    def is_loaded(self) -> bool:
        return self._model is not None

    def load(self) -> None:
        """Read the model, from the hub too. Raises ModelError."""
        import torch

        self._described()
        with hushed("transformers"):
            from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

            reader = loaded(AutoProcessor, self._place, WHAT)
            if hasattr(reader, "image_processor") and hasattr(reader, "tokenizer"):
                self._reader, self._parts = reader, (reader.image_processor, reader.tokenizer)
            else:
                self._parts = tuple(loaded(kind, self._place, WHAT) for kind in (AutoImageProcessor, AutoTokenizer))
            on_gpu = torch.cuda.is_available()
            options = {"use_safetensors": True, "dtype": "auto" if on_gpu else torch.float32}
            model = loaded(AutoModelForImageTextToText, self._place, WHAT, **options)
            self._model = model.eval().to("cuda" if on_gpu else "cpu")

    def _described(self) -> None:
        """Raise ModelError where no model lies, or the hub cannot be asked for it."""
        if find(self._place, "config.json") is None:
            raise ModelError(f"{self.name} has no config.json: give a captioner's folder, or a hub id such as {SUCH}.")

    def __call__(self, picture: Image) -> str:
        """What the model says of the picture, in one line. Raises ModelError."""
        if not self.is_loaded:
            self.load()
        try:
            with hushed("transformers"):
                return self._said(picture.convert("RGB"))
        except Exception as error:  # whatever a model says of what it was given
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelError(f"The captioner {self.name} did not describe a picture: {first}") from error

    def _said(self, picture: Image) -> str:
        import torch

        given = {
            name: each.to(self._model.device, self._model.dtype if each.is_floating_point() else each.dtype)
            for name, each in self._inputs(picture).items()
            if isinstance(each, torch.Tensor)
        }
        with torch.no_grad():
            ids = self._model.generate(**given, max_new_tokens=self.longest, do_sample=False)[0]
        asked = given.get("input_ids")
        if asked is not None and torch.equal(ids[: asked.shape[1]], asked[0]) and self._asks:
            ids = ids[asked.shape[1] :]  # some repeat the question
        return " ".join(self._parts[1].decode(ids, skip_special_tokens=True).split())

    @property
    def _asks(self) -> bool:
        """Whether the model answers questions, in turns of a talk."""
        return bool(getattr(self._reader, "chat_template", None))

    def _inputs(self, picture: Image) -> dict[str, Any]:
        if self._reader is None:
            return dict(self._parts[0](images=picture, return_tensors="pt"))
        if not self._asks:
            words = {"text": self.question} if self.question else {}
            return dict(self._reader(images=picture, **words, return_tensors="pt"))
        content = [{"type": "image", "image": picture}, {"type": "text", "text": self.question or QUESTION}]
        talk = [{"role": "user", "content": content}]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return dict(self._reader.apply_chat_template(talk, **options))

    def close(self) -> None:
        """Give the memory back; the next picture reads the model again."""
        if self.is_loaded:
            self._model, self._reader, self._parts = None, None, (None, None)
            give_back()


def captioner_of(given: object) -> Callable[[Image], str] | None:
    """What `captioner=` was given, as a function: a name becomes a Captioner. Raises DataError, ModelError."""
    if isinstance(given, str | os.PathLike):
        return Captioner(given)
    if given is None or callable(given):
        return given
    raise DataError(f"captioner must be a function of a picture, or the name of a model, not {shown(given)}.")


def words_of(caption: object, name: str) -> str:
    """The caption that came back for a picture, in one line. Raises DataError for what is no text."""
    if not isinstance(caption, str):
        raise DataError(f"The captioner gave {shown(caption)} for {name}, not words: have it return a text.")
    return " ".join(caption.split())
