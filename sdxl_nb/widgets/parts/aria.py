"""What a screen reader hears of a widget, and where the focus stays: what ipywidgets has no traits for.

In: rows, folds and bars of the widget around it, known by their classes. Out: aria-describedby and aria-invalid at each
row's input, a name where an input has a tooltip alone, aria-expanded at each fold's button, how far a progress bar is,
kept up to date in the browser. A browser forgets where the focus was when a button that was pressed is disabled, as
Start and Stop are, or goes: then the focus stays in the row of it, from where Tab goes on.
"""

from .hearing import HearingWidget


class Aria(HearingWidget):
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
      for (const input of form.querySelectorAll(":is(input, select)[title]:not([aria-label])"))
        if (![...input.labels].some((label) => label.innerText.trim())) input.setAttribute("aria-label", input.title);
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
      let form, waiting, last = null, around = [];  // what had the focus last, and all that it lies in
      const keep = () => {
        if (!last || (last.isConnected && !last.disabled)) return;
        const lost = [last, document.body, null].includes(document.activeElement);
        const place = around.find((each) => each.isConnected);
        last = null;
        if (!lost || !place || !form.contains(place)) return;
        place.tabIndex = -1;
        place.focus({ preventScroll: true });
      };
      const observer = new MutationObserver(() => { keep(); say(form); });
      const entered = (event) => {
        last = event.target;
        around = [];
        for (let each = last.parentElement; each && each !== form; each = each.parentElement) around.push(each);
      };
      const left = () => setTimeout(() => {  // after which it is known where the focus went
        if (document.activeElement !== document.body && !form.contains(document.activeElement)) last = null;
      });
      function start() {  // it is rendered before it has its place in the page
        form = el.closest(".sdxl-nb");
        if (!form) return void (waiting = setTimeout(start, 50));
        const attributeFilter = ["class", "style", "disabled"];
        form.addEventListener("focusin", entered);
        form.addEventListener("focusout", left);
        observer.observe(form, { subtree: true, childList: true, attributes: true, attributeFilter });
        say(form);
      }
      start();
      return () => {
        clearTimeout(waiting);
        observer.disconnect();
        form?.removeEventListener("focusin", entered);
        form?.removeEventListener("focusout", left);
      };
    }
    export default { render };
    """

    def __init__(self) -> None:
        super().__init__()
        self.layout.display = "none"
