"""python -m sdxl_nb.container train: the training image's entry point (aws/container.py says what goes in and out)."""

import sys

from .aws.container import main

if __name__ == "__main__":
    sys.exit(main())
