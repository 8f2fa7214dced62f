"""DatasetBrowser on very many pictures: seconds to open them, to the first page and to another, how memory grows.

    python -m benchmarks.browser [--pictures 100000]
    python -m benchmarks.browser --painted --pictures 10000

Hard links to a few pictures of 1024 px, each with a caption file of its own, are opened in a fresh process, once with a
trigger word and once without. Seconds are those that a person waits, and beside them those of the CPU. Memory counts
from after the imports, at its peak: after the first page, and after fifty pages, a search and all that a browser does
in the background. With --painted it is the whole page, `Project`, in a real JupyterLab and a real Chromium: seconds
from running its cell until its first heading and until all pictures of its first page are painted, in a kernel that has
imported nothing and in one that has the package; the least and the most of several. Out: a table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .architectures import make_pictures

SOURCES, SIDE, PAGES = 16, 1024, 50
MEASURE = """
import json, sys, time
import torch
from sdxl_nb import DatasetBrowser, TrainConfig, open_dataset
from sdxl_nb.system.memory import peak_memory

def peak():
    return peak_memory(torch.device("cpu")) / 2**20

def since(moment):
    return [now - then for now, then in zip((time.perf_counter(), time.thread_time()), moment)]

config = TrainConfig.preset("tiny", train_data_dir=sys.argv[1], trigger_word=sys.argv[2] or None)
before, begun = peak(), since((0, 0))
dataset = open_dataset(config)
opened, begun = since(begun), since((0, 0))
browser = DatasetBrowser(dataset, config)
first, grown = since(begun), peak() - before
browser._work.wait()
begun = since((0, 0))
for page in range(1, PAGES + 1):
    browser.page = page * 100
turned = [seconds / PAGES for seconds in since(begun)]
begun = since((0, 0))
browser.search = "number 77"
searched = since(begun)
assert 'role="alert"' not in browser._notice.value, browser._notice.value
seconds = {"opened": opened, "first": first, "page": turned, "search": searched}
print(json.dumps(seconds | {"grown": grown, "grown_in_all": peak() - before}))
""".replace("PAGES", str(PAGES))


CELLS = "import sdxl_nb.widgets.page.project", "from sdxl_nb import Project\nProject('mine')"
PAINTED = """async () => {
  const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
  notebook.activeCellIndex = 1;
  const begun = performance.now(), since = () => (performance.now() - begun) / 1000;
  app.commands.execute('notebook:run-cell');
  const until = async (there) => { while (!there()) await new Promise(requestAnimationFrame); return since(); };
  const heading = await until(() => document.querySelector('.sdxl-nb h2'));
  const drawn = (image) => image.complete && image.naturalWidth > 0;
  const pictures = await until(() => {
    const images = [...document.querySelectorAll('.sdxl-nb-square img')];
    return images.length === 12 && images.every(drawn);
  });
  return [heading, pictures];
}"""


def painted(folder: Path, times: int) -> dict[str, list[list[float]]]:
    """[seconds to the first heading, to all pictures of the first page], so many of each kind of kernel."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the JupyterLab that tests have
    from lab import running

    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as home, running(Path(home), folder) as lab:
        lab.open(*CELLS)
        for _ in range(times):
            for kind, imported in (("new", False), ("package imported", True)):
                lab.close()
                (folder / "mine" / "settings.json").unlink(missing_ok=True)  # as on the first day
                lab.show()
                lab.restart_kernel()
                if imported:
                    lab.run_cell(0)
                found.setdefault(kind, []).append(lab.page.evaluate(PAINTED))
    return found


def page_lines(pictures: int, times: int) -> list[str]:
    """The table of `painted`."""
    lines = [
        f"| {pictures:,} pictures, kernel | first heading, s | all pictures of the first page, s |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-browser-") as place:
        many_links(Path(place, "mine", "pictures"), pictures)
        for kind, moments in painted(Path(place), times).items():
            spans = [f"{min(seconds):.2f} to {max(seconds):.2f}" for seconds in zip(*moments, strict=True)]
            lines.append(f"| {kind} | {' | '.join(spans)} |")
    return lines


def many_links(folder: Path, count: int) -> None:
    """A folder of so many pictures, of which few are different, each with its caption beside it."""
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        make_pictures(Path(made), SOURCES, SIDE)
        folder.mkdir()
        for number in range(count):
            os.link(Path(made, f"{number % SOURCES:06d}.jpg"), folder / f"{number:06d}.jpg")
            (folder / f"{number:06d}.txt").write_text(f"a pattern of soft colours, number {number}\n")


def measure(folder: Path, trigger_word: str = "") -> dict[str, Any]:
    """(seconds, CPU seconds) of opened, first, page and search, and MB, of a browser in a process of its own."""
    command = [sys.executable, "-c", MEASURE, str(folder), trigger_word]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser("benchmarks.browser", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--painted", action="store_true", help="the page, in a real Chromium")
    parser.add_argument("--times", type=int, default=3, help="how often the page is painted, in each kind of kernel")
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    if given.painted:
        print("\n".join(lines := page_lines(given.pictures, given.times)))
        return lines
    lines = [
        f"| {given.pictures:,} pictures | opening, s (CPU s) | first page | another page | search | "
        "memory, first page, MB | memory in all, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-browser-") as place:
        folder = Path(place, "pictures")
        many_links(folder, given.pictures)
        for label, word in (("as they are", ""), ("with a trigger word", "mirel")):
            found = measure(folder, word)
            seconds = " | ".join(
                "{:.2f} ({:.2f})".format(*found[name]) for name in ("opened", "first", "page", "search")
            )
            lines.append(f"| {label} | {seconds} | {found['grown']:.0f} | {found['grown_in_all']:.0f} |")
    print("\n".join(lines))
    return lines


if __name__ == "__main__":
    main()
