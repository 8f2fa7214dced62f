"""Pictures in a notebook: small copies to send, a picture that can be pressed, and two under one slider.

In: PIL pictures or files. Out: WEBP bytes, and two anywidgets of a few lines of JavaScript, which need no script from
anywhere else. Both work with the keyboard: one is a button, the other a range input.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import traitlets
from PIL import Image, ImageDraw

from .hearing import HearingWidget

SIDE = 256  # pixels of a thumbnail's longer side: 2 kB as WEBP, where a 1024 px PNG has 300 kB


def picture_of(path: Path) -> Image.Image:
    """The picture in a file; in the place of one that was cut, or replaced by something else, one that says so."""
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except Exception:  # Pillow has errors of many kinds for them
        said = Image.new("RGB", (SIDE, SIDE), "#777777")
        ImageDraw.Draw(said).text((SIDE / 2, SIDE / 2), "cannot be read", "white", anchor="mm")
        return said


def thumbnail(picture: Any, side: int = SIDE) -> bytes:
    """A picture (PIL, or its file) as WEBP with its longer side `side`; a tiny one is enlarged pixel by pixel."""
    if isinstance(picture, str | Path):
        picture = picture_of(Path(picture))
    factor = side // max(picture.size)
    if factor > 1:
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    else:
        picture = picture.copy()
        picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=90, lossless=factor > 1, method=2)  # half the time of 4, and as small
    return buffer.getvalue()


class Tiles:
    """Thumbnails beside each other as one PNG, quickly made: what a page without a kernel shows of them."""

    def __init__(self, thumbnails: Sequence[bytes], side: int = 192, columns: int = 4):
        self._thumbnails, self._side, self._columns = thumbnails, side, columns

    def _repr_png_(self) -> bytes | None:
        side, wide = self._side, min(self._columns, len(self._thumbnails))
        if not wide:
            return None
        whole = Image.new("RGBA", (wide * side, -(-len(self._thumbnails) // wide) * side))
        for number, data in enumerate(self._thumbnails):
            tile = Image.open(io.BytesIO(data))
            tile.thumbnail((side - 8, side - 8))
            left, top = number % wide * side, number // wide * side
            whole.paste(tile, (left + (side - tile.width) // 2, top + (side - tile.height) // 2))
        buffer = io.BytesIO()
        whole.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


class PictureButton(HearingWidget):
    """A picture that is a button; `clicks` counts how often it was pressed."""

    value = traitlets.Bytes(help="The picture, WEBP or PNG; empty shows `alt` alone.").tag(sync=True)
    alt = traitlets.Unicode(help="What the picture shows, for those who do not see it.").tag(sync=True)
    side = traitlets.Int(128, help="Width of the picture in CSS pixels.").tag(sync=True)
    clicks = traitlets.Int(0, help="How often it was pressed.").tag(sync=True)

    _esm = """
    const LONGEST = 1.5;  // heights of a picture by its width; a taller one is shown smaller, not cut
    function render({ model, el }) {
      const button = document.createElement("button");
      button.className = "sdxl-nb-picture";
      button.type = "button";
      const image = document.createElement("img");
      let url = null;
      function draw() {
        button.title = model.get("alt");
        const side = model.get("side") + "px";
        button.style.width = side;
        image.style.maxHeight = `calc(${LONGEST} * ${side})`;
        if (url) URL.revokeObjectURL(url);
        const bytes = model.get("value");
        url = bytes && bytes.byteLength ? URL.createObjectURL(new Blob([bytes])) : null;
        if (url) { image.src = url; image.alt = model.get("alt"); button.replaceChildren(image); }
        else { button.style.height = side; button.textContent = model.get("alt"); }
      }
      button.onclick = () => { model.set("clicks", model.get("clicks") + 1); model.save_changes(); };
      for (const name of ["value", "alt", "side"]) model.on("change:" + name, draw);
      draw();
      el.append(button);
      return () => { if (url) URL.revokeObjectURL(url); };
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-picture { padding: 0; border: 2px solid transparent; background: var(--jp-layout-color2); cursor: zoom-in;
      color: var(--jp-ui-font-color2); font-size: var(--jp-ui-font-size0); display: block; overflow: hidden;
      white-space: normal; box-sizing: border-box; max-width: 100%; }
    .sdxl-nb-picture img { width: 100%; display: block; object-fit: contain; }
    .sdxl-nb-picture:focus-visible, .sdxl-nb-picture:hover { border-color: var(--jp-brand-color1); outline: none; }
    """


class BeforeAfter(HearingWidget):
    """Two pictures of one size, the second laid over the first from `position` percent on; drag or use arrow keys."""

    before = traitlets.Bytes(help="The picture on the left, WEBP or PNG.").tag(sync=True)
    after = traitlets.Bytes(help="The picture on the right.").tag(sync=True)
    position = traitlets.Int(50, min=0, max=100, help="Where the line stands, in percent.").tag(sync=True)
    labels = traitlets.List(traitlets.Unicode(), ["before", "after"], help="What the two are.").tag(sync=True)
    alt = traitlets.Unicode(help="What both show, for those who do not see it.").tag(sync=True)
    side = traitlets.Int(384, help="Width in CSS pixels.").tag(sync=True)

    _esm = """
    function render({ model, el }) {
      el.innerHTML = '<div class="sdxl-nb-pair"><img class="under"><img class="over"><i></i>' +
        '<span class="left"></span><span class="right"></span>' +
        '<input type="range" min="0" max="100" data-lm-suppress-shortcuts="true"></div>';  // arrow keys are its own
      const pair = el.firstChild, [under, over] = pair.querySelectorAll("img");
      const line = pair.querySelector("i"), input = pair.querySelector("input");
      const urls = {};
      function fill(image, name) {
        if (urls[name]) URL.revokeObjectURL(urls[name]);
        const bytes = model.get(name);
        urls[name] = bytes && bytes.byteLength ? URL.createObjectURL(new Blob([bytes])) : "";
        image.style.visibility = urls[name] ? "visible" : "hidden";
        if (urls[name]) image.src = urls[name];
      }
      function move() {
        const at = model.get("position");
        over.style.clipPath = `inset(0 0 0 ${at}%)`;
        line.style.left = at + "%";
        input.value = at;
      }
      function words() {
        const [left, right] = model.get("labels");
        pair.querySelector(".left").textContent = left;
        pair.querySelector(".right").textContent = right;
        for (const [image, label] of [[under, left], [over, right]])
          image.alt = [model.get("alt"), label].filter(Boolean).join(", ");
        input.setAttribute("aria-label", `how much of ${left} and of ${right} to show`);
        pair.style.width = model.get("side") + "px";
      }
      input.oninput = () => { model.set("position", Number(input.value)); model.save_changes(); };
      model.on("change:before", () => fill(under, "before"));
      model.on("change:after", () => fill(over, "after"));
      model.on("change:position", move);
      model.on("change:labels", words);
      model.on("change:alt", words);
      model.on("change:side", words);
      fill(under, "before"); fill(over, "after"); move(); words();
      return () => Object.values(urls).forEach((url) => url && URL.revokeObjectURL(url));
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-pair { position: relative; max-width: 100%; aspect-ratio: 1; background: var(--jp-layout-color2);
      overflow: hidden; }
    .sdxl-nb-pair img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain;
      }
    .sdxl-nb-pair i { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: #fff;
      box-shadow: 0 0 3px #000; }
    .sdxl-nb-pair span { position: absolute; top: 6px; padding: 1px 6px; border-radius: 3px; color: #fff;
      background: rgba(0, 0, 0, 0.6); font-size: var(--jp-ui-font-size0); }
    .sdxl-nb-pair .left { left: 6px; } .sdxl-nb-pair .right { right: 6px; }
    .sdxl-nb-pair input { position: absolute; inset: auto 0 4px 0; width: 100%; margin: 0; cursor: ew-resize; }
    """
