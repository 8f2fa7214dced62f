"""Photographs the real widgets for the README, in a real JupyterLab and Chromium (minutes, two cores, offline).

    python docs/make_screenshots.py [RUN_FOLDER]

In: a finished run of the preset tiny with pictures, checkpoints and held-out losses, or nothing. Out:
docs/pictures/{project,form,dataset,monitor,grid,playground}.png, each below 200 kB. Uses the browser tests' JupyterLab.
"""

import io
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from lab import FLAGS, Lab, _free_port, _server, chromium  # noqa: E402
from make_pictures import PICTURES, weigh  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from sdxl_nb import TrainConfig, fine_tune  # noqa: E402
from sdxl_nb.tiny.album import write_album  # noqa: E402

WIDGETS = {  # name -> what the cell holds, what must be seen before the picture is taken
    "project": ('from sdxl_nb import Project\nProject("project")', "All settings"),
    "form": ('from sdxl_nb import ConfigForm\nConfigForm(TrainConfig.preset("sdxl-24gb"))', "Copy as Python"),
    "dataset": (
        'from sdxl_nb import DatasetBrowser\nconfig = TrainConfig.preset("tiny", train_data_dir="album")\n'
        "DatasetBrowser(config.replace(center_crop=False), per_page=8)",
        "of 32 tokens",
    ),
    "monitor": ('from sdxl_nb import RunMonitor\nRunMonitor("run")', "Completed"),
    "grid": ('from sdxl_nb import ValidationGrid\nValidationGrid("run")', "held-out loss"),
    "playground": (
        "from sdxl_nb import LoraPlayground\n"
        'playground = LoraPlayground("run", prompt="a blueprint of a house")\nplayground.draw()\nplayground',
        "scale 1",
    ),
}
SETTINGS = {"validation_split": 0.1, "checkpointing_steps": 98, "validation_epochs": 14, "report_to": "none"}


def main(folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as spare:
        root = Path(spare) / "notebooks"
        root.mkdir()
        if folder:
            shutil.copytree(folder, root / "run")
        else:
            fine_tune(TrainConfig.preset("tiny", output_dir=str(root / "run"), **SETTINGS))
        write_album(root / "album")
        write_album(root / "project" / "pictures")
        photograph(Path(spare) / "home", root)


def photograph(home: Path, root: Path) -> None:
    """One picture of each widget, as it stands in a light notebook."""
    port, token = _free_port(), secrets.token_hex(16)
    home.mkdir()
    with _server(home, root, port, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1900})
        page.set_default_timeout(120_000)
        lab = Lab(root, f"http://127.0.0.1:{port}", token, page)
        lab.start()
        for name, (cell, seen) in WIDGETS.items():
            lab.open(f"from sdxl_nb import TrainConfig\n{cell}")
            widget = page.locator(".sdxl-nb").first
            widget.get_by_text(seen).first.wait_for()
            page.wait_for_timeout(1500)  # pictures are decoded, the slider's line is drawn
            write(name, widget.screenshot())
            lab.close()
        browser.close()


def write(name: str, png: bytes) -> None:
    """Keep a picture with a palette, which is enough for a page."""
    path = PICTURES / f"{name}.png"
    Image.open(io.BytesIO(png)).convert("RGB").quantize(200, dither=Image.Dither.NONE).save(path, optimize=True)
    weigh(path)


if __name__ == "__main__":
    main(*sys.argv[1:2])
