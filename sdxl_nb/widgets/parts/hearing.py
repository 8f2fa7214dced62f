"""Buttons that are heard while a cell is running, so that Stop stops a run that the notebook waits for.

In: widgets that are displayed. Out: the same, their messages going to a thread of the kernel's own. JupyterLab sends
what a widget says to a *subshell*, a second thread; ipykernel 7.4 gives it back to the thread of cells once the kernel
has spoken of the widget, and there it would wait for the cell's end. A front end without subshells is as before.
"""

from typing import Any


def hear_at_once(*widgets: Any) -> None:
    """Leave what these widgets say in the thread that the front end sent it to."""
    for widget in widgets:
        if widget.comm is not None:
            widget.comm._reply_subshell_for = lambda data, subshell: subshell
