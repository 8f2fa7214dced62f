"""An error in a notebook's cell: one framed sentence, in Python's words; the traceback when it is asked for."""

import re

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sdxl_nb.system.errors import ConfigError, SdxlNbError, framed, in_python

CELL = "from sdxl_nb import TrainConfig\nTrainConfig(resolution=1001)"


@pytest.fixture
def shown(capsys):
    """What IPython prints of a cell that fails, without its colours."""
    shell = InteractiveShell()
    shell.run_line_magic("colors", "nocolor")

    def run(cell):
        shell.run_cell(cell)
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return run


def test_a_cell_shows_one_framed_sentence(shown):
    lines = shown(CELL).strip().splitlines()
    assert lines[1:-1] == ["│ resolution must be a multiple of 8, not 1001: use 1000 or 1008 │"]
    assert (lines[0][0], lines[0][-1], lines[-1][0], lines[-1][-1]) == tuple("╭╮╰╯")


def test_the_traceback_is_one_setting_away(shown, monkeypatch):
    monkeypatch.setenv("SDXL_NB_TRACEBACK", "1")
    said = shown(CELL)
    assert "Traceback (most recent call last)" in said and "use 1000 or 1008" in said and "╭" not in said


def test_a_long_sentence_is_wrapped_and_each_line_has_its_frame():
    said = "word " * 60
    lines = re.sub(r"\x1b\[[0-9;]*m", "", "".join(framed(said))).splitlines()
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1
    assert "".join(line.strip("│ ") + " " for line in lines[1:-1]) == said


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("lower --learning_rate, try --mixed_precision bf16", "lower learning_rate, try mixed_precision bf16"),
        ("add --resume_from_checkpoint latest", "add resume_from_checkpoint latest"),
        ("--rank or --seed", "rank or seed"),
        ("a -- dash, x--y and --hub", "a -- dash, x--y and --hub"),
    ],
)
def test_flags_are_settings_to_who_writes_python(said, meant):
    assert in_python(said) == meant


def test_an_error_keeps_its_own_words_for_the_command_line():
    assert str(SdxlNbError("lower --rank")) == str(ConfigError("lower --rank")) == "lower --rank"
