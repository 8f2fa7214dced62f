"""Widgets that hear and are heard whatever goes on: a kernel in a long cell, a page that is slow.

In: widgets that are displayed. Out: the same. `hear_at_once`: JupyterLab sends what a widget says to a *subshell*, a
second thread; ipykernel 7.4 gives it back to the thread of cells once the kernel has spoken of the widget, and there a
press on Stop would wait for the cell's end. A front end without subshells is as before. `HearingWidget`: anywidget
gives a module two seconds to load, and where a busy page takes longer, its model drops all that the kernel says, then
and ever after (anywidget 0.11, its runtime.ts), as if the connection were lost. Such a widget is given its classes of
the page when it is made: a view misses those that come later.
"""

from typing import Any

import anywidget
import traitlets

PLAIN, INITIALIZED = "export default { render", "export default { initialize, render"
INITIALIZE = """
const initialize = ({ model }) => {
  let own;  // the model itself, which an event brings along, behind what anywidget gives to modules
  const found = (itself) => { own = itself; };
  model.on("change:loads", found);
  model.set("loads", model.get("loads") + 1);
  model.off("change:loads", found);
  own?._handle_comm_msg({ content: { data: { method: "none" } } }).catch(() => {
    const heard = Object.getPrototypeOf(Object.getPrototypeOf(own))._handle_comm_msg;  // of all Jupyter's models
    own.comm?.on_msg((message) => heard.call(own, message));
    own.comm?.send({ method: "request_state" });  // what was dropped meanwhile
  });
};
"""


class HearingWidget(anywidget.AnyWidget):
    """An anywidget whose page hears the kernel however late its module has come."""

    loads = traitlets.Int(0, help="How often a page has loaded its module.").tag(sync=True)

    def __init_subclass__(cls, **options: Any) -> None:
        module = vars(cls).get("_esm")
        if isinstance(module, str) and PLAIN in module:  # an instance's own class has a trait of that name
            cls._esm = INITIALIZE + module.replace(PLAIN, INITIALIZED)
        super().__init_subclass__(**options)


def hear_at_once(*widgets: Any) -> None:
    """Leave what these widgets say in the thread that the front end sent it to."""
    for widget in widgets:
        if widget.comm is not None:
            widget.comm._reply_subshell_for = lambda data, subshell: subshell
