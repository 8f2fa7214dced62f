"""python -m sdxl_nb.hub OUTPUT_DIR [REPOSITORY]: publish the LoRA of a run (runs/publishing.py)."""

import sys

from .runs.publishing import main

if __name__ == "__main__":
    sys.exit(main())
