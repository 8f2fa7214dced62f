"""What a screen reader hears of a widget: the sentence beside an input, whether its value is wrong, what is unfolded.

In: rows, folds and bars of the widget around it, known by their classes. Out: aria-describedby and aria-invalid at each
row's input, aria-expanded at each fold's button, how far a progress bar is, kept up to date in the browser. ipywidgets
has no traits for these.
"""

import anywidget


class Aria(anywidget.AnyWidget):
    """A child without a look of its own; it speaks for the whole widget of class sdxl-nb that holds it."""

    _esm = """
    let count = 0;  // of the sentences named so far: an id is needed to point to one
    function say(form) {
      for (const row of form.querySelectorAll(".sdxl-nb-row")) {
        const input = row.querySelector("input, select, textarea"), hint = row.querySelector(".sdxl-nb-hint");
        if (!input || !hint) continue;
        hint.id ||= "sdxl-nb-hint-" + ++count;
        input.setAttribute("aria-describedby", hint.id);
        input.setAttribute("aria-invalid", row.classList.contains("sdxl-nb-wrong"));
      }
      for (const fold of form.querySelectorAll(".sdxl-nb-fold"))
        fold.querySelector("button").setAttribute("aria-expanded", fold.classList.contains("sdxl-nb-unfolded"));
      for (const bar of form.querySelectorAll(".progress > .progress-bar")) {
        const done = Math.round(parseFloat(bar.style.width) || 0);
        const told = { role: "progressbar", "aria-label": "how far the run is", "aria-valuemin": 0,
          "aria-valuemax": 100, "aria-valuenow": done };
        for (const [name, value] of Object.entries(told)) bar.parentElement.setAttribute(name, value);
      }
    }
    function render({ el }) {
      let form, waiting;
      const observer = new MutationObserver(() => say(form));
      function start() {  // it is rendered before it has its place in the page
        form = el.closest(".sdxl-nb");
        if (!form) return void (waiting = setTimeout(start, 50));
        const attributeFilter = ["class", "style"];
        observer.observe(form, { subtree: true, childList: true, attributes: true, attributeFilter });
        say(form);
      }
      start();
      return () => { clearTimeout(waiting); observer.disconnect(); };
    }
    export default { render };
    """

    def __init__(self) -> None:
        super().__init__()
        self.layout.display = "none"
