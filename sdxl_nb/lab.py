"""python -m sdxl_nb.lab: the notebooks in a folder of your own, and JupyterLab there.

    python -m sdxl_nb.lab
    python -m sdxl_nb.lab my-folder --no-browser

In: a folder, `sdxl-notebooks` where none is named, --only-copy, and flags of JupyterLab. Out: the notebooks in its
`notebooks`, what trains beside them in `output`, and JupyterLab, rooted at the folder, on the page that says which
notebook is for whom. A notebook that you changed is never written over: what was done with each is said.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .system.errors import SdxlNbError

FOLDER, START, KNOWN = "sdxl-notebooks", "notebooks/start_here.ipynb", ".from_sdxl_nb.json"
HERE = Path(__file__).parent
PAGE = re.compile(rb'\s*"\[As it ran\]\([^)]*\)\\n",\n\s*"\\n",')  # a link to a page that lies in the repository alone


def source() -> Path:
    """Where the notebooks lie: in the installed package, or beside it in a clone. Raises SdxlNbError for none."""
    for folder in (HERE / "notebooks", HERE.parent / "notebooks"):
        if (folder / "start_here.ipynb").is_file():
            return folder
    raise SdxlNbError(f"The notebooks are not in {HERE}: install sdxl_nb again.")


def put(folder: Path) -> list[str]:
    """Put the notebooks into a folder, but over none that a person changed; returns what is to be said, a line each.

    Raises SdxlNbError where the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known, said = _known(folder), []
        for path in sorted(source().glob("*.ipynb")):
            data, goal = PAGE.sub(b"", path.read_bytes()), folder / path.name
            there = _digest(goal.read_bytes()) if goal.exists() else None
            if there == _digest(data):
                known[path.name] = there
            elif there is None or there == known.get(path.name):
                goal.write_bytes(data)
                said.append(f"{path.name}: {'put there' if there is None else 'brought up to date'}")
                known[path.name] = _digest(data)
            else:
                newer = "" if _digest(data) == known.get(path.name) else f"; move it to get that of {__version__}"
                said.append(f"{path.name}: yours is kept, for it was changed{newer}")
        (folder / KNOWN).write_text(json.dumps(known, indent=1), encoding="utf-8")
    except OSError as error:
        raise SdxlNbError(f"Cannot put notebooks into {folder} ({error.strerror}): name another folder.") from error
    return said


def _known(folder: Path) -> dict[str, str]:
    """What was put there before, by its SHA-256; nothing where that is not known."""
    try:
        found = json.loads((folder / KNOWN).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def command(folder: Path, more: Sequence[str]) -> list[str]:
    """What starts JupyterLab on the folder."""
    root = ["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []
    return [sys.executable, "-m", "jupyterlab", *root, "--ServerApp.root_dir", str(folder.absolute()), *more, START]


def main(argv: Sequence[str] | None = None) -> int:
    """Put the notebooks there, say what was done, and start JupyterLab until it is ended."""
    given = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    folder = Path(given.pop(0) if given and not given[0].startswith("-") else FOLDER).expanduser()
    try:
        for line in put(folder / "notebooks"):
            print(line)
    except SdxlNbError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Your notebooks: {folder.absolute() / 'notebooks'}", flush=True)
    if "--only-copy" in given:
        return 0
    try:
        return subprocess.call(command(folder, given), cwd=folder)
    except KeyboardInterrupt:  # JupyterLab has heard it too
        return 0


if __name__ == "__main__":
    sys.exit(main())
