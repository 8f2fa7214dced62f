"""python -m sdxl_nb.hub OUTPUT_DIR [REPOSITORY]: publish the LoRA of a run (training/reports/publishing.py)."""

import sys

from .training.reports.publishing import main

if __name__ == "__main__":
    sys.exit(main())
