"""A number between two ends, to drag, to step with the arrow keys, or to type.

In: ends, step and what the number is. Out: an anywidget of a few lines. ipywidgets' own slider tells a screen reader
neither what it is nor what its number is, and shares 300 px with its name.
"""

from typing import Any

import traitlets

from ..parts.hearing import HearingWidget


class Slider(HearingWidget):
    """A range input and a number input with one name; `value` changes when a person lets go."""

    value = traitlets.Float(1.0, help="The number.").tag(sync=True)
    min = traitlets.Float(0.0, help="Where the range begins.").tag(sync=True)
    max = traitlets.Float(2.0, help="Where the range ends.").tag(sync=True)
    step = traitlets.Float(0.05, help="What an arrow key adds.").tag(sync=True)
    description = traitlets.Unicode(help="What the number is; read out with it.").tag(sync=True)
    room = traitlets.Int(80, help="Width of the name in CSS pixels; a longer one takes several lines.").tag(sync=True)

    _esm = """
    function render({ model, el }) {
      el.innerHTML = '<div class="sdxl-nb-slider"><span></span><input type="range" data-lm-suppress-shortcuts="true">' +
        '<input type="number"></div>';  // else JupyterLab takes the arrow keys of a range for its own
      const row = el.firstChild, [range, number] = row.querySelectorAll("input");
      function draw() {
        const name = model.get("description");
        row.firstChild.textContent = row.title = name;
        row.style.gridTemplateColumns = `${model.get("room")}px minmax(60px, 1fr) 72px`;
        range.setAttribute("aria-label", name);
        number.setAttribute("aria-label", name + ", as a number");
        for (const input of [range, number]) {
          for (const part of ["min", "max", "step"]) input[part] = model.get(part);
          input.value = model.get("value");
        }
      }
      function take(input) {
        if (input.value === "") { draw(); return; }
        model.set("value", Number(input.value));
        model.save_changes();
      }
      range.oninput = () => { number.value = range.value; };
      for (const input of [range, number]) input.onchange = () => take(input);
      for (const part of ["value", "min", "max", "step", "description", "room"]) model.on("change:" + part, draw);
      draw();
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-slider { display: grid; align-items: center; gap: 8px; margin: 2px; line-height: 1.3;
      font-size: var(--jp-ui-font-size1, 13px); color: var(--jp-ui-font-color1, inherit); }
    .sdxl-nb-slider span { overflow-wrap: anywhere; }
    .sdxl-nb-slider input { margin: 0; min-width: 0; accent-color: var(--jp-brand-color1, #1976d2); }
    .sdxl-nb-slider input[type="number"] { height: 28px; padding: 2px 6px; box-sizing: border-box; color: inherit;
      font: inherit; background: var(--jp-layout-color1, transparent);
      border: 1px solid var(--jp-border-color1, #ccc); }
    """

    def show(self, value: Any) -> None:
        """Show a number; the range grows to hold one that lies beyond its ends."""
        with self.hold_sync():
            self.min, self.max, self.value = min(self.min, value), max(self.max, value), value
