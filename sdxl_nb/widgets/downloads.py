"""A button that saves a file on the reader's own machine, also from a server far away such as SageMaker Studio.

In: a name and a function that gives the bytes when they are asked for. The bytes go to the browser as one message,
which no link into the server's folders is needed for.
"""

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets


class DownloadButton(anywidget.AnyWidget):
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
      button.onclick = () => model.send({ kind: "asked" });
      const save = (message, buffers) => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob(buffers));
        link.download = message.filename;
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
    _css = ".sdxl-nb-download { width: auto; padding: 0 10px; }"

    def __init__(
        self,
        label: str,
        filename: str,
        read: Callable[[], bytes],
        fail: Callable[[Exception], Any],
        disabled: bool = False,
    ):
        super().__init__(label=label, filename=filename, disabled=disabled)
        self.read, self.fail = read, fail
        self.on_msg(self._asked)

    def _asked(self, widget: Any, message: Any, buffers: Any) -> None:
        try:
            self.send({"filename": self.filename}, [self.read()])
        except Exception as error:  # shown by the widget that holds the button
            self.fail(error)
