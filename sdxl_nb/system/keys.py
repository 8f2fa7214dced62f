"""What rows of caches are told apart by: any parts in, 16 bytes out."""

import hashlib


def key_of(*parts: object) -> bytes:
    """The 16-byte key of a row that is told by these parts."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(errors="surrogatepass"), digest_size=16).digest()
