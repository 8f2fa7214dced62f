"""python -m sdxl_nb.flags: print docs/flags.md, the page of all flags (config/flags.py makes it from TrainConfig)."""

import sys

from .config.flags import render_page

if __name__ == "__main__":
    sys.stdout.write(render_page())
