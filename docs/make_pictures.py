"""Makes the README's pictures again: trains the preset tiny (minutes, two cores, offline) and draws with it.

    python docs/make_pictures.py [RUN_FOLDER]

In: a run folder of the preset tiny, or nothing. Out: docs/pictures/*.png, each below 200 kB.
"""

import sys
import tempfile
from pathlib import Path

from sdxl_nb import Run, TrainConfig, fine_tune, generate, open_dataset
from sdxl_nb.drawing.generation import compare

PICTURES = Path(__file__).parent / "pictures"
PROMPTS = ["a blueprint of a house", "a blueprint of a moon", "a blueprint of a small heart"]
PLAIN = "a purple cross on a white background"
SCALES = (0, 0.25, 0.5, 0.75, 1)
LIMIT = 200_000  # bytes


def main(folder: str | None = None) -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as spare:
        quiet = {"validation_prompt": None, "report_to": "none"}
        run = Run.open(folder) if folder else fine_tune(TrainConfig.preset("tiny", output_dir=f"{spare}/run", **quiet))
        draw(run)


def draw(run: Run) -> None:
    """The three figures of a finished run."""
    base, seeds = run.config.pretrained_model_name_or_path, [run.config.seed]
    pictures = open_dataset(run.config)
    write("pictures", pictures.select([3, 7, 14, 20, 32, 35, 42, 49]).figure())
    prompts = [*PROMPTS, PLAIN]
    before, after = (generate(base, lora, prompts, seeds=seeds) for lora in (None, run.folder))
    write("before-after", compare(before, after).figure())
    write("scales", generate(base, run.folder, [PROMPTS[0], PLAIN], scales=SCALES, seeds=seeds).figure())


def write(name: str, figure) -> None:
    """Save a figure."""
    path = PICTURES / f"{name}.png"
    figure.savefig(path)
    weigh(path)


def weigh(path: Path) -> None:
    """Say how large a picture is; stop where it is too large for a repository."""
    size = path.stat().st_size
    if size > LIMIT:
        raise SystemExit(f"{path} has {size} bytes, more than {LIMIT}.")
    print(f"{path}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:2])
