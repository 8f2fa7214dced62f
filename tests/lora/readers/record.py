"""Record which LoRA keys a reader accepts, by running the reader's own code over full-size SDXL on the meta device.

    python tests/lora/readers/record.py comfyui  CHECKOUT
    python tests/lora/readers/record.py forge    CHECKOUT --also HUGGINGFACE_GUESS
    python tests/lora/readers/record.py a1111    CHECKOUT --also GENERATIVE_MODELS
    python tests/lora/readers/record.py sdscripts CHECKOUT
    python tests/lora/readers/record.py diffusers
    ... --kinds [--file LORA ...]    (comfyui, sdscripts: what it makes of LoHa and LoKr layers, into kinds.json alone)
    ... --dora                       (comfyui, forge, a1111: also what it makes of a DoRA layer, into dora.json)

In: a checkout of the reader, and of the repository that it takes SDXL's U-Net from, at the commit that it pins
(Forge: huggingface_guess 84826248; A1111: generative-models 45c443b3). a1111, forge and sdscripts want a transformers
of their time on PYTHONPATH (4.54.1 was used), a1111 and comfyui also einops and open_clip_torch.
Out: sdxl_nb/lora/files/known_keys/READER.json. No code of a reader is in this file or in that one. A reader's imports
that have no part in reading LoRA files (web servers, image and audio libraries) are stood in for by empty modules where
they are not installed.

What is recorded is what the reader's loader did with a file that holds every key there could be: a key counts as
accepted when the loader used it, not when it overlooked or reported it.
"""

import argparse
import json
import logging
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import torch

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from dora_layer import record_dora  # noqa: E402
from kinds_layers import record_kinds  # noqa: E402
from probe_files import FAMILIES  # noqa: E402
from reader_code import a1111, comfyui, diffusers, enter, forge, sdscripts  # noqa: E402

from sdxl_nb.lora.files.patterns import fold  # noqa: E402

READERS = {
    "comfyui": ("ComfyUI", "Comfy-Org/ComfyUI", comfyui),
    "forge": ("Forge", "lllyasviel/stable-diffusion-webui-forge", forge),
    "a1111": ("AUTOMATIC1111", "AUTOMATIC1111/stable-diffusion-webui", a1111),
    "sdscripts": ("sd-scripts", "kohya-ss/sd-scripts", sdscripts),
    "diffusers": ("diffusers", "huggingface/diffusers", diffusers),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("checkout", nargs="?", type=Path)
    parser.add_argument("--also", action="append", default=[], help="a checkout that the reader imports from")
    parser.add_argument("--dora", action="store_true", help="also merge a DoRA layer, into dora.json")
    parser.add_argument("--kinds", action="store_true", help="only merge LoHa and LoKr layers, into kinds.json")
    parser.add_argument("--file", action="append", default=[], type=Path, help="with --kinds: files to compare with")
    parser.add_argument("--commit", help="COMMIT DATE; git is asked by default")
    arguments = parser.parse_args()
    label, repository, record = READERS[arguments.reader]
    versions = {"torch": torch.__version__.partition("+")[0]}
    if arguments.checkout:
        asked = ["git", "-C", str(arguments.checkout), "log", "-1", "--format=%H %cs"]
        commit, date = (arguments.commit or subprocess.check_output(asked, text=True)).split()
    else:
        import diffusers as installed

        commit, date = f"v{installed.__version__}", ""
    logging.disable(logging.INFO)
    if arguments.kinds:
        enter(arguments.reader, arguments.checkout)
        record_kinds(arguments.reader, label, commit, arguments.file)
        return
    keys, notes = record(arguments.checkout, arguments.also)
    if arguments.dora:
        record_dora(arguments.reader, label, commit, arguments.checkout, arguments.also)
    import transformers

    versions["transformers"] = transformers.__version__
    parts = defaultdict(set)
    for key in keys:
        name, part = next((key[: -len(p) - 1], p) for f in FAMILIES for p in f if key.endswith(f".{p}"))
        parts[name].add(part)
    groups = defaultdict(list)
    for name, suffixes in parts.items():
        groups[tuple(sorted(suffixes))].append(name)
    also = [Path(path).name for path in arguments.also]
    data = {
        "reader": label,
        "repository": repository,
        "commit": commit,
        "date": date,
        "command": " ".join(
            [
                "tests/lora/readers/record.py",
                arguments.reader,
                *(["CHECKOUT"] if arguments.checkout else []),
                *(f"--also {name}" for name in also),
            ]
        ),
        "versions": versions,
        "notes": notes,
        "keys": [{"parts": list(group), "modules": fold(names)} for group, names in sorted(groups.items())],
    }
    goal = ROOT / "sdxl_nb" / "lora" / "files" / "known_keys" / f"{arguments.reader}.json"
    goal.parent.mkdir(exist_ok=True)
    goal.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(f"{label}: {len(parts)} modules, {len(keys)} keys, {goal.stat().st_size} bytes")


if __name__ == "__main__":
    main()
