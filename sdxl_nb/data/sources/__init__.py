"""Where do pictures and captions come from?

Folders, metadata files, tables, the hub and S3 in; a Listing of names, captions and stamps out.
"""

from ...system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "Listing": "listing",  # names, captions, and how to read each
        "walk": "tree",  # the files below a folder
        "training_folder": "layouts",  # the folder that holds the training pictures
        "split_url": "s3",  # bucket and prefix of an s3:// address
    },
)
