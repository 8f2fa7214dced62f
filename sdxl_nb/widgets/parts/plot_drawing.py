"""How a Plot is drawn in the browser, and what it hears there: JavaScript and a style sheet, which ask for no network.

The canvas is a slider for the keyboard and for who does not see it: its value is a step, its words the values there.
"""

DRAWING = r"""
const LEFT = 62, RIGHT = 24, TOP = 8, BELOW = 34, GAP = 18, LOSS = 230, RATE = 64;  // CSS pixels
const MOVES = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -50, PageUp: 50 };
const floats = (data) => data ? new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength))
  : new Float32Array();
function said(value) {
  if (!Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(+value.toPrecision(4));
}
function ticks(low, high, many, log) {
  const found = [];
  if (log && high / low > 10) {
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const part of high / low > 1000 ? [1] : [1, 2, 5]) found.push(part * 10 ** power);
  } else {
    const rough = (high - low) / many || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((part) => part * power >= rough);
    for (let number = Math.ceil(low / step); number * step <= high; number++) found.push(number * step);
  }
  return found.filter((value) => value >= low && value <= high);
}
function nearest(x, at) {
  let low = 0, high = x.length - 1;
  while (low < high) { const middle = (low + high) >> 1; if (x[middle] < at) low = middle + 1; else high = middle; }
  return low > 0 && at - x[low - 1] < x[low] - at ? low - 1 : low;
}
let count = 0;
function render({ model, el }) {
  const id = "sdxl-nb-plot-" + ++count;
  el.innerHTML = `<div class="sdxl-nb-plot"><div class="tools"><label><input type="checkbox"> log scale</label>
    <label for="${id}">smoothing</label><input id="${id}" type="range" min="0" step="1"
      data-lm-suppress-shortcuts="true"><output></output>
    <button type="button" class="jupyter-button">Show all steps</button><span class="hint"></span></div>
    <canvas tabindex="0" role="slider" data-lm-suppress-shortcuts="true"></canvas><div class="names"></div></div>`;
  const root = el.firstChild, canvas = root.querySelector("canvas"), names = root.querySelector(".names");
  const [log, span] = root.querySelectorAll("input"), output = root.querySelector("output");
  const all = root.querySelector("button"), hint = root.querySelector(".hint"), hidden = new Set();
  let lines = [], cursor = null, drag = null, waiting = 0;
  const range = () => model.get("view").length === 2 ? model.get("view") : model.get("extent");
  const shown = () => lines.filter((line) => !hidden.has(line.name));
  function take() {
    lines = model.get("lines").map((line) => ({ ...line, x: floats(line.x), y: floats(line.y) }));
    legend();
    later();
  }
  function legend() {
    const known = lines.map((line) => line.name + line.colour + line.look).join("|");
    if (names.dataset.known === known) return;
    names.dataset.known = known;
    names.replaceChildren(...lines.map((line) => {
      const name = document.createElement("button"), mark = document.createElement("i");
      name.type = "button";
      name.title = "Show or hide it";
      name.setAttribute("aria-pressed", !hidden.has(line.name));
      mark.className = line.look;
      mark.style.setProperty("--line", `var(--sdxl-nb-line-${line.colour})`);
      name.append(mark, line.name + " ", document.createElement("b"));
      name.onclick = () => {
        if (!hidden.delete(line.name)) hidden.add(line.name);
        name.setAttribute("aria-pressed", !hidden.has(line.name));
        later();
      };
      return name;
    }));
  }
  function panels(height) {
    const rates = shown().some((line) => line.panel === "rate" && line.x.length);
    const bottom = height - BELOW - (rates ? RATE + GAP : 0);
    const loss = { name: "loss", top: TOP, bottom, log: model.get("logarithmic") };
    return rates ? [loss, { name: "rate", top: loss.bottom + GAP, bottom: height - BELOW, log: false }] : [loss];
  }
  function bounds(panel, low, high) {
    let least = Infinity, most = -Infinity;
    for (const line of shown()) if (line.panel === panel.name)
      for (let i = 0; i < line.x.length; i++) {
        const value = line.y[i];
        if (line.x[i] < low || line.x[i] > high || !Number.isFinite(value) || (panel.log && value <= 0)) continue;
        if (value < least) least = value;
        if (value > most) most = value;
      }
    if (least > most) [least, most] = panel.log ? [0.1, 1] : [0, 1];
    if (panel.log) return least === most ? [least / 2, most * 2] : [least / 1.1, most * 1.1];
    const room = (most - least || Math.abs(most) || 1) * 0.06;
    return [panel.name === "rate" ? Math.min(0, least) : least - room, most + room];
  }
  function later() {
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); });
  }
  function draw() {
    const width = root.clientWidth, rates = shown().some((line) => line.panel === "rate" && line.x.length);
    if (!width) return;
    const height = TOP + LOSS + BELOW + (rates ? RATE + GAP : 0), sharp = window.devicePixelRatio || 1;
    canvas.style.height = height + "px";
    canvas.width = width * sharp;
    canvas.height = height * sharp;
    const style = getComputedStyle(root), colour = (name) => style.getPropertyValue(name).trim() || "#888";
    const pen = canvas.getContext("2d"), [low, high] = range(), right = width - RIGHT;
    const across = (step) => LEFT + (step - low) / (high - low || 1) * (right - LEFT);
    pen.scale(sharp, sharp);
    pen.font = `11px ${style.fontFamily}`;
    const parts = panels(height), ink = colour("--sdxl-nb-ink"), grid = colour("--sdxl-nb-grid");
    const steps = ticks(low, high, Math.max(2, width / 110), false).filter((step) => step === Math.round(step));
    for (const part of parts) {
      const [least, most] = bounds(part, low, high), scale = part.log ? Math.log : (value) => value;
      part.up = (value) => part.bottom - (scale(value) - scale(least)) / (scale(most) - scale(least)) *
        (part.bottom - part.top);
      pen.textAlign = "right"; pen.textBaseline = "middle"; pen.lineWidth = 1;
      for (const value of ticks(least, most, part.name === "rate" ? 2 : 5, part.log)) {
        const y = Math.round(part.up(value)) + 0.5;
        pen.strokeStyle = grid;
        pen.beginPath(); pen.moveTo(LEFT, y); pen.lineTo(right, y); pen.stroke();
        pen.fillStyle = ink;
        pen.fillText(said(value), LEFT - 6, y);
      }
      pen.save();
      pen.translate(10, (part.top + part.bottom) / 2); pen.rotate(-Math.PI / 2); pen.textAlign = "center";
      pen.fillText(part.name === "rate" ? "rate" : part.log ? "loss, log scale" : "loss", 0, 0);
      pen.restore();
      pen.save();
      pen.beginPath(); pen.rect(LEFT, part.top - 4, right - LEFT, part.bottom - part.top + 8); pen.clip();
      for (const line of shown()) if (line.panel === part.name) curve(pen, line, part, across, colour);
      pen.restore();
    }
    pen.textAlign = "center"; pen.textBaseline = "top"; pen.fillStyle = ink; pen.strokeStyle = ink;
    const floor = height - BELOW;
    for (const step of steps) {
      pen.fillText(step.toLocaleString("en"), across(step), floor + 5);
      pen.beginPath(); pen.moveTo(across(step), floor); pen.lineTo(across(step), floor + 3); pen.stroke();
    }
    pen.fillText("optimizer step", (LEFT + right) / 2, floor + 19);
    if (drag) {
      pen.fillStyle = colour("--sdxl-nb-chosen");
      pen.fillRect(Math.min(drag.from, drag.to), TOP, Math.abs(drag.to - drag.from), floor - TOP);
    }
    point(pen, parts, across, colour, floor);
    tell(low, high);
  }
  function curve(pen, line, part, across, colour) {
    pen.strokeStyle = pen.fillStyle = colour(`--sdxl-nb-line-${line.colour}`);
    pen.globalAlpha = line.look === "faint" ? 0.4 : 1;
    pen.lineWidth = line.look === "faint" ? 1 : 2;
    pen.setLineDash(line.look === "dots" ? [5, 4] : []);
    pen.beginPath();
    let down = false;
    for (let i = 0; i < line.x.length; i++) {
      const value = line.y[i];
      if (!Number.isFinite(value) || (part.log && value <= 0)) { down = false; continue; }
      if (down) pen.lineTo(across(line.x[i]), part.up(value)); else pen.moveTo(across(line.x[i]), part.up(value));
      down = true;
    }
    pen.stroke();
    pen.setLineDash([]);
    if (line.look === "dots" || line.x.length === 1) for (let i = 0; i < line.x.length; i++) {
      if (!Number.isFinite(line.y[i]) || (part.log && line.y[i] <= 0)) continue;
      pen.beginPath(); pen.arc(across(line.x[i]), part.up(line.y[i]), 3, 0, 7); pen.fill();
    }
    pen.globalAlpha = 1;
  }
  function point(pen, parts, across, colour, floor) {
    if (cursor === null) return;
    pen.strokeStyle = colour("--sdxl-nb-ink"); pen.lineWidth = 1;
    const x = Math.round(across(cursor)) + 0.5;
    pen.beginPath(); pen.moveTo(x, TOP); pen.lineTo(x, floor); pen.stroke();
    for (const line of shown()) {
      const i = nearest(line.x, cursor), part = parts.find((each) => each.name === line.panel);
      if (!line.x.length || !part || !Number.isFinite(line.y[i]) || (part.log && line.y[i] <= 0)) continue;
      pen.fillStyle = colour(`--sdxl-nb-line-${line.colour}`);
      pen.beginPath(); pen.arc(across(line.x[i]), part.up(line.y[i]), 4, 0, 7); pen.fill();
    }
  }
  function tell(low, high) {
    const values = [];
    for (const [number, line] of lines.entries()) {
      const i = cursor === null ? line.x.length - 1 : nearest(line.x, cursor), value = said(line.y[i]);
      const off = cursor !== null && line.x[i] !== cursor ? ` (step ${line.x[i]})` : "";
      names.children[number].lastChild.textContent = line.x.length ? value + off : "";
      if (line.x.length && !hidden.has(line.name)) values.push(`${line.name} ${value}`);
    }
    const at = cursor === null ? high : cursor;
    canvas.setAttribute("aria-label", model.get("words"));
    canvas.setAttribute("aria-valuemin", low);
    canvas.setAttribute("aria-valuemax", high);
    canvas.setAttribute("aria-valuenow", at);
    canvas.setAttribute("aria-valuetext", `step ${at}: ${values.join(", ")}`);
    all.disabled = model.get("view").length !== 2;
    hint.textContent = cursor === null ? "drag to zoom" : `step ${cursor.toLocaleString("en")}`;
  }
  function place(event) {  // the step under the pointer, of those there are
    const box = canvas.getBoundingClientRect(), [low, high] = range();
    const x = Math.min(Math.max(event.clientX - box.left, LEFT), box.width - RIGHT);
    return [x, low + (x - LEFT) / (box.width - LEFT - RIGHT) * (high - low)];
  }
  const longest = () => shown().reduce((one, other) => other.x.length > one.length ? other.x : one, []);
  function point_at(step) {
    const x = longest();
    cursor = x.length ? x[nearest(x, step)] : null;
    later();
  }
  function zoom(low, high) {
    const [first, last] = model.get("extent");
    [low, high] = [Math.max(Math.floor(low), first), Math.min(Math.ceil(high), last)];
    if (high - low < 1) return;
    model.set("view", low <= first && high >= last ? [] : [low, high]);
    model.save_changes();
    later();
  }
  canvas.onpointerdown = (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    const [x] = place(event);
    drag = { from: x, to: x, step: place(event)[1] };
  };
  canvas.onpointermove = (event) => {
    const [x, step] = place(event);
    if (drag) drag.to = x;
    point_at(step);
  };
  canvas.onpointerup = (event) => {
    if (drag && Math.abs(drag.to - drag.from) > 5) {
      const step = place(event)[1];
      zoom(Math.min(drag.step, step), Math.max(drag.step, step));
    }
    drag = null;
    later();
  };
  canvas.onpointercancel = () => { drag = null; later(); };
  canvas.onpointerleave = () => { if (!drag) { cursor = null; later(); } };
  canvas.ondblclick = () => zoom(-Infinity, Infinity);
  canvas.onblur = () => { cursor = null; later(); };
  canvas.onkeydown = (event) => {
    const x = longest(), [low, high] = range(), middle = cursor ?? (low + high) / 2;
    if (MOVES[event.key] && x.length) {
      const at = cursor === null ? x.length : nearest(x, cursor);
      cursor = x[Math.min(Math.max(at + MOVES[event.key], 0), x.length - 1)];
    } else if (event.key === "Home" && x.length) cursor = x[0];
    else if (event.key === "End" && x.length) cursor = x[x.length - 1];
    else if (event.key === "+" || event.key === "=") zoom(middle - (high - low) / 4, middle + (high - low) / 4);
    else if (event.key === "-") zoom(middle - (high - low), middle + (high - low));
    else if (event.key === "Escape") zoom(-Infinity, Infinity);
    else return;
    event.preventDefault();
    event.stopPropagation();
    later();
  };
  all.onclick = () => zoom(-Infinity, Infinity);
  log.onchange = () => { model.set("logarithmic", log.checked); model.save_changes(); later(); };
  span.oninput = () => {
    model.set("smoothing", model.get("spans")[Number(span.value)]);
    model.save_changes();
    options();
  };
  function options() {
    const spans = model.get("spans"), now = model.get("smoothing");
    log.checked = model.get("logarithmic");
    span.max = spans.length - 1;
    span.value = Math.max(0, spans.findIndex((each) => each >= now));
    output.textContent = now > 1 ? `${now} steps` : "none";
    span.setAttribute("aria-valuetext", output.textContent);
    later();
  }
  const themed = new MutationObserver(() => { later(); setTimeout(later, 300); });  // its colours come a bit after
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
  const sized = new ResizeObserver(later);
  sized.observe(root);
  model.on("change:lines", take);
  for (const name of ["view", "extent", "words"]) model.on("change:" + name, later);
  for (const name of ["logarithmic", "smoothing", "spans"]) model.on("change:" + name, options);
  take();
  options();
  return () => {
    for (const observer of [themed, sized]) observer.disconnect();
    cancelAnimationFrame(waiting);
    model.off("change:lines", take);
  };
}
export default { render };
"""

