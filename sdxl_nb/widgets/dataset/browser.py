"""DatasetBrowser: the pictures as training will see them, page by page; captions corrected, pictures added.

In: a TrainConfig, or a data set that `open_dataset` gave with its config. Out: a widget that decodes only the pictures
of the page it shows. `browser.figure()` is the page as a matplotlib Figure.
"""

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import traitlets
from ipywidgets import HTML, BoundedIntText, Button, Dropdown, HBox, Label, Layout, Text, VBox
from PIL import Image

from ...audit.findings import AuditReport
from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...data.dataset import CaptionedPictures
from ...data.decoding import Decoded, Fault
from ...data.masks import mask_of
from ...system.errors import DataError
from ..parts.aria import Aria
from ..parts.children import replace
from ..parts.theme import style_sheet
from ..parts.twin import Twin
from ..parts.viewer import LARGE, Viewer
from ..parts.watching import Notice, Worker, after_the_cell
from . import selection
from .captioner import captioner_of
from .cards import SHOWN, Card, Shown, middle_crop, with_crop, with_mask
from .mending import Mending
from .selection import ALL

if TYPE_CHECKING:
    from ...system.figures import Sheet

PAGE = 12
MOVES = "← → another picture, Esc puts it away"


class DatasetBrowser(Mending, Twin, VBox):
    """Thumbnails with captions, crops and token counts; see the module. `page`, `show` and `search` are its state."""

    page = traitlets.Int(0, min=0, help="Number of the page shown, from 0.")
    show = traitlets.Unicode(ALL, help="What is shown: all pictures, left out, or a kind of the audit's findings.")
    search = traitlets.Unicode("", help="Only captions and names that hold this text.")

    def __init__(
        self,
        dataset: TrainConfig | CaptionedPictures,
        config: TrainConfig | None = None,
        report: AuditReport | None = None,
        per_page: int = PAGE,
        captioner: Callable[[Image.Image], str] | str | os.PathLike[str] | None = None,
        measured: bool = True,
    ):
        _check(dataset, config)
        self.captioner, self._cancelled = captioner_of(captioner), threading.Event()
        if isinstance(dataset, CaptionedPictures):
            self.config, self.dataset = config, dataset
        else:
            self.config = dataset
            self.dataset = self.opened()
        self.report, self.per_page, self._tokenizers, self._shapes = report, per_page, None, None
        self._notice, self._progress = Notice(), Notice()
        self._work, self._auditing = Worker(), Worker()
        self._lock = threading.RLock()  # a worker and a person may both change what is shown
        super().__init__()
        self._controls()
        self.observe(self._notice.guard(lambda change: self.filter()), ["show", "search"])
        self.observe(self._notice.guard(lambda change: self.turn()), "page")
        self.filter()
        if measured:  # else by who shows it with other widgets, after these
            after_the_cell(self.measure)

    def _controls(self) -> None:
        self._cards = HBox(layout=Layout(flex_flow="row wrap", grid_gap="8px"))
        near: Any = {"description_width": "initial"}
        self._kinds = Dropdown(options=[(ALL, ALL)], description="Show", style=near, layout=Layout(width="280px"))
        self._count, self._large = HTML(), Viewer(self._notice.guard(self._move), self._put_away)
        self._looked_at: str | None = None  # the name of the picture shown large
        search = Text(description="Search", placeholder="in captions and names", style=near)
        search.continuous_update = False
        self._number = BoundedIntText(min=1, description="Page", style=near, layout=Layout(width="120px"))
        self._of, self._why = Label(layout=Layout(flex="0 0 auto")), HTML()
        whole = {"width": "130px", "flex": "0 0 auto"}  # never squeezed where the page is narrow
        back, forth = (Button(description=f"{way} page", layout=Layout(**whole)) for way in ("Previous", "Next"))
        back.on_click(lambda _: self.set_trait("page", max(0, self.page - 1)))
        forth.on_click(lambda _: self.set_trait("page", self.page + 1))
        self._number.observe(lambda change: self.set_trait("page", change["new"] - 1), "value")
        self.observe(lambda change: self._number.set_trait("value", change["new"] + 1), "page")
        self._chosen = traitlets.link((self, "show"), (self._kinds, "value"))
        traitlets.link((self, "search"), (search, "value"))
        self._turn = HBox([back, forth, HBox([self._number, self._of])], layout=Layout(flex_flow="row wrap"))
        places, tools = self.places(), self.tools()
        filters = HBox([self._kinds, search, self._turn], layout=Layout(flex_flow="row wrap", grid_gap="0 12px"))
        tools = HBox(tools, layout=Layout(flex_flow="row wrap", grid_gap="4px 8px"))
        self._tools = VBox([filters, tools])
        said = [self._notice, self._progress, self._why]
        self.children = [style_sheet(), *places, self._count, self._tools, *said, self._large, self._cards, Aria()]
        self.add_class("sdxl-nb")
        self.list_kinds()

    @property
    def pages(self) -> int:
        return max(1, -(-len(self._shown) // self.per_page))

    @traitlets.validate("page")
    def _there(self, proposal: Any) -> int:
        """The page, or the last one."""
        return min(proposal["value"], self.pages - 1)

    def list_kinds(self) -> None:
        """Offer what can be shown now, and keep showing what is shown while it is among that."""
        kinds = selection.kinds(self.dataset, self.report)
        if self.show not in [kind for _, kind in kinds]:
            self.show = ALL
        done, every = selection.captioned(self.dataset)
        self._tools.layout.display = (
            None if every or self.dataset.faults else "none"
        )  # else there is nothing to look for
        self._count.value = f"<b>{done:,} of {every:,} captioned</b>" if every else f"<i>{escape(self.welcome())}</i>"
        if tuple(kinds) != tuple(self._kinds.options):
            self._chosen.unlink()  # new options alone would choose the first of them
            self._kinds.options = kinds
            self._chosen.link()

    def filter(self, page: int = 0) -> None:
        """Find what there is to page through, and show this page of it, or the last."""
        with self._lock:
            self._shown = selection.selected(self.dataset, self.report, self.show, self.search)
            count = len(self._shown)
            self._of.value = f"of {self.pages:,} ({count:,} picture{'s' * (count != 1)})"
            self._number.max = self.pages
            self._turn.layout.display = None if self.pages > 1 else "none"
            self._why.value = f"<i>{escape(selection.why(self.report, self.show))}</i>"
            if self.page == min(page, self.pages - 1):
                self.turn()
            else:
                self.page = page

    def _items(self) -> Sequence[int | Fault]:
        """What is on the page: indices of pictures, and Faults."""
        first = self.page * self.per_page
        return self._shown[first : first + self.per_page]

    def turn(self) -> None:
        """Show the page: only its pictures are decoded, those that are shown already stay as they are."""
        with self._lock:
            were = {old.name: old for old in self._cards.children if isinstance(old, Card)}
            cards = [self._card(item, were) for item in self._items()]
            empty = escape(selection.nothing(self.report, self.show, self.search))
            if not cards and not selection.everything(self.dataset):
                empty = ""
            shown = cards or [HTML(f"<i>{empty}</i>")]
            if shown != list(self._cards.children):
                replace(self._cards, shown)

    def _card(self, item: int | Fault, were: dict[str, Card]) -> Card:
        """The card of a picture, or of one that was left out. Its caption is as it is written, without trigger word."""
        name, written = selection.words_of(self.dataset, item)
        card = were.get(name) or Card(name, self.saver(), self.go_on, self._notice.guard(self.look_at))
        if not isinstance(item, int):
            lacking = selection.is_uncaptioned(item)
            shown = Shown(complaint="no caption yet" if lacking else item.sentence, harmless=lacking)
            card.show(written, shown, (item.sentence,), lambda: self.dataset.left_out(name, SHOWN))
            return card
        shown, about = self._seen(item)
        card.show(written, shown, about, partial(self._picture, item, SHOWN))
        return card

    def _seen(self, item: int) -> tuple[Shown, tuple[object, ...]]:
        """What is shown of a picture, and what that depends on; of one that cannot be read its words alone."""
        stamp, name = self.dataset.stamp(item), self.dataset.names[item]
        complaint = selection.remark(self.report, self.show, name)
        harmless = selection.is_harmless(self.report, self.show)
        try:
            size = self.dataset.size(item)
        except DataError:
            size = (0, 0)
        if not all(size):  # it cannot be read, which drawing it says
            return Shown(words=self._words(item)), (stamp,)
        config = self.dataset.config(item, self.config) if self.config else None
        crop = middle_crop(config, size, self._shape(config, item, size)) if config else None
        masked = config is not None and config.masked_loss
        return Shown(size, crop, self._words(item), complaint, harmless), (stamp, crop, masked)

    def _picture(self, item: int, side: int | None = None) -> Decoded:
        """The decoded picture, blue where its mask has it left alone. Raises DataError."""
        picture, size = self.dataset.glance(item, side)
        masked = self.config is not None and self.config.masked_loss
        return Decoded(with_mask(picture, mask_of(self.dataset, item)) if masked else picture, size)

    def look_at(self, name: str) -> None:
        """Show one picture large; its arrow keys go on to the others that are shown."""
        item = next(iter(selection.again(self.dataset, [name])), None)
        found = None
        if item is not None:
            found = self._picture(item) if isinstance(item, int) else self.dataset.left_out(name)
        if item is None or found is None:
            raise DataError(f"{name} cannot be read.")
        picture = found.picture
        crop = self._seen(item)[0].crop if isinstance(item, int) else None
        whole = crop is None or crop.box == (0, 0, *reversed(crop.original_size))
        if crop is not None:
            picture = with_crop(picture, crop, min(max(picture.size), LARGE))
        self._looked_at = name
        caption = selection.words_of(self.dataset, item)[1] or "no caption yet"
        self._large.show(
            picture, f"{name}: {caption}", MOVES if whole else f"{MOVES}; training does not see what is dimmed"
        )

    def _move(self, right: int, down: int) -> None:
        """Show the picture before or after the large one."""
        names = [selection.words_of(self.dataset, item)[0] for item in self._shown]
        if self._looked_at in names:
            place = names.index(self._looked_at) + right + down
            self.look_at(names[min(max(place, 0), len(names) - 1)])

    def _put_away(self) -> None:
        self._looked_at = None
        self._large.hide()

    def go_on(self, card: Card) -> None:
        """Put the cursor into the next picture without a caption, on this page or a later one."""
        names = [selection.words_of(self.dataset, item) for item in self._shown]
        at = next((place for place, (name, _) in enumerate(names) if name == card.name), -1)
        order = [*range(at + 1, len(names)), *range(at)]
        goal = next((place for place in order if not names[place][1]), None)
        if goal is None:
            self._notice.say("Every picture that is shown has a caption.")
            return
        self.page = goal // self.per_page
        for other in self._cards.children:
            if isinstance(other, Card) and other.name == names[goal][0]:
                other.focus()

    def thumbnails(self) -> list[bytes]:
        """The pictures of the page as they are shown, small."""
        cards = [card for card in self._cards.children if isinstance(card, Card)]
        return [card.picture for card in cards if card.picture]

    def figure(self) -> "Sheet":
        """The page as a matplotlib Figure, for papermill, nbconvert and GitHub."""
        indices = [item for item in self._items() if isinstance(item, int)]
        return self.dataset.select(indices).figure(self.per_page)


def _check(dataset: object, config: object) -> None:
    """Raise TypeError for what is no data set and names none."""
    if not isinstance(dataset, TrainConfig | CaptionedPictures):
        advice = "for a folder, write DatasetBrowser(TrainConfig(train_data_dir='folder'))."
        raise TypeError(f"DatasetBrowser shows a TrainConfig or an open data set, not {shown(dataset)}: {advice}")
    if not isinstance(config, TrainConfig | None):
        kind = type(config).__name__
        raise TypeError(f"config must be a TrainConfig, not {kind}: an audit's report is given as report=report.")
