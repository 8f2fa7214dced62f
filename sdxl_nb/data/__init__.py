"""What are the pictures and captions?

A folder, table, hub data set or S3 prefix in; names, captions, pictures and sizes out, and what a step sees of them.
"""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "open_dataset": "dataset",  # TrainConfig -> CaptionedPictures
        "CaptionedPictures": "dataset",  # pictures and captions, decoded when asked for
        "decode": "decoding",  # encoded bytes -> an upright RGB picture
        "PictureError": "decoding",  # one picture that cannot be used
        "divide": "split",  # which pictures are trained on, which held out
        "varied": "captions",  # the caption as one step sees it
        "long_captions": "captions",  # what lies beyond the tokenizer's limit
        "plan_crop": "crops",  # how a picture becomes one of the training size
        "Stream": "sampling",  # the pictures of a run, cut into steps
        "Choices": "sampling",  # the random choices at a position
        "Memo": "file_facts",  # what is known of files, so that none is read twice
        "save_caption": "editing",  # a corrected caption, stored where it came from
        "add_picture": "editing",  # a picture put into the folder
    },
)
