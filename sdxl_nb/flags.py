"""python -m sdxl_nb.flags: print the table of all flags (config/flags.py makes it from TrainConfig)."""

import sys

from .config.flags import render_table

if __name__ == "__main__":
    sys.stdout.write(render_table())
