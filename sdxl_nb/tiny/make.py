"""Make the embedded base and its pictures again, from nothing: about two and a half hours on one core.

    python -m sdxl_nb.tiny.make WORK_FOLDER

Draws the tokenizers, trains the VAE, the U-Net with both text encoders, the VAE's decoder, and writes `base/` and
`pictures/` beside this file. A U-Net training that was stopped goes on where it was.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from . import concepts
from .vocabulary import save_tokenizers


def run(module: str, *arguments: str | Path) -> None:
    """One step as a process of its own, with what it prints."""
    subprocess.run([sys.executable, "-m", f"sdxl_nb.tiny.{module}", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokenizer").exists():
        save_tokenizers(work)
    if not (work / "vae").exists():
        run("pretrain_vae", work / "vae", "--stage", "1", "--steps", "2800")
    run("pretrain_unet", work, "--vae", work / "vae", "--pictures", "40000", "--steps", "6500", "--compile")
    run("pretrain_vae", work / "vae", "--stage", "2", "--steps", "1500")
    run("assemble", work, "--vae", work / "vae-final")
    concepts.main()


if __name__ == "__main__":
    main()
