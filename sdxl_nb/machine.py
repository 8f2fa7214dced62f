"""python -m sdxl_nb.machine: whether this machine can train, and what it lacks.

    python -m sdxl_nb.machine
    python -m sdxl_nb.machine FOLDER

In: the folder where runs are to lie, whose disk is looked at. Out: a line for each thing on stdout, and the exit
status: 1 where something is wrong.
"""

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Print what `inspect_machine` finds; returns the exit status."""
    about = "Check whether this machine can train."
    parser = argparse.ArgumentParser(prog="python -m sdxl_nb.machine", description=about)
    parser.add_argument("folder", nargs="?", default=".", help="where runs are to lie")
    given = parser.parse_args(argv)

    from .preflight.this_machine import inspect_machine

    report = inspect_machine(given.folder)
    print(report)
    return 0 if report else 1


if __name__ == "__main__":
    sys.exit(main())
