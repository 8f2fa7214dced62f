"""The data set browser: cards of pictures, captions mended, faults found, shapes shown."""
