"""A caption to write: kept as soon as it is left, and Ctrl+Enter goes on to the next that lacks one.

In: a text, and what it is the caption of. Out: `value`, which changes when somebody leaves the field, turns the page or
presses Ctrl+Enter, never while they type; `next` counts the Ctrl+Enters.
"""

import traitlets

from .hearing import HearingWidget


class CaptionBox(HearingWidget):
    """A text area with a name for who does not see it; see the module."""

    value = traitlets.Unicode(help="The caption.").tag(sync=True)
    label = traitlets.Unicode(help="What it is the caption of.").tag(sync=True)
    disabled = traitlets.Bool(False, help="Whether it can only be read.").tag(sync=True)
    next = traitlets.Int(0, help="How often somebody asked for the next one.").tag(sync=True)

    _esm = """
    function render({ model, el }) {
      const box = document.createElement("textarea");
      box.className = "sdxl-nb-words";
      box.rows = 3;
      box.setAttribute("data-lm-suppress-shortcuts", "true");
      function draw() {
        box.setAttribute("aria-label", model.get("label"));
        box.placeholder = model.get("disabled") ? "" : "what is seen; Ctrl+Enter for the next";
        box.disabled = model.get("disabled");
      }
      let shown = model.get("value");
      box.value = shown;
      function keep() {
        if (box.value === shown) return;
        shown = box.value;
        model.set("value", shown);
        model.save_changes();
      }
      box.onchange = keep;
      box.onblur = keep;
      box.onkeydown = (event) => {
        event.stopPropagation();  // JupyterLab would run the cell
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        keep();
        model.set("next", model.get("next") + 1);
        model.save_changes();
      };
      const changed = () => {
        const typing = document.activeElement === box && box.value !== shown;
        shown = model.get("value");
        if (!typing) box.value = shown;
      };
      const asked = (message) => {
        if (message.focus) { box.focus(); box.scrollIntoView({ block: "nearest" }); }
      };
      model.on("change:value", changed);
      model.on("change:label", draw);
      model.on("change:disabled", draw);
      model.on("msg:custom", asked);
      draw();
      el.append(box);
      return () => { keep(); model.off("msg:custom", asked); };
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-words { box-sizing: border-box; width: 100%; min-height: 62px; resize: vertical; padding: 4px 6px;
      font: inherit; line-height: 1.35; color: var(--jp-ui-font-color1); background: var(--jp-layout-color1);
      border: 1px solid var(--jp-border-color1); border-radius: 3px; }
    .sdxl-nb-words:focus { outline: 2px solid var(--jp-brand-color1); outline-offset: -1px; }
    """

    def focus(self) -> None:
        """Put the cursor into it."""
        self.send({"focus": True})
