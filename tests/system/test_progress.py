"""The text bar, in a terminal and in a notebook."""

import sys

import nbformat
from nbclient import NotebookClient

from sdxl_nb.system.progress import progress_bar

CELL = """
from sdxl_nb.system.progress import progress_bar

with progress_bar(total=4, unit="step", mininterval=0) as bar:
    for loss in (0.4, 0.3, 0.2, 0.1):
        bar.set_postfix(loss=loss, refresh=False)
        bar.update()
with progress_bar(desc="unknown", leave=False) as short:
    pass
with progress_bar(total=2, leave=False) as short:
    short.update(2)
with progress_bar(total=2, disable=True) as none:
    none.update(2)
"""


def test_says_steps_seconds_of_a_step_and_the_loss(capsys):
    with progress_bar(total=4, unit="step", mininterval=0) as bar:
        bar.update(4)
        bar.set_postfix(loss="0.1234")
    out, err = capsys.readouterr()
    assert out == "" and "100%" in err and "4/4" in err and "s/step, loss=0.1234]" in err


def test_a_notebook_keeps_the_last_line_of_each_bar_and_no_widget():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=1200).execute()
    outputs = notebook.cells[0].outputs
    assert [output.output_type for output in outputs] == ["display_data"] * 2
    assert [list(output.data) for output in outputs] == [["text/plain"]] * 2
    last, gone = (output.data["text/plain"] for output in outputs)
    assert last.startswith("100%|\N{FULL BLOCK}") and "4/4" in last and last.endswith("s/step, loss=0.1]")
    assert gone == ""


def test_disabled(capsys):
    with progress_bar(total=2, disable=True) as bar:
        bar.update(2)
    assert capsys.readouterr() == ("", "")
    assert not type(sys.stdout).__module__.startswith("ipykernel")
