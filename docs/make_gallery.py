"""Executes the notebooks and writes them as pages, with a front page: output/gallery/index.html.

    python docs/make_gallery.py [NOTEBOOK ...]

In: the notebooks (all of them, or those named). Out: HTML that asks no other host for anything. A widget is shown as
its plain twin, since no kernel is behind a page. `make gallery` gives 06_sagemaker the tests' emulated SageMaker.
"""

import html
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

HERE = Path(__file__).parent.parent
GALLERY = HERE / "output" / "gallery"
KINDS = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]  # no widget
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; }
li { margin: 0 0 1.2rem; } a { font-weight: 600; }
"""


def main(names: list[str]) -> None:
    GALLERY.mkdir(parents=True, exist_ok=True)
    paths = [Path(name) for name in names] or sorted((HERE / "notebooks").glob("*.ipynb"))
    entries = []
    for path in paths:
        print(f"{path.name} ...", flush=True)
        entries.append((path.stem, *write_page(path)))
    page = "".join(f'<li><a href="{stem}.html">{title}</a><br>{words}</li>' for stem, title, words in entries)
    head = f"<!doctype html><meta charset=utf-8><title>sdxl_nb notebooks</title><style>{STYLE}</style>"
    (GALLERY / "index.html").write_text(f"{head}<h1>sdxl_nb, notebook by notebook</h1><ol>{page}</ol>\n", "utf-8")
    print(GALLERY / "index.html")


def write_page(path: Path) -> tuple[str, str]:
    """Execute one notebook and write its page; returns its title and first paragraph, escaped."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "agreed = False" in cell.source:  # it costs nothing here, and the job before is gone with its emulator
            cell.source += f"\nagreed, output_dir = True, {tempfile.mkdtemp()!r}"
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, resources=resources, store_widget_state=False).execute()
    exporter = HTMLExporter(embed_images=True)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = ""
    exporter.display_data_priority = KINDS
    (GALLERY / f"{path.stem}.html").write_text(exporter.from_notebook_node(notebook)[0], "utf-8")
    title, _, rest = notebook.cells[0].source.partition("\n")
    return html.escape(title.lstrip("# ")), html.escape(rest.strip().split("\n\n")[0])


if __name__ == "__main__":
    main(sys.argv[1:])
