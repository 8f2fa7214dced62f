"""The log of a run, all of it, at its end as long as somebody follows it.

In: a Run, at every look. Out: an anywidget; the page is sent what is new, and all of it when it asks, as a page that is
loaded again does. A page without a kernel shows the last lines.
"""

import os
import threading
from typing import Any

import traitlets

from ...runs.run import Run
from ...system.errors import SdxlNbError
from ..parts.hearing import HearingWidget, hear_at_once

MOST = 2_000_000  # bytes of a log that are shown
LINES, SHORT = 200, 12  # of a log that is not a file of ours, and of what a page without a kernel shows


class Log(HearingWidget):
    """`follow` a run; `value` are its last lines."""

    value = traitlets.Unicode(help="The last lines, for a page without a kernel.").tag(sync=True)

    _esm = """
    function render({ model, el }) {
      el.innerHTML = '<div class="sdxl-nb-following"><pre class="sdxl-nb-log" tabindex="0" role="region" ' +
        'aria-label="log" data-lm-suppress-shortcuts="true"></pre><label><input type="checkbox" checked> ' +
        'follow</label></div>';
      const box = el.querySelector("pre"), follow = el.querySelector("input");
      let version = -1, ours = false;  // whether it is we that scroll
      const down = () => { if (follow.checked) box.scrollTop = box.scrollHeight; };
      const settle = () => {
        ours = true;
        requestAnimationFrame(() => { down(); requestAnimationFrame(() => { ours = false; }); });
      };
      const show = () => {
        if (version < 0) box.textContent = model.get("value");
        el.firstChild.style.display = model.get("value") ? "" : "none";
        settle();
      };
      const heard = (message) => {
        if (message.since === null) box.textContent = message.text;
        else if (message.since === version) box.append(message.text);
        else if (message.version !== version) return void model.send({ whole: true });
        version = message.version;
        settle();
      };
      box.onscroll = () => {
        if (!ours) follow.checked = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
      };
      follow.onchange = down;
      model.on("change:value", show);
      model.on("msg:custom", heard);
      show();
      model.send({ whole: true });
      return () => { model.off("change:value", show); model.off("msg:custom", heard); };
    }
    export default { render };
    """
    _css = """
    .sdxl-nb-following { position: relative; margin: 8px 2px 2px; }
    .sdxl-nb-following pre.sdxl-nb-log { resize: vertical; }
    .sdxl-nb-following label { position: absolute; top: 1px; right: 18px; padding: 0 6px; display: flex; gap: 4px;
      align-items: center; line-height: 1.7; font-size: 12px; color: var(--jp-ui-font-color1, inherit);
      background: var(--jp-layout-color2, #eee); border-radius: 3px; }
    .sdxl-nb-following input { margin: 0; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()  # a page asks while a thread looks
        self._text, self._version = "", 0
        self._read: tuple[object, int] = (None, 0)  # which file, and how much of it
        self.on_msg(lambda widget, message, buffers: self._asked(message))
        hear_at_once(self)

    def follow(self, run: Run) -> int:
        """Show what the run has said since; a number that changes with it."""
        with self._lock:
            try:
                text, fresh = self._news(run)
            except (SdxlNbError, OSError) as error:
                self._read, text, fresh = (None, 0), str(error), True
            if (text == self._text) if fresh else not text:
                return self._version
            since, self._version = None if fresh else self._version, self._version + 1
            self._text = text if fresh else self._text + text
            self.value = "\n".join(self._text.rstrip("\n").split("\n")[-SHORT:])
            self.send({"since": since, "version": self._version, "text": text})
            return self._version

    def _news(self, run: Run) -> tuple[str, bool]:
        """What is new, and whether it takes the place of all before."""
        path = run.log_file
        if path is None:
            self._read = None, 0
            return run.log(LINES), True
        with open(path, "rb") as file:
            known = os.fstat(file.fileno())
            which, offset = (known.st_dev, known.st_ino, run.info.get("id")), self._read[1]
            fresh = which != self._read[0] or known.st_size < offset
            begin = max(0, known.st_size - MOST) if fresh else offset
            file.seek(begin)
            whole = file.read(known.st_size - begin).rpartition(b"\n")  # the last line may be half written
        self._read = which, begin + len(whole[0]) + len(whole[1])
        text = (whole[0] + whole[1]).decode(errors="replace")
        if fresh and begin:
            return f"… the first {begin:,} bytes are in {path}\n{text.partition(chr(10))[2]}", fresh
        return text, fresh

    def _asked(self, message: Any) -> None:
        """A page is new, or has missed something."""
        with self._lock:
            if isinstance(message, dict) and message.get("whole"):
                self.send({"since": None, "version": self._version, "text": self._text})
