"""Runs: all runs of a folder and its sub-folders; two of them compared, one of them watched. Nothing is ever deleted.

In: a folder. Out: a widget that a thread keeps up to date while it is open, newest runs first, some at a time. Running,
stopped and failed runs, folders of other programs and folders that cannot be read are all listed, each with its words.
"""

import os
import threading
from typing import Any

import traitlets
from ipywidgets import HTML, Button, HBox, Layout, Text, VBox

from ...runs.glance import Glance
from ...runs.overview import RunList, differences
from ...runs.run import GOING_ON, Run
from ..monitor.monitor import RunMonitor
from ..parts.aria import Aria
from ..parts.children import replace
from ..parts.theme import style_sheet
from ..parts.twin import Twin
from ..parts.watching import Notice, Worker, check_traits, watched
from .comparison import Comparison
from .entry import Entry

PAGE = 20  # runs at once


class Runs(Twin, VBox):
    """The list of a folder's runs; see the module. `page`, `only`, `compared` and `opened` are its state."""

    page = traitlets.Int(0, help="Which twenty are shown.")
    only = traitlets.Unicode(help="Shows the runs whose name, state or differing settings hold this.")
    compared = traitlets.Tuple(help="The names of the one or two runs that are to be compared.")
    opened = traitlets.Unicode(help="The name of the run that is watched; empty for none.")

    def __init__(self, place: str | os.PathLike[str] = "output", **traits: Any):
        check_traits(type(self), traits, also=("place",))
        self.list = RunList(place)
        self._notice, self._work, self._lock = Notice(), Worker(), threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._glances: dict[str, Glance] = {}
        self._told: dict[str, dict[str, Any]] = {}
        super().__init__()
        self.add_class("sdxl-nb")
        self._build()
        for name, value in traits.items():
            setattr(self, name, value)
        self.refresh()
        self.observe(self._handled(self._turn), ["page", "only"])
        self.observe(self._handled(self._lay_beside), "compared")
        self.observe(self._handled(self._open), "opened")
        self._handled(self._lay_beside)()
        self._handled(self._open)()
        self._over = watched(self, self, self.refresh)

    def _handled(self, action: Any) -> Any:
        """A handler that shows its errors and shares what it touches with the thread that looks."""

        def locked(*change: Any) -> None:
            with self._lock:
                action()

        return self._notice.guard(locked)

    def _build(self) -> None:
        self._search = Text(placeholder="name, state or setting", description="Show", continuous_update=False)
        self._earlier = Button(description="Newer", icon="arrow-left", layout=Layout(width="auto"))
        self._later = Button(description="Older", icon="arrow-right", layout=Layout(width="auto"))
        self._look = Button(description="Look again", icon="refresh", layout=Layout(width="auto"))
        self._look.tooltip = "Read the folders anew"
        self._said, self._rows = HTML(), VBox(layout=Layout(grid_gap="2px"))
        self._beside, self._watched = VBox(), VBox()
        traitlets.link((self, "only"), (self._search, "value"))
        self._earlier.on_click(self._handled(lambda: self.set_trait("page", self.page - 1)))
        self._later.on_click(self._handled(lambda: self.set_trait("page", self.page + 1)))
        self._look.on_click(self._notice.guard(lambda button: self.refresh()))
        tools = HBox([self._search, self._earlier, self._later, self._look, self._said])
        tools.layout = Layout(flex_flow="row wrap", align_items="center")
        self.children = [style_sheet(), Aria(), tools, self._notice, self._rows]

    @property
    def status(self) -> str:
        """Whether one of the runs goes on: then the thread looks more often."""
        going_on = [seen for seen in list(self._glances.values()) if seen.status in GOING_ON]
        return "running" if going_on else "completed"

    def refresh(self) -> None:
        """Look at the folders again; only what has changed is read and drawn anew."""
        with self._lock:
            if self.comm is None:
                return  # it was closed
            found = self.list.look()
            self._glances = {seen.name: seen for seen in found}
            self._told = dict(zip(self._glances, differences(found), strict=True))
            self._turn()
            self._lay_beside()

    def _turn(self) -> None:
        """Show the page, and fill in pictures and sizes aside."""
        wanted = [seen for seen in self._glances.values() if self._matches(seen)]
        pages = max(1, -(-len(wanted) // PAGE))
        at = min(max(self.page, 0), pages - 1)
        shown = wanted[at * PAGE : (at + 1) * PAGE]
        entries = {seen.name: self._entries.get(seen.name) or self._entry(seen.name) for seen in shown}
        for seen in shown:
            entries[seen.name].show(seen, self._told[seen.name])
            entries[seen.name].compare.value = seen.name in self.compared
        self._entries = entries
        self._place()
        self._earlier.disabled, self._later.disabled = at == 0, at == pages - 1
        for button in (self._earlier, self._later):
            button.layout.display = "none" if pages == 1 else None
        self._said.value = self._counted(len(wanted), at, len(shown))
        self._work.start(self._notice.guard(self._fill))

    def _place(self) -> None:
        """The rows, what was unfolded below the row that was pressed for it; at the end where that is not shown.

        An empty box is no reason to move rows: the page makes those below it anew, and who is in one loses the place.
        """
        rows: list[Any] = []
        boxes = {self._beside: next(reversed(self.compared), ""), self._watched: self.opened}
        for name, entry in self._entries.items():
            rows += [entry, *(box for box, below in boxes.items() if below == name and box.children)]
        rows += [box for box in boxes if box not in rows]
        if rows != list(self._rows.children):
            replace(self._rows, rows)

    def _counted(self, wanted: int, page: int, shown: int) -> str:
        if not self._glances:
            return "<i>There is no run here yet: each gets a line as soon as it has begun.</i>"
        of = f" of {len(self._glances):,}" if wanted < len(self._glances) else ""
        which = f", {page * PAGE + 1} to {page * PAGE + shown}" if wanted > shown else ""
        return f"{wanted:,}{of} run{'s' * (len(self._glances) != 1)}{which}"

    def _matches(self, seen: Glance) -> bool:
        told = " ".join(f"{name} {value}" for name, value in self._told[seen.name].items())
        return self.only.strip().lower() in f"{seen.name} {seen.status} {told}".lower()

    def _entry(self, name: str) -> Entry:
        return Entry(
            name,
            lambda on: self._handled(lambda: self._tick(name, on))(),
            lambda: self._handled(lambda: self.set_trait("opened", name))(),
        )

    def _fill(self) -> None:
        """Pictures and sizes of the rows shown, one row after the other; between two, others may do something."""
        for name in list(self._entries):
            with self._lock:
                if self.comm is None:
                    return
                if entry := self._entries.get(name):
                    entry.fill()

    def _tick(self, name: str, on: bool) -> None:
        """Compare it, or not: of three the one that was chosen first leaves."""
        if on != (name in self.compared):
            self.compared = (*self.compared, name)[-2:] if on else tuple(n for n in self.compared if n != name)

    def _lay_beside(self) -> None:
        for name, entry in self._entries.items():
            entry.compare.value = name in self.compared
        glances = [self._glances[name] for name in self.compared if name in self._glances]
        if len(glances) < 2:
            if len(glances) == 1:
                self._notice.say(f"{glances[0].name} is chosen: choose another to compare it with.")
            replace(self._beside, [])
            self._place()
            return
        shown = self._beside.children[0] if self._beside.children else None
        if not isinstance(shown, Comparison) or shown.names != list(self.compared):
            self._notice.say("")
            replace(self._beside, [Comparison(*glances)])
            self._place()
        elif glances != list(shown.glances):
            shown.show(*glances)

    def _open(self) -> None:
        """Watch the run that is opened; the one before is watched no more, and goes on."""
        if not self.opened:
            replace(self._watched, [])
            self._place()
            return
        folder = self._glances[self.opened].folder if self.opened in self._glances else self.list.place / self.opened
        close = Button(description="Close", icon="times", layout=Layout(width="auto"))
        close.tooltip = "Put the monitor away; the run goes on"
        close.on_click(self._handled(lambda: self.set_trait("opened", "")))
        replace(self._watched, [close, RunMonitor(Run.open(folder))])
        self._place()

    def close(self) -> None:
        """Stop looking; runs go on."""
        if self.comm is not None:
            self._over.set()
            replace(self._rows, [])
            super().close()

    def table(self) -> RunList:
        """The runs as a plain table."""
        return self.list

    def twin(self) -> RunList:
        """The plain table."""
        return self.table()
