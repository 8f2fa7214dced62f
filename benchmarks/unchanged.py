"""Proof that nothing changed: this tree trains what another commit trains, bit for bit, and reads what that one left.

    python -m benchmarks.unchanged --commit 525a8f6 [--only resumed warm ...]

Both take the same command lines of `python -m sdxl_nb.train`, side by side, with one thread each, on the tiny SDXL.
Compared are losses, every tensor and header of the LoRA files and of the last checkpoint, its state, the cached rows
under their keys, all pictures, warnings, the saved configuration and the card; not the clock. Out: a line for each run
that says how much was compared, and the first difference; with any, exit status 1.
"""

import argparse
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .compare import ROOT
from .contents import KINDS, Contents, contents, events, first_difference

QUICKSTART = """--preset tiny --seed 0 --num_validation_images 1
    --validation_prompt 'a blueprint of a house' 'a purple cross on a white background'"""
SHORT = """--preset tiny --train_data_dir ../../pictures --no_center_crop --seed 3 --max_train_steps 6 --debug_loss
    --checkpointing_steps 2 --lr_warmup_steps 2 --validation_inference_steps 2 --validation_prompt 'a cat'
    --validation_epochs 10 """
RUNS = {
    "quickstart": QUICKSTART,  # what notebooks/00_quickstart.ipynb trains
    "cached": SHORT
    + """--aspect_ratio_buckets --bucket_reso_steps 8 --bucket_no_upscale --random_flip --train_batch_size 3
    --cache_latents --cache_text_embeddings --latents_cache_dir cache --trigger_word zarko --use_ema --use_dora
    --proportion_empty_prompts 0.2 --validation_split 0.2 --heldout_steps 2 --load_best_model_at_end
    --folder_weights '{"2_cats": 0.5}'""",
    "squares": SHORT
    + """--no_aspect_ratio_buckets --random_flip --no_cache_text_embeddings --no_folder_repeats --max_train_samples 9
    --image_interpolation_mode bicubic --train_batch_size 4 --optimizer prodigy --learning_rate 1""",
    "live": SHORT  # there is no checkpoint yet: that is said, and the configuration is that of a resumed run
    + """--no_cache_latents --no_aspect_ratio_buckets --random_flip --train_text_encoder --lora_dropout 0.1 --use_ema
    --shuffle_caption --keep_tokens 1 --caption_tag_dropout_rate 0.3 --caption_separator ';' --noise_offset 0.05
    --proportion_empty_prompts 0.2 --loss_type huber --snr_gamma= --train_batch_size 2 --gradient_accumulation_steps 2
    --validation_data_dir ../../pictures/1_things --resume_from_checkpoint latest""",
    "prior": SHORT
    + """--no_cache_latents --bucket_reso_steps 16 --gradient_checkpointing --train_batch_size 4
    --with_prior_preservation --class_data_dir class --class_prompt 'a red circle' --num_class_images 2
    --rank_pattern '{"attn2.to_k": 2}'""",
}
READ = ("warm", "resumed", "resumed-there")  # what the other commit cached, or left when it was killed
KILLED_AT, SAVED_AT = 3, 2  # steps
SIZES = [(96, 64), (64, 96), (128, 72), (80, 80), (50, 40), (64, 120), (72, 64)]  # width and height


def make_pictures(folder: Path) -> None:
    """Pieces of scikit-image's photographs in kohya's folders; one is turned, one clear, one caption long, one none."""
    from PIL import Image
    from skimage import data

    turned = Image.Exif()
    turned[0x0112] = 6  # EXIF's orientation: a quarter to the right
    for name, photograph in {"1_things": data.coffee(), "2_cats": data.chelsea()}.items():
        (folder / name).mkdir(parents=True)
        for number, (width, height) in enumerate(SIZES):
            box = (20 * number, 10 * number, 20 * number + 2 * width, 10 * number + 2 * height)
            piece = Image.fromarray(photograph).crop(box).resize((width, height))
            if number == 4:
                piece.putalpha(piece.convert("L"))
            piece.save(folder / name / f"{number}.png", exif=turned if number == 2 else Image.Exif())
            if number != 5:
                caption = f"a photograph; {name[2:]}; number {number}" + "; whiskers" * (40 if number == 6 else 1)
                (folder / name / f"{number}.txt").write_text(caption)


