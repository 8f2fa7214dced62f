"""How a card looks in the page: a picture to press, a box to tick, what is said of it, and the caption to write.

In: what is shown, as traits. Out: one widget with one module, for a page of cards made of ipywidgets is two hundred
models, which are waited for. `value` changes when somebody leaves the field, turns the page or presses Ctrl+Enter,
never while they type; `next` counts the Ctrl+Enters, `clicks` how often the picture was pressed.
"""

import traitlets

from ..parts.hearing import HearingWidget


class CardView(HearingWidget):
    """See the module; what is given as HTML is escaped by who gives it."""

    picture = traitlets.Bytes(help="The picture, WEBP or PNG; empty shows `alt` alone.").tag(sync=True)
    alt = traitlets.Unicode(help="What the picture shows, for those who do not see it.").tag(sync=True)
    name = traitlets.Unicode(help="What it is the card of.").tag(sync=True)
    text = traitlets.Unicode(help="What is said of it, as HTML.").tag(sync=True)
    answer = traitlets.Unicode(help="What became of the caption, as HTML.").tag(sync=True)
    value = traitlets.Unicode(help="The caption.").tag(sync=True)
    editable = traitlets.Bool(True, help="Whether it can be ticked and its caption be changed.").tag(sync=True)
    chosen = traitlets.Bool(False, help="Whether it is ticked.").tag(sync=True)
    clicks = traitlets.Int(0, help="How often the picture was pressed.").tag(sync=True)
    next = traitlets.Int(0, help="How often somebody asked for the next one.").tag(sync=True)

    _esm = """
    function render({ model, el }) {
      el.innerHTML = '<button type="button" class="sdxl-nb-picture"></button>' +
        '<div class="sdxl-nb-about"><input type="checkbox"><div></div></div>' +
        '<textarea class="sdxl-nb-words" rows="3" data-lm-suppress-shortcuts="true"></textarea><div></div>';
      const [button, about, box, answer] = el.children, [tick, text] = about.children, editable = model.get("editable");
      const image = document.createElement("img"), name = model.get("name");
      let url = null, shown = model.get("value");
      tick.title = "Select " + name;
      tick.setAttribute("aria-label", tick.title);
      tick.hidden = !editable;
      box.setAttribute("aria-label", "caption of " + name);
      box.placeholder = editable ? "what is seen; Ctrl+Enter for the next" : "";
      box.disabled = !editable;
      box.value = shown;
      const set = (trait, value) => { model.set(trait, value); model.save_changes(); };
      const draw = () => {
        if (url) URL.revokeObjectURL(url);
        const bytes = model.get("picture");
        url = bytes && bytes.byteLength ? URL.createObjectURL(new Blob([bytes])) : null;
        if (url) { image.src = url; button.replaceChildren(image); }
        else button.textContent = model.get("alt");
      };
      const call = () => {
        button.title = image.alt = model.get("alt");
        if (!url) button.textContent = model.get("alt");
      };
      const say = () => { text.innerHTML = model.get("text"); answer.innerHTML = model.get("answer"); };
      const ticked = () => { tick.checked = model.get("chosen"); };
      const keep = () => {
        if (box.value === shown) return;
        shown = box.value;
        set("value", shown);
      };
      const changed = () => {
        const typing = document.activeElement === box && box.value !== shown;
        shown = model.get("value");
        if (!typing) box.value = shown;
      };
      const asked = (message) => {
        if (message.focus) { box.focus(); box.scrollIntoView({ block: "nearest" }); }
      };
      button.onclick = () => set("clicks", model.get("clicks") + 1);
      tick.onchange = () => set("chosen", tick.checked);
      box.onchange = box.onblur = keep;
      box.onkeydown = (event) => {
        event.stopPropagation();  // JupyterLab would run the cell
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        keep();
        set("next", model.get("next") + 1);
      };
      const heard = { picture: draw, alt: call, text: say, answer: say, chosen: ticked, value: changed };
      for (const [trait, hear] of Object.entries(heard)) model.on("change:" + trait, hear);
      model.on("msg:custom", asked);
      draw(); call(); say(); ticked();
      return () => {
        keep();
        for (const [trait, hear] of Object.entries(heard)) model.off("change:" + trait, hear);
        model.off("msg:custom", asked);
        if (url) URL.revokeObjectURL(url);
      };
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-card { width: 196px; box-sizing: border-box; margin: 2px 2px 10px; overflow: hidden; }
    .sdxl-nb-card .sdxl-nb-picture { width: 196px; height: 196px; padding: 0; border: 2px solid transparent;
      background: var(--jp-layout-color2); cursor: zoom-in; color: var(--jp-ui-font-color2);
      font-size: var(--jp-ui-font-size0); display: block; overflow: hidden; box-sizing: border-box; }
    .sdxl-nb-card .sdxl-nb-picture:is(:hover, :focus-visible) { border-color: var(--jp-brand-color1); outline: none; }
    .sdxl-nb-card img { width: 100%; height: 192px; display: block; object-fit: contain; }
    .sdxl-nb-about { display: flex; align-items: flex-start; gap: 4px; margin: 3px 0; }
    .sdxl-nb-about input { flex: 0 0 auto; margin: 3px 0 0 2px; }
    .sdxl-nb-about div { min-width: 0; }
    .sdxl-nb-card div { line-height: 1.35; overflow-wrap: anywhere; }
    .sdxl-nb-words { box-sizing: border-box; width: 100%; min-height: 62px; resize: vertical; padding: 4px 6px;
      font: inherit; line-height: 1.35; color: var(--jp-ui-font-color1); background: var(--jp-layout-color1);
      border: 1px solid var(--jp-border-color1); border-radius: 3px; }
    .sdxl-nb-words:focus { outline: 2px solid var(--jp-brand-color1); outline-offset: -1px; }
    """

    def focus(self) -> None:
        """Put the cursor into the caption."""
        self.send({"focus": True})
