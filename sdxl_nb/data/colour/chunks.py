"""The chunks of a PNG that are no pixels: what they say of its colours, and those that Pillow cannot take.

In: the bytes of a file, of which nothing is decoded. Out: its colour chunks, or the file without texts and profiles
that Pillow would refuse it for. Nothing here raises for a damaged file: what cannot be read is not there.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 32 << 20  # bytes; a printer's profile has a few million
PILLOW_CHUNK = 1 << 20  # PngImagePlugin.MAX_TEXT_CHUNK: beyond it Pillow refuses the whole file
PILLOW_TEXT = 32 << 20  # all texts of a file together; Pillow's own limit is twice that
LEAST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}  # bytes
DEFLATE = 1100  # no deflated byte becomes more than 1,032


class Chunk(NamedTuple):
    """A PNG chunk: its name, and where it begins (at its length) and ends (after its checksum) in the file."""

    name: bytes
    start: int
    end: int


def chunks(data: bytes) -> Iterator[Chunk]:
    """The whole chunks of a PNG, in order; none of a file that is not one."""
    at = len(SIGNATURE) if data.startswith(SIGNATURE) else len(data)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield Chunk(data[at + 4 : at + 8], at, end)
        at = end


def colour_chunks(data: bytes) -> dict[bytes, bytes]:
    """The contents of the first IHDR, cICP, iCCP, sRGB, gAMA and cHRM before the pixels."""
    found: dict[bytes, bytes] = {}
    for name, start, end in chunks(data):
        if name == b"IDAT":
            break
        if name in (b"IHDR", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"):
            found.setdefault(name, data[start + 8 : end - 4])
    return found


def png_profile(chunk: bytes) -> bytes | None:
    """The profile in an iCCP chunk, up to MAX_PROFILE bytes; None where it is damaged or larger."""
    _, _, rest = chunk.partition(b"\0")
    return inflated(rest[1:], MAX_PROFILE) if rest[:1] == b"\0" else None


def inflated(packed: bytes, limit: int) -> bytes | None:
    """What zlib packed, or None where it is damaged, cut short or more than `limit` bytes."""
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(packed, limit)
    except zlib.error:
        return None
    return content if unpacking.eof else None


def openable(data: bytes) -> bytes:
    """A PNG without the texts, profiles and cut colour chunks that Pillow refuses a whole file for; the rest as it is.

    Other files, and nearly every PNG, come back as they are, uncopied.
    """
    bulky, texts = [], 0
    for chunk in chunks(data):
        size = _unpacked(data, chunk)
        texts += size if chunk.name != b"iCCP" else 0
        if size > PILLOW_CHUNK or (size and texts > PILLOW_TEXT) or _is_cut(data, chunk):
            bulky.append(chunk)
    if not bulky:
        return data
    edges = [0, *(edge for chunk in bulky for edge in (chunk.start, chunk.end)), len(data)]
    return b"".join(data[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))


def _is_cut(data: bytes, chunk: Chunk) -> bool:
    if chunk.name == b"iCCP":
        return b"\0\0" not in data[chunk.start + 8 : min(chunk.start + 90, chunk.end - 4)]
    return chunk.end - chunk.start - 12 < LEAST.get(chunk.name, 0)


def _unpacked(data: bytes, chunk: Chunk) -> int:
    """How many bytes of text or profile a chunk is to Pillow, at most one more than PILLOW_CHUNK; 0 for others."""
    size = chunk.end - chunk.start
    if chunk.name not in (b"iCCP", b"tEXt", b"zTXt", b"iTXt"):
        return 0
    packed = _packed(data[chunk.start + 8 : chunk.end - 4], chunk) if size * DEFLATE > PILLOW_CHUNK else b""
    if not packed:
        return size
    unpacking = zlib.decompressobj()
    try:
        return len(unpacking.decompress(packed, PILLOW_CHUNK)) + bool(unpacking.unconsumed_tail)
    except zlib.error:
        return 0


def _packed(content: bytes, chunk: Chunk) -> bytes:
    """The compressed part of a chunk; empty where nothing is."""
    _, _, rest = content.partition(b"\0")
    if chunk.name in (b"iCCP", b"zTXt"):
        return rest[1:]
    if chunk.name == b"iTXt" and rest[:1] == b"\1":
        return rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return b""
