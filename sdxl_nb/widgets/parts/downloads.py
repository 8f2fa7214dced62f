"""A button that saves a file on the reader's own machine, also from a server far away such as SageMaker Studio.

In: a name and a function that gives the bytes when they are asked for. The bytes go to the browser as messages, which
no link into the server's folders is needed for: in parts, since what lies between may refuse a message of 100 MB.
"""

from collections.abc import Callable
from typing import Any

import traitlets

from .hearing import HearingWidget

PART = 4 * 2**20  # bytes of a message


class DownloadButton(HearingWidget):
    """Sends `read()` to the browser as `filename` when it is pressed; `fail(error)` is called when that goes wrong."""

    label = traitlets.Unicode(help="What the button says.").tag(sync=True)
    filename = traitlets.Unicode(help="The name that the browser saves it under.").tag(sync=True)
    disabled = traitlets.Bool(False, help="Whether there is nothing to save yet.").tag(sync=True)

    _esm = """
    function render({ model, el }) {
      const button = document.createElement("button");
      button.className = "jupyter-button sdxl-nb-download";
      button.type = "button";
      function draw() {
        button.textContent = model.get("label");
        button.title = "Save " + model.get("filename");
        button.disabled = model.get("disabled");
      }
      const view = Math.random();  // every view of this button hears the answer, one has asked for it
      button.onclick = () => model.send({ view });
      let parts = [];
      const save = (message, buffers) => {
        if (message.view !== view) return;
        parts.push(...buffers);
        if (!message.filename) return;  // the last one has it
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob(parts));
        link.download = message.filename;
        parts = [];
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      };
      model.on("msg:custom", save);
      for (const name of ["label", "filename", "disabled"]) model.on("change:" + name, draw);
      draw();
      el.append(button);
      return () => model.off("msg:custom", save);
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-download { width: auto; min-width: 100%; padding: 0 6px; }
    .sdxl-nb-download:disabled { opacity: var(--jp-widgets-disabled-opacity, 0.6); cursor: default; }
    """

    def __init__(
        self,
        label: str,
        filename: str,
        read: Callable[[], bytes],
        fail: Callable[[Exception], object],
        disabled: bool = False,
        width: str | None = None,
    ):
        super().__init__(label=label, filename=filename, disabled=disabled)
        self.layout.width = width
        self.read, self.fail = read, fail
        self.on_msg(self._asked)

    def _asked(self, widget: Any, message: Any, buffers: Any) -> None:
        try:
            data, answer = self.read(), {"view": message.get("view")}
            last = (len(data) - 1) // PART * PART if data else 0
            for start in range(0, last, PART):
                self.send(answer, [data[start : start + PART]])
            self.send(answer | {"filename": self.filename}, [data[last:]])
        except Exception as error:  # shown by the widget that holds the button
            self.fail(error)