CSS = """
.sdxl-nb-plot { --sdxl-nb-ink: var(--jp-ui-font-color2, #666); --sdxl-nb-grid: var(--jp-border-color2, #ddd);
  --sdxl-nb-chosen: rgba(100, 130, 200, 0.25); --sdxl-nb-line-0: #c2410c; --sdxl-nb-line-1: #2563a8;
  --sdxl-nb-line-2: #15803d; --sdxl-nb-line-3: #7e22ce; --sdxl-nb-line-4: #0f766e; --sdxl-nb-line-5: #a16207;
  width: 100%; max-width: 960px; font-family: var(--jp-ui-font-family, sans-serif);
  font-size: var(--jp-ui-font-size1, 13px); color: var(--jp-ui-font-color1, inherit); }
[data-jp-theme-light="false"] .sdxl-nb-plot { --sdxl-nb-line-0: #fb923c; --sdxl-nb-line-1: #60a5fa;
  --sdxl-nb-line-2: #4ade80; --sdxl-nb-line-3: #d8b4fe; --sdxl-nb-line-4: #5eead4; --sdxl-nb-line-5: #facc15; }
.sdxl-nb-plot .tools { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; min-height: 32px;
  padding: 2px; }
.sdxl-nb-plot .tools label { display: flex; align-items: center; gap: 4px; }
.sdxl-nb-plot .tools input { margin: 0; accent-color: var(--jp-brand-color1, #1976d2); }
.sdxl-nb-plot .tools input[type="range"] { width: 110px; }
.sdxl-nb-plot .tools output { min-width: 66px; font-variant-numeric: tabular-nums; }
.sdxl-nb-plot .tools .jupyter-button { width: auto; padding: 0 10px; }
.sdxl-nb-plot .tools .jupyter-button:disabled { opacity: var(--jp-widgets-disabled-opacity, 0.6); cursor: default; }
.sdxl-nb-plot .hint { color: var(--jp-ui-font-color2, #666); font-variant-numeric: tabular-nums; }
.sdxl-nb-plot canvas { display: block; width: 100%; cursor: crosshair; touch-action: pan-y; }
.sdxl-nb-plot canvas:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: -2px; }
.sdxl-nb-plot .names { display: flex; flex-wrap: wrap; gap: 2px 6px; padding: 2px 0 0 54px; }
.sdxl-nb-plot .names button { border: 1px solid transparent; background: none; font: inherit; padding: 2px 6px;
  border-radius: 3px; cursor: pointer; color: var(--jp-ui-font-color1, inherit); text-align: left; }
.sdxl-nb-plot .names button:hover { border-color: var(--jp-border-color1, #bbb); }
.sdxl-nb-plot .names button:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); }
.sdxl-nb-plot .names button[aria-pressed="false"] { text-decoration: line-through;
  color: var(--jp-ui-font-color2, #666); }
.sdxl-nb-plot .names b { font-weight: 600; font-variant-numeric: tabular-nums; }
.sdxl-nb-plot .names i { display: inline-block; width: 18px; height: 0; margin: 0 5px 3px 0; border-top: 3px solid
  var(--line); }
.sdxl-nb-plot .names i.faint { border-top-width: 1px; opacity: 0.6; }
.sdxl-nb-plot .names i.dots { border-top-style: dotted; }
"""
