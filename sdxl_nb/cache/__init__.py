"""What is computed once? Pictures and captions in; latents and embeddings out, from files that runs share."""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "CachedLatents": "latents",  # latents from a Store
        "LiveLatents": "latents",  # latents encoded anew for each batch
        "cache_folder": "latents",  # the folder that runs share
        "EmbeddedPrompts": "embeddings",  # embeddings from a Store
        "TextEncoders": "embeddings",  # captions -> embeddings
        "Prompt": "embeddings",  # what the U-Net gets of a text
        "Store": "shards",  # rows under keys, complete or absent
    },
)
