"""What tells the data of a run from any other: whoever resumes it must have the same.

In: the pictures that are trained on or held out, their masks and opposites. Out: SHA-256 in hexadecimal.
"""

import hashlib
import json

from ...data.dataset import CaptionedPictures
from ...data.masks import Masks


def fingerprint(
    pictures: CaptionedPictures, masks: Masks | None = None, opposites: CaptionedPictures | None = None
) -> str:
    """SHA-256 over every picture's bytes and caption, in order, what its folder says of it, its mask and its opposite.

    Settings that a data file has for a folder are part of it, what its folders are called is not.
    """
    digest = hashlib.sha256()
    for identity, caption in zip(pictures.identities(), pictures.captions, strict=True):
        digest.update(f"{identity} {caption}\n".encode(errors="backslashreplace"))
    if pictures.further is not None:
        for index in range(len(pictures)):
            digest.update(f"{index} {json.dumps(pictures.alternatives(index))}\n".encode())
    for column in (pictures.repeats, pictures.weights):
        if column is not None:
            digest.update(column.tobytes())
    if pictures.folders is not None:
        digest.update(pictures.folders.told())
    for key in masks.keys if masks else ():
        digest.update(key.ljust(16, b"\0"))
    if opposites is not None:
        for index in range(len(opposites)):
            digest.update(f"opposite {opposites.identity(index)}\n".encode())
    return digest.hexdigest()
