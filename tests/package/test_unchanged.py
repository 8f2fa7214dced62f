"""What proves that nothing changed sees every kind of change, and its quick start is the notebook's."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.contents import KINDS, contents, first_difference
from benchmarks.unchanged import QUICKSTART
from sdxl_nb import TrainConfig
from sdxl_nb.config.flags import read_flags, train_parser

KEYS = np.arange(32, dtype=np.uint8).reshape(2, 16)
ROWS = np.float32([[0.5, 1], [2, 3]])


def event(kind, step, **told):
    return json.dumps({"event": kind, "time": 1.0, "step": step} | told) + "\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def tell(run, loss, said="cut"):
    write(run / "events.jsonl", event("warning", 0, message=said) + event("step", 1, train_loss=loss, seconds=1.0))


def save_lora(run, up=0.25, finished="1"):
    header = {"ss_training_finished_at": finished, "ss_seed": "3"}
    save_file({"up": np.float32([up])}, run / "lora.safetensors", header)


def save_rows(home, name, order):
    save_file({"keys": KEYS[order], "mean": ROWS[order]}, home / "cache" / "latents" / f"{name}.safetensors")


@pytest.fixture
def home(tmp_path):
    """A run of two steps, as far as it is looked at."""
    run = tmp_path / "then" / "run"
    tell(run, 0.5)
    write(run / "checkpoint-10" / "state.json", '{"step": 10}')
    write(run / "checkpoint-9" / "state.json", '{"step": 9}')
    write(run / "config.json", '{"rank": 4}')
    write(run / "run.json", '{"fingerprint": "f", "pid": 1}')
    write(run / "README.md", "# lora")
    write(run / "validation" / "0.png", "picture")
    save_lora(run)
    (run.parent / "cache" / "latents").mkdir(parents=True)
    save_rows(run.parent, "a", [0, 1])
    return run.parent


def difference(home, change):
    copy = shutil.copytree(home, home.parent / "now", dirs_exist_ok=False)
    change(copy)
    found = first_difference(contents(home), contents(copy))
    shutil.rmtree(copy)
    return found


def test_what_is_chance_or_the_clock_is_no_difference(home):
    assert {kind for kind, _ in contents(home)} == set(KINDS)

    def by_chance(copy):
        (copy / "cache" / "latents" / "a.safetensors").unlink()
        save_rows(copy, "b", [1, 0])
        save_lora(copy / "run", finished="2")
        told = event("step", 1, train_loss=0.7, seconds=3.0)  # before a kill; taken again after it
        write(copy / "run" / "events.jsonl", told + '{"event": "st\n' + (home / "run" / "events.jsonl").read_text())
        write(copy / "run" / "run.json", '{"fingerprint": "f", "pid": 2}')

    assert difference(home, by_chance) is None


CHANGES = {
    "loss step 1": lambda copy: tell(copy / "run", 0.5000000000000001),
    "text cut: said then, nothing now": lambda copy: tell(copy / "run", 0.5, said="cut short"),
    "tensor lora.safetensors up: 12 bytes": lambda copy: save_lora(copy / "run", np.nextafter(np.float32(0.25), 1)),
    "header lora.safetensors ss_seed: 3 then, nothing now": lambda copy: save_file(
        {"up": np.float32([0.25])}, copy / "run" / "lora.safetensors"
    ),
    "state state.json step: 10 then, 11 now": lambda copy: write(
        copy / "run" / "checkpoint-10" / "state.json", '{"step": 11}'
    ),
    "state config.json rank: 4 then, 5 now": lambda copy: write(copy / "run" / "config.json", '{"rank": 5}'),
    "state fingerprint: f then, g now": lambda copy: write(copy / "run" / "run.json", '{"fingerprint": "g"}'),
    "picture run/validation/0.png: 7 bytes": lambda copy: (copy / "run" / "validation" / "0.png").unlink(),
    "picture run/validation/1.png: nothing then": lambda copy: write(copy / "run" / "validation" / "1.png", "more"),
    "text README.md: # lora then, # LoRA now": lambda copy: write(copy / "run" / "README.md", "# LoRA"),
    "row cache/latents 0001020304": lambda copy: save_rows(copy, "a", [1]),
    "row cache/latents 1011121314": lambda copy: save_file(
        {"keys": KEYS, "mean": ROWS + np.float32([[0], [1e-6]])}, copy / "cache" / "latents" / "a.safetensors"
    ),
}


@pytest.mark.parametrize("named", CHANGES)
def test_every_change_is_named(home, named):
    assert difference(home, CHANGES[named]).startswith(named)


def test_the_quick_start_is_what_the_notebook_trains():
    notebook = json.loads(Path(__file__).parents[2].joinpath("notebooks", "00_quickstart.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (parameters,) = (cell for cell in cells if cell.startswith("preset ="))
    (changes,) = (cell for cell in cells if cell.startswith("config = config.replace("))
    values = {}
    exec(parameters, values)
    values["config"] = TrainConfig.preset(values["preset"], **values["changes"])
    exec(changes, values)
    config, _ = read_flags(train_parser("", ""), shlex.split(QUICKSTART))
    apart = {"output_dir", "overwrite_output_dir"}
    assert config.model_dump(exclude=apart) == values["config"].model_dump(exclude=apart)
