"""What is said of a picture, and how is it written?

Texts as programs and people write them in; captions in plain words out.
"""

from ...system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "calls": "trigger",  # whether a caption has the trigger word, as a whole word
        "Chunks": "chunks",  # captions longer than a text encoder takes
        "with_trigger": "trigger",  # a caption with the trigger word in front
        "said_syntax": "syntax",  # the sentence about weights, LoRAs and wildcards in prompts
        "cleaned": "tags",  # booru's tags as words
        "carried": "carried",  # the captions that a picture file carries
        "captions_of": "sidecars",  # the captions in a JSON file beside a picture
    },
)
