"""python -m sdxl_nb.audit: see inspection.py."""

import sys

from .inspection import main

if __name__ == "__main__":
    sys.exit(main())
