"""What a frozen part of the base is: a digest of its files, found without loading it. Caches are kept under it.

In: a Source, the name of a part and a Memo, by which unchanged files are not read again. Out: a text that is the same
for the same weights and configuration wherever they lie, and another for any others.
"""

import hashlib

from ..data.file_facts import Memo
from ..models.files import files
from ..models.sources import Source

# Raised when our own code comes to make other latents or embeddings of the same input (data.decoding, data.crops,
# latents.encode, TextEncoders.encode): what former versions cached is then computed anew.
FORMAT = 2


def identity(source: Source, part: str, memo: Memo, *more: object) -> str:
    """32 hexadecimal digits for a part's files and whatever else `more` says matters. Raises ModelError."""
    digest = hashlib.blake2b(repr((FORMAT, part, *more)).encode(), digest_size=16)
    for path in files(source, part):
        digest.update(f"\n{path.name} ".encode() + memo.file_digest(path))
    return digest.hexdigest()


def combined(*identities: object) -> str:
    """One identity of several."""
    return hashlib.blake2b("\n".join(map(str, identities)).encode(), digest_size=16).hexdigest()
