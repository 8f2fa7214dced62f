"""Which colours did the eye see?

A file's own statements about its colours in; its pixels in sRGB, or the reason why they cannot be, out.
"""

from ...system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "colours_of": "statements",  # an opened picture -> what its file says of its colours
        "HighRange": "statements",  # colours that sRGB cannot hold
        "Colours": "conversion",  # a profile, or None for sRGB, and what cannot be honoured
        "to_srgb": "conversion",  # decoded pixels -> RGB in sRGB
        "low_bytes": "depth",  # the other half of 16-bit colours
        "as_meant": "tiffs",  # an opened TIFF -> one that Pillow decodes as it was meant
        "openable": "chunks",  # a PNG without what Pillow refuses it for
    },
)