class Tree(NamedTuple):
    """A checkout, whose runs have homes: folders with the run in run/ and what it caches in cache/."""

    name: str
    path: Path

    def environment(self, home: Path) -> dict[str, str]:
        given = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        return os.environ | given | {"SDXL_NB_CACHE": str(home / "cache"), "PYTHONPATH": str(self.path)}

    def refuse_another(self, home: Path) -> None:
        """RuntimeError when Python would not run this checkout's package from there, but perhaps an installed one."""
        command, env = [sys.executable, "-c", "import sdxl_nb; print(sdxl_nb.__file__)"], self.environment(home)
        found = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(found).is_relative_to(self.path):
            raise RuntimeError(f"{self.name} would run {found}, not what lies in {self.path}")

    def train(self, home: Path, flags: str, kill_at: int | None = None) -> Path:
        """Train, or only until this step is told. RuntimeError with what it printed last when it ends otherwise."""
        home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sdxl_nb.train", *shlex.split(f"--output_dir run --output_name lora {flags}")]
        with open(home / "output.txt", "w+") as output:
            process = subprocess.Popen(command, cwd=home, env=self.environment(home), stdout=output, stderr=output)
            while kill_at and process.poll() is None:
                if any((event["event"], event["step"]) == ("step", kill_at) for event in events(home)):
                    process.kill()
                time.sleep(0.005)
            if process.wait() != (-signal.SIGKILL if kill_at else 0):
                output.seek(0)
                raise RuntimeError(f"{self.name} ended with {process.returncode}: {output.readlines()[-1].strip()}")
        return home


class Proof(NamedTuple):
    """The checks; the homes are folder/RUN/TREE, each made once."""

    folder: Path
    old: Tree
    new: Tree

    def check(self, name: str) -> tuple[Contents, str | None]:
        """What was compared, and the first difference. RuntimeError when there is nothing to compare."""
        if name in RUNS:
            with ThreadPoolExecutor(2) as both:
                old, new = both.map(lambda tree: self.trained(name, tree), (self.old, self.new))
        else:
            old = self.trained("cached" if name == "warm" else "live", self.old)
            new = self.warm() if name == "warm" else self.resumed(self.new if name == "resumed" else self.old)
        then = contents(old)
        return then, first_difference(then, contents(new))

    def trained(self, name: str, tree: Tree) -> Path:
        home = self.folder / name / tree.name
        return home if (home / "run" / "README.md").exists() else tree.train(home, RUNS[name])

    def warm(self) -> Path:
        """A run of this tree with what the other commit cached; RuntimeError when it encodes anything again."""
        home = self.folder / "warm" / self.new.name
        shutil.copytree(self.folder / "cached" / self.old.name / "cache", home / "cache")
        before = set(home.glob("cache/**/*.safetensors"))
        self.new.train(home, RUNS["cached"])
        more = set(home.glob("cache/**/*.safetensors")) - before
        if more or not before:
            raise RuntimeError(f"{self.new.name} cached {len(more)} files beside the {len(before)} that it was given")
        return home

    def resumed(self, tree: Tree) -> Path:
        """A run that the other commit began, was killed in, and this tree ended; RuntimeError when it began anew."""
        killed, home = self.folder / "killed" / self.old.name, self.folder / "resumed" / tree.name
        if not killed.exists():
            self.old.train(killed, RUNS["live"], kill_at=KILLED_AT)
        shutil.copytree(killed, home)
        tree.train(home, "--config run/config.json")  # which says --resume_from_checkpoint latest
        begun = [event["resumed_from"] for event in events(home) if event["event"] == "start"]
        if begun != [None, SAVED_AT]:
            raise RuntimeError(f"{tree.name} went on from step {begun[-1]}, not {SAVED_AT}")
        return home


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.unchanged", description=__doc__.splitlines()[0])
    parser.add_argument("--commit", required=True, help="what to compare with")
    parser.add_argument("--only", nargs="+", choices=[*RUNS, *READ], default=[*RUNS, *READ])
    given, git, begun = parser.parse_args(arguments), ["git", "-C", str(ROOT), "worktree"], time.monotonic()
    differences = []
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-unchanged-") as place:
        folder = Path(place).resolve()
        proof = Proof(folder, Tree(given.commit, folder / "tree"), Tree("this-tree", ROOT))
        subprocess.run([*git, "add", "--quiet", "--detach", proof.old.path, given.commit], check=True)
        try:
            for tree in (proof.old, proof.new):
                tree.refuse_another(folder)
            make_pictures(folder / "pictures")
            print(f"| run | {' | '.join(KINDS)} | the same |\n|---|{'---|' * len(KINDS)}---|", flush=True)
            for name in given.only:
                differences += compare(proof, name)
        finally:
            subprocess.run([*git, "remove", "--force", proof.old.path], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n{used.ru_utime + used.ru_stime:.0f} CPU seconds, {time.monotonic() - begun:.0f} on the clock.")
    print(*differences or ["Nothing differs."], sep="\n")
    return 1 if differences else 0


def compare(proof: Proof, name: str) -> list[str]:
    """Print a line of the table; the first difference, or a failure, in a list."""
    try:
        then, difference = proof.check(name)
    except RuntimeError as error:
        then, difference = {}, str(error)
    counted = Counter(kind for kind, _ in then)
    cells = [name, *(str(counted[kind]) for kind in KINDS), "NO" if difference else "yes"]
    print(f"| {' | '.join(cells)} |", flush=True)
    return [f"{name}: {difference}"] if difference else []


if __name__ == "__main__":
    sys.exit(main())
