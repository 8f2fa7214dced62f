"""python -m sdxl_nb.score: see scoring/command.py."""

import sys

from .scoring.command import main

if __name__ == "__main__":
    sys.exit(main())
