"""python -m sdxl_nb.flags: print docs/flags.md, the page of all flags (config/flags.py makes it from TrainConfig).

With --other_trainers it prints docs/other-trainers.md, what becomes of every setting of other trainers.
"""

import sys

from .config.flags import render_page
from .config.foreign.page import render

if __name__ == "__main__":
    sys.stdout.write(render() if "--other_trainers" in sys.argv[1:] else render_page())
