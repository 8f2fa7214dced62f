"""The pixel checker as a scorer: does a picture show what its prompt asks for?

    python -m sdxl_nb.score output/tiny --scorer sdxl_nb.tiny.scorer:checker

A prompt with "blueprint" asks for a blueprint of the shape that it names, any other for the shape, the colour and the
ground in its words. For the embedded base alone; nothing of the package imports it.
"""

import re

from PIL import Image

from ..scoring.evidence import Evidence
from ..scoring.scorer import scorer
from ..system.errors import SdxlNbError
from .checker import is_blueprint, read
from .draw import COLOURS, SHAPES


@scorer("checker", better="higher")
def checker(evidence: Evidence) -> list[list[float]]:
    """Share of pictures that show what their prompt asks for, read from their pixels."""
    asked = [wanted(prompt) for prompt in evidence.prompts]
    return [[float(shows(p, *one)) for p in row] for row, one in zip(evidence.pictures, asked, strict=True)]


def wanted(prompt: str) -> tuple[bool, str, list[str]]:
    """Whether a blueprint, the shape, and the colours of thing and ground. SdxlNbError for a prompt without a shape."""
    words = re.findall(r"[a-z]+", prompt.lower())
    shapes = [word for word in words if word in SHAPES]
    if not shapes:
        raise SdxlNbError(f"The checker knows no shape in {prompt!r}: name one of {', '.join(SHAPES)}.")
    return "blueprint" in words, shapes[0], [word for word in words if word in COLOURS]


def shows(picture: Image.Image, blueprint: bool, shape: str, colours: list[str]) -> bool:
    """Whether the picture is what was asked for."""
    if blueprint:
        return is_blueprint(picture, shape)
    found = read(picture)
    return found.shape == shape and [found.colour, found.background][: len(colours)] == colours[:2]
