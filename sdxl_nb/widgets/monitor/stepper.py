"""Which step of a run is looked at: a slider over the steps there are, however far they lie apart.

In: steps in their order. Out: an anywidget; `place` is the index of the one that is chosen. Arrow keys go to the step
before or after, and a screen reader hears the step, not the index.
"""

import traitlets

from ..parts.hearing import HearingWidget


class Stepper(HearingWidget):
    """A range input over `steps` with the step in words beside it."""

    steps = traitlets.List(traitlets.Int(), help="The steps to choose from.").tag(sync=True)
    place = traitlets.Int(0, help="Which of them is chosen, from 0.").tag(sync=True)
    label = traitlets.Unicode("Step", help="What is chosen; read out with it.").tag(sync=True)

    _esm = """
    function render({ model, el }) {
      el.innerHTML = '<div class="sdxl-nb-stepper"><span></span><input type="range" min="0" step="1" ' +
        'data-lm-suppress-shortcuts="true"><output></output></div>';  // arrow keys are its own
      const [name, range, said] = el.firstChild.children;
      function tell(place) {
        const steps = model.get("steps"), last = place >= steps.length - 1;
        const step = (steps[place] ?? 0).toLocaleString("en");
        said.textContent = last ? `${step}, the newest` : `${step} of ${steps[steps.length - 1].toLocaleString("en")}`;
        range.setAttribute("aria-valuetext", "step " + said.textContent);
      }
      function draw() {
        name.textContent = model.get("label");
        range.setAttribute("aria-label", model.get("label"));
        range.max = Math.max(0, model.get("steps").length - 1);
        range.value = model.get("place");
        tell(model.get("place"));
      }
      range.oninput = () => {
        tell(Number(range.value));
        model.set("place", Number(range.value));
        model.save_changes();
      };
      for (const part of ["steps", "place", "label"]) model.on("change:" + part, draw);
      draw();
      return () => { for (const part of ["steps", "place", "label"]) model.off("change:" + part, draw); };
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-stepper { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; margin: 4px 2px;
      line-height: 1.3; font-size: var(--jp-ui-font-size1, 13px); color: var(--jp-ui-font-color1, inherit); }
    .sdxl-nb-stepper input { flex: 0 1 324px; min-width: 120px; margin: 0;
      accent-color: var(--jp-brand-color1, #1976d2); }
    .sdxl-nb-stepper output { font-variant-numeric: tabular-nums; color: var(--jp-ui-font-color2, #666); }
    """

    def offer(self, steps: list[int], place: int) -> None:
        """Show these steps, this one chosen."""
        if (steps, place) != (self.steps, self.place):
            with self.hold_sync():
                self.steps, self.place = steps, place
