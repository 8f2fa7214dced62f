"""Executes the notebooks as they are, with all their steps, and writes what they showed: docs/gallery/NAME.md.

    python docs/make_gallery.py [NAME ...]

In: the notebooks (all, or those named, as 02_configure). Out: a page of Markdown for each, its pictures in a folder of
its name, and a front page; all below 5 MB. A widget is shown as its plain twin, since no kernel is behind a page.
`make gallery` gives 06_sagemaker the tests' emulated SageMaker.
"""

import base64
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from PIL import Image

HERE = Path(__file__).parent.parent
GALLERY, LIMIT = HERE / "docs" / "gallery", 5_000_000  # bytes of all pages
KINDS = ["image/png", "image/svg+xml", "image/jpeg", "text/html", "text/markdown", "text/plain"]  # the best first
STYLED = re.compile(r"<(style|script)\b.*?</\1>", re.S)
INLINE = re.compile(r'src="data:image/(\w+);base64,([^"]+)"')
LINK = re.compile(r"\]\((?!\w+:|#)([^)]+)\)")
LEFT_OUT = ("my_lora", "start_here")  # by mouse alone, and nothing to run


def main(names: list[str]) -> None:
    GALLERY.mkdir(exist_ok=True)
    for name in names or pages():
        print(f"{name} ...", flush=True)
        write_page(name)
    lines = [f"- [{title(name)}]({name}.md)\n\n  {summary(name)}" for name in pages()]
    head = "# What each notebook shows when it has run\n\nOn the tiny base, on two CPU cores; made by `make gallery`."
    (GALLERY / "README.md").write_text("\n\n".join([head, *lines]) + "\n", "utf-8")
    size = sum(path.stat().st_size for path in GALLERY.rglob("*") if path.is_file())
    if size > LIMIT:
        raise SystemExit(f"{GALLERY} has {size} bytes, more than {LIMIT}.")
    print(f"{GALLERY}: {size / 1e6:.1f} MB")


def pages() -> list[str]:
    """Names of the notebooks that have a page."""
    found = sorted(path.stem for path in (HERE / "notebooks").glob("*.ipynb"))
    return [name for name in found if name not in LEFT_OUT]


def read(name: str) -> Any:
    return nbformat.read(HERE / "notebooks" / f"{name}.ipynb", as_version=4)


def title(name: str) -> str:
    return str(read(name).cells[0].source.partition("\n")[0].lstrip("# "))


def summary(name: str) -> str:
    """The last paragraph of the first cell."""
    return str(read(name).cells[0].source.split("\n\n")[-1])


def write_page(name: str) -> None:
    """Execute one notebook in a folder of its own, and write what it showed."""
    with tempfile.TemporaryDirectory() as spare:
        notebook = execute(name, Path(spare))
        for cell in notebook.cells:
            cell["outputs"] = [shown(output, spare) for output in cell.get("outputs", []) if output]
    shutil.rmtree(GALLERY / name, ignore_errors=True)
    resources = {"output_files_dir": name, "unique_key": "cell"}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources)
    text = f"*What [notebooks/{name}.ipynb](../../notebooks/{name}.ipynb) shows when it has run.*\n\n{text}"
    for path, data in resources["outputs"].items():
        (GALLERY / path).parent.mkdir(exist_ok=True)
        (GALLERY / path).write_bytes(data)
    (GALLERY / f"{name}.md").write_text(linked(with_files(text, name), name), "utf-8")


def execute(name: str, folder: Path) -> Any:
    """The notebook, executed with all its steps beside an empty output folder."""
    (folder / "notebooks").mkdir()
    notebook = read(name)
    notebook.cells[0].source = notebook.cells[0].source.replace(f"\n\n[As it ran](../docs/gallery/{name}.md)", "")
    written = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        if "agreed = False" in cell.source:  # it costs nothing here, and the job before is gone with its emulator
            cell.source += f"\nagreed, output_dir = True, {str(folder / 'output' / 'rented')!r}"
    resources = {"metadata": {"path": str(folder / "notebooks")}}
    NotebookClient(notebook, timeout=1200, resources=resources, store_widget_state=False).execute()
    for cell, source in zip(notebook.cells, written, strict=True):
        cell.source = source
    return notebook


def shown(output: Any, folder: str) -> Any:
    """The output in its best form alone, without styles that GitHub would print, and without this machine's folders."""
    for kind in KINDS if "data" in output else []:
        if kind in output.data:
            output.data = {kind: plain(output.data[kind], folder)}
            break
    if "text" in output:
        output.text = plain(output.text, folder)
    if output.get("data", {}).get("image/png"):
        output.data["image/png"] = base64.b64encode(small(base64.b64decode(output.data["image/png"]))).decode()
    return output


def plain(text: str, folder: str) -> str:
    for place in (f"{folder}/", f"{Path(folder).resolve()}/", f"{HERE}/"):
        text = text.replace(place, "")
    return re.sub(r"\n\s*\n", "\n", STYLED.sub("", text)) if "<" in text else text


def small(png: bytes) -> bytes:
    """A picture with as few bytes as it takes; its ground stays the page's own."""
    made = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGBA").quantize(256, Image.Quantize.FASTOCTREE).save(
        made, "PNG", optimize=True
    )
    return made.getvalue()


def with_files(text: str, name: str) -> str:
    """The page with the pictures inside its tables as files, for GitHub shows none that stand in an address."""

    def filed(found: "re.Match[str]") -> str:
        number = len(list((GALLERY / name).glob("inside_*"))) if (GALLERY / name).is_dir() else 0
        path = GALLERY / name / f"inside_{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(small(base64.b64decode(found[2])))
        return f'src="{name}/{path.name}"'

    return INLINE.sub(filed, text)


def linked(text: str, name: str) -> str:
    """The page with the notebook's links leading where they led from its own folder."""

    def moved(found: "re.Match[str]") -> str:
        if found[1].startswith((f"{name}/", "../../notebooks/")):
            return found[0]
        return f"]({os.path.relpath(HERE / 'notebooks' / found[1], GALLERY)})"

    return LINK.sub(moved, text)


if __name__ == "__main__":
    main(sys.argv[1:])
