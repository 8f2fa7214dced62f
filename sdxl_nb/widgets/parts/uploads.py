"""A place to drop files, folders and zips of any size, for a kernel near or far.

In: what a person drops or chooses. Out: files in a folder, given to `take(path, name)` one by one. They come in parts,
each asked for when the one before has been written: Jupyter's server drops a connection that sends a large message.
One bar a file, which says what became of it; nothing that goes wrong with one file ends the others, or the kernel.
What is passed over, hidden files among it, is counted in one line, with a few names.
"""

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import traitlets

from ...system.errors import DataError
from .hearing import HearingWidget, hear_at_once

PART = 2**20  # bytes of a message
PASSED = "passed over"  # how an answer begins about a file that is none to be brought, which is nobody's fault


class DropZone(HearingWidget):
    """Takes files by drop or by button; `take` says what became of one, or raises, and `done` is called after all."""

    label = traitlets.Unicode("Drop pictures, folders or a zip here, or", help="What the place says.").tag(sync=True)
    part = traitlets.Int(PART, help="Bytes of a message.").tag(sync=True)

    _esm = r"""
    async function below(entry, path, found) {  // a dropped folder is read entry by entry
      if (entry.isFile) {
        const file = await new Promise((good, bad) => entry.file(good, bad));
        found.push([file, path + file.name]);
      } else if (entry.isDirectory) {
        const reader = entry.createReader();
        for (;;) {
          const some = await new Promise((good, bad) => reader.readEntries(good, bad));
          if (!some.length) break;
          for (const one of some) await below(one, path + entry.name + "/", found);
        }
      }
    }
    function render({ model, el }) {
      el.innerHTML = '<div class="sdxl-nb-drop"><span></span> ' +
        '<button type="button" class="jupyter-button">Choose files</button> ' +
        '<button type="button" class="jupyter-button">Choose a folder</button>' +
        '<input type="file" multiple hidden aria-label="pictures, captions or a zip">' +
        '<input type="file" webkitdirectory hidden aria-label="a folder of pictures">' +
        '<div class="sdxl-nb-uploads" role="log" aria-label="uploads"></div></div>';
      const zone = el.firstChild, list = zone.querySelector(".sdxl-nb-uploads");
      const [files, folder] = zone.querySelectorAll("input"), buttons = zone.querySelectorAll("button");
      zone.querySelector("span").textContent = model.get("label");
      const waiting = [], view = Math.random(), summary = document.createElement("div");
      let passed = [];
      let current = null;
      function line(file, name) {
        const row = document.createElement("div");
        row.innerHTML = '<progress max="1" value="0"></progress> <b></b> <span></span> ' +
          '<button type="button" class="sdxl-nb-cancel">Cancel</button>';
        row.querySelector("b").textContent = name;
        const bar = row.querySelector("progress");
        bar.setAttribute("aria-label", "upload of " + name);
        const job = { file, name, row, bar, at: 0, id: view + "-" + Math.random() };
        row.querySelector("button").onclick = () => {
          job.cancelled = true;
          const place = waiting.indexOf(job);
          if (place >= 0) { waiting.splice(place, 1); say(job, "cancelled", true); }
        };
        list.append(row);
        return job;
      }
      function say(job, words, wrong) {
        job.row.querySelector("button")?.remove();
        if (!wrong) job.bar.value = 1;
        const span = job.row.querySelector("span");
        span.textContent = words;
        span.className = wrong ? "sdxl-nb-error" : "";
        if (wrong || words.length > 50) job.row.className = "sdxl-nb-stays";  // until other files come
        else setTimeout(() => job.row.remove(), 4000);
      }
      function pass(names) {
        if (!names.length) return;
        passed.push(...names);
        const some = passed.slice(0, 3).join(", ") + (passed.length > 3 ? ", ..." : "");
        summary.textContent = `${passed.length} file${passed.length > 1 ? "s" : ""} passed over, ` +
          `neither pictures nor captions to bring: ${some}`;
        list.append(summary);
      }
      async function send(job) {
        if (job.cancelled) { model.send({ id: job.id, cancel: true }); return; }
        const end = Math.min(job.file.size, job.at + model.get("part"));
        let bytes;
        try { bytes = await job.file.slice(job.at, end).arrayBuffer(); }
        catch (error) { model.send({ id: job.id, cancel: true, why: "it cannot be read: " + error.message }); return; }
        const message = { id: job.id, name: job.name, at: job.at, last: end === job.file.size, left: waiting.length };
        job.at = end;
        model.send(message, undefined, [bytes]);
        job.bar.value = job.file.size ? end / job.file.size * 0.98 : 0.98;
      }
      function next() {
        current = waiting.shift() || null;
        if (current) send(current);
      }
      function add(found) {
        const hidden = ([file, name]) => name.split("/").some((part) => part.startsWith("."));
        const late = ([file, name]) => /\.(txt|caption|cap)$/i.test(name) ? 1 : 0;  // after the pictures they are of
        found.sort((one, other) => late(one) - late(other));
        for (const old of list.querySelectorAll(".sdxl-nb-stays")) old.remove();
        summary.remove();
        passed = [];
        pass(found.filter(hidden).map(([file, name]) => name));
        found = found.filter((one) => !hidden(one));
        waiting.push(...found.map(([file, name]) => line(file, name)));
        if (!current) next();
      }
      model.on("msg:custom", (message) => {
        if (!current || message.id !== current.id) return;
        if (message.more) return void send(current);
        if (message.passed) { current.row.remove(); pass([current.name]); }
        else say(current, message.said, message.wrong);
        next();
      });
      const chosen = (input) => {
        add([...input.files].map((file) => [file, file.webkitRelativePath || file.name]));
        input.value = "";
      };
      buttons[0].onclick = () => files.click();
      buttons[1].onclick = () => folder.click();
      files.onchange = () => chosen(files);
      folder.onchange = () => chosen(folder);
      zone.ondragover = (event) => { event.preventDefault(); event.stopPropagation(); zone.classList.add("over"); };
      zone.ondragleave = () => zone.classList.remove("over");
      zone.ondrop = async (event) => {
        event.preventDefault();
        event.stopPropagation();  // JupyterLab would open the file
        zone.classList.remove("over");
        const found = [], entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
        if (entries.some((entry) => entry)) for (const entry of entries) { if (entry) await below(entry, "", found); }
        else for (const file of event.dataTransfer.files) found.push([file, file.name]);
        add(found);
      };
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-drop { border: 2px dashed var(--jp-border-color1); border-radius: 6px; padding: 14px 16px; margin: 4px 2px;
      color: var(--jp-ui-font-color1); line-height: 2; }
    .sdxl-nb-drop.over { border-color: var(--jp-brand-color1); background: var(--jp-layout-color2); }
    .sdxl-nb-drop .jupyter-button { width: auto; padding: 0 12px; }
    .sdxl-nb-uploads { max-height: 180px; overflow: auto; line-height: 1.6; }
    .sdxl-nb-uploads progress { width: 120px; vertical-align: middle; }
    .sdxl-nb-uploads b { font-weight: 400; overflow-wrap: anywhere; }
    """

    def __init__(self, take: Callable[[Path, str], str], done: Callable[[], object], **traits: Any):
        super().__init__(**traits)
        self._take, self._done, self._open = take, done, dict[str, Path]()
        self._folder = tempfile.TemporaryDirectory(prefix="sdxl-nb-upload-")
        self.on_msg(self._heard)
        hear_at_once(self)

    def _heard(self, widget: Any, message: Any, buffers: Any) -> None:
        """One part of one file, or the end of it; whatever happens is answered, so that the next one comes."""
        if not isinstance(message, dict) or not isinstance(key := message.get("id"), str):
            return
        try:
            if message.get("cancel"):
                self._forget(key)
                self._answer(key, str(message.get("why") or "cancelled"), wrong=True)
                return
            self._write(key, message, buffers)
            if not message.get("last"):
                self.send({"id": key, "more": True})
                return
            said = self._take(self._open[key], str(message.get("name")))
            self._answer(key, said)
        except Exception as error:  # said at the file, and the next one comes
            words = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            self._answer(key, words, wrong=True)
        self._forget(key)
        if not message.get("left"):
            self._done()

    def _write(self, key: str, message: dict[str, Any], buffers: Any) -> None:
        """Append a part to the draft of its file; DataError when the disk has no room or a part is missing."""
        path = self._open.setdefault(key, Path(self._folder.name, secrets.token_hex(8)))
        try:
            size = path.stat().st_size if path.exists() else 0
            if size != message.get("at"):
                raise DataError("a part of it got lost on the way: choose it once more.")
            with open(path, "ab") as file:
                for buffer in buffers or []:
                    file.write(buffer)
        except OSError as error:
            raise DataError(f"it cannot be stored ({error.strerror}): make room.") from error

    def _answer(self, key: str, said: str, wrong: bool = False) -> None:
        self.send({"id": key, "said": said, "wrong": wrong, "passed": not wrong and said.startswith(PASSED)})

    def _forget(self, key: str) -> None:
        if path := self._open.pop(key, None):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give up what has not come whole."""
        for key in list(self._open):
            self._forget(key)
        self._folder.cleanup()
        super().close()


def plain_name(name: str) -> str:
    """The file's own name, of a path as a browser or a zip has it."""
    return os.path.basename(name.replace("\\", "/"))
