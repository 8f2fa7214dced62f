"""The tables of other trainers' settings: complete, of fields that there are, and printed as docs/other-trainers.md."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from sdxl_nb.config.foreign.optimizers import TAKEN
from sdxl_nb.config.foreign.page import TABLES
from sdxl_nb.config.settings import Settings

ROOT = Path(__file__).parents[3]
CLASSES = {
    "adamw": "torch.optim.AdamW",
    "prodigy": "prodigyopt.Prodigy",
    "adafactor": "transformers.optimization.Adafactor",
    "lion": "lion_pytorch.Lion",
    "came": "came_pytorch.CAME",
    "muon": "torch.optim.Muon",
    "adamw_schedulefree": "schedulefree.AdamWScheduleFree",
    "radam_schedulefree": "schedulefree.RAdamScheduleFree",
    "prodigy_schedulefree": "prodigyplus.ProdigyPlusScheduleFree",
}
PARSERS = Path(__file__).parent / "parsers"  # the names in the other programs' own parsers and default settings


@pytest.mark.parametrize(
    "title, file",
    [("kohya's sdxl_train_network.py", "kohya.txt"), ("OneTrainer's configuration", "onetrainer.txt")],
)
def test_every_setting_of_the_program_is_in_the_table(title, file):
    assert set(TABLES[title][1]) == set((PARSERS / file).read_text("utf-8").split())


@pytest.mark.parametrize("title", TABLES)
def test_rows_name_fields_of_ours_or_say_why_not(title):
    for name, key in TABLES[title][1].items():
        assert set(key.ours.split()) <= set(Settings.model_fields), name
        assert key.ours or key.why, name
        assert not key.why.endswith((".", ":")), name


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_that_are_taken_are_those_of_the_optimizer(name):
    module, _, kind = CLASSES[name].rpartition(".")
    known = inspect.signature(getattr(importlib.import_module(module), kind)).parameters
    assert set(TAKEN[name]) <= set(known)


def test_page_is_printed_from_the_tables():
    command = [sys.executable, "-m", "sdxl_nb.flags", "--other_trainers"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    written = (ROOT / "docs" / "other-trainers.md").read_text(encoding="utf-8")
    assert written == made, "python -m sdxl_nb.flags --other_trainers > docs/other-trainers.md makes it again"
