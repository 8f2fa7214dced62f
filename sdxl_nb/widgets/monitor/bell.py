"""A tick that has the browser tell when a run is over, for who looks elsewhere meanwhile.

In: `text`, what has come to pass. Out: a notification of the browser each time the text is another one, in the pages
where somebody ticked the box and the browser allows it; a browser that does not says so here.
"""

import traitlets

from ..parts.hearing import HearingWidget


class Bell(HearingWidget):
    """Shows nothing but the tick; see the module."""

    text = traitlets.Unicode(help="What is told; nothing is, while it is empty.").tag(sync=True)

    _esm = """
    function render({ model, el }) {
      if (!("Notification" in window)) return;
      el.innerHTML = '<span class="sdxl-nb-bell"><label><input type="checkbox"> Tell me when it is over</label> ' +
        '<span role="status"></span></span>';
      const box = el.querySelector("input"), said = el.querySelector("[role=status]");
      box.onchange = async () => {
        said.textContent = "";
        if (!box.checked || (await Notification.requestPermission()) === "granted") return;
        box.checked = false;
        said.textContent = "The browser does not allow it for this page: allow notifications in its settings.";
      };
      const ring = () => {
        if (box.checked && model.get("text")) new Notification("sdxl_nb", { body: model.get("text") });
      };
      model.on("change:text", ring);
      return () => model.off("change:text", ring);
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-bell { font-size: var(--jp-ui-font-size1, 13px); line-height: 28px; margin: 0 6px; }
    .sdxl-nb-bell label { display: inline-flex; gap: 5px; align-items: center; }
    .sdxl-nb-bell input { margin: 0; }
    """
