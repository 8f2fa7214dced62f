"""DatasetBrowser on very many pictures: seconds to open them, to the first page and to another, how memory grows.

    python -m benchmarks.browser [--pictures 100000]
    python -m benchmarks.browser --painted --pictures 10000

Hard links to a few pictures of 1024 px, each with a caption file of its own, are opened in a fresh process, once with a
trigger word and once without. Seconds are those that a person waits, and beside them those of the CPU. Memory counts
from after the imports, at its peak: after the first page, and after fifty pages, a search and all that a browser does
in the background. With --painted it is the whole page, `Project`, in a real Chromium and a real JupyterLab that is
loaded anew each time, in a kernel that has imported nothing and in one that has the package, this tree in turns with
that of --commit: CPU seconds of the cell, and of the page's thread until the first paint, and the seconds on the clock
from Shift+Enter to each moment; the least of several. Out: a table.
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
from .compare import ROOT

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


CELLS = (
    """import sys, time
sys.path.insert(0, {!r})
def tell(*_, now=time.process_time):
    with open('seconds', 'a') as file:
        print(now(), file=file)
for event in ('pre_run_cell', 'post_run_cell'):  # before what the package does when the cell is over
    get_ipython().events.register(event, tell)""",
    "import sdxl_nb.widgets.page.project",
    "from sdxl_nb import Project\nProject('mine')",
)
PAINTED = """async () => {
  const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
  notebook.activeCellIndex = 2;
  const soon = () => new Promise((then) => setTimeout(then, 20)), begun = performance.now();
  const frame = () => new Promise(requestAnimationFrame);
  app.commands.execute('notebook:run-cell');  // what Shift+Enter calls
  const seen = (one) => one.getBoundingClientRect().height > 0;
  const all = (selector) => [...document.querySelectorAll('.sdxl-nb ' + selector)].filter(seen);
  const painted = (image) => image.complete && image.naturalWidth > 0;
  const heading = () => all('h2').length && all('.sdxl-nb-drop').length;
  const counted = () => all('b').some((b) => /^[\\d,]+ of [\\d,]+ captioned$/.test(b.innerText));
  const there = {
    heading,
    first: () => heading() && counted() && all('.sdxl-nb-words').length >= 4,
    pictures: () => all('.sdxl-nb-picture img').filter(painted).length === 12,
    settings: () => all('.sdxl-nb-plan').length,
  };
  const moments = {};
  for (const [name, is] of Object.entries(there)) {
    while (!is()) await soon();
    await frame();  // in which it is painted
    moments[name] = (performance.now() - begun) / 1000;
    await window.sdxlNbTold(name);
  }
  return moments;
}"""
KERNELS = "new", "package imported"
MOMENTS = {
    "heading": "heading and drop zone, s",
    "first": "first paint: count and cards too, s",
    "pictures": "all pictures of the first page, s",
    "settings": "settings, and what will happen, s",
}


def painted(folder: Path, times: int, trees: dict[str, Path]) -> dict[tuple[str, str], list[list[float]]]:
    """[CPU seconds of the cell, of the page's thread until the first paint, seconds to each of MOMENTS], of each kind
    of kernel, of each tree, of so many rounds, all in turns."""
    sys.path.insert(0, str(ROOT / "tests"))  # the JupyterLab that tests have
    from lab import running

    found: dict[tuple[str, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as home, running(Path(home), folder) as lab:
        page = lab.page.context.new_cdp_session(lab.page)
        page.send("Performance.enable", {"timeDomain": "threadTicks"})  # else they are seconds on the clock

        def worked(told: str = "") -> None:
            metrics = page.send("Performance.getMetrics")["metrics"]
            spent[told] = next(each["value"] for each in metrics if each["name"] == "TaskDuration")

        spent: dict[str, float] = {}
        lab.page.expose_function("sdxlNbTold", worked)
        for kind, (name, tree) in [(kind, tree) for _ in range(times) for kind in KERNELS for tree in trees.items()]:
            for before in ("mine/settings.json", "seconds"):  # as on the first day
                (folder / before).unlink(missing_ok=True)
            lab.write(*(cell.format(str(tree)) for cell in CELLS))
            lab.start()
            lab.show()
            lab.restart_kernel()
            for cell in range(1 + (kind == KERNELS[1])):
                lab.run_cell(cell)
            worked()
            moments = lab.page.evaluate(PAINTED)
            begun, ended = map(float, (folder / "seconds").read_text().split()[-2:])
            round_ = [ended - begun, spent["first"] - spent[""], *(moments[moment] for moment in MOMENTS)]
            found.setdefault((kind, name), []).append(round_)
            told = ", ".join(f"{value:.2f}" for value in round_)
            print(f"load {os.getloadavg()[0]:.0f}, {kind} kernel, {name}: {told}", file=sys.stderr, flush=True)
            lab.close()
    return found


def page_lines(pictures: int, times: int, commit: str | None) -> list[str]:
    """The table of `painted`."""
    columns = ["cell, CPU s", "page until first paint, CPU s", *MOMENTS.values()]
    lines = [f"| {pictures:,} pictures, kernel, tree | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-browser-") as place:
        many_links(Path(place, "mine", "pictures"), pictures)
        git, trees = ["git", "-C", str(ROOT), "worktree"], {"this tree": ROOT}
        if commit:
            trees = {commit: Path(place, "tree"), **trees}
            subprocess.run([*git, "add", "--quiet", "--detach", trees[commit], commit], check=True)
        try:
            found = painted(Path(place), times, trees)
        finally:
            if commit:
                subprocess.run([*git, "remove", "--force", trees[commit]], check=True)
        for (kind, tree), rounds in found.items():
            cells = " | ".join(f"{min(values):.2f}" for values in zip(*rounds, strict=True))
            lines.append(f"| {kind}, {tree} | {cells} |")
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
    parser.add_argument("--commit", help="paint the page of this commit too, in turns")
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    if given.painted:
        print("\n".join(lines := page_lines(given.pictures, given.times, given.commit)))
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
