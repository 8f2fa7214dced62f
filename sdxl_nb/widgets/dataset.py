"""DatasetBrowser: the pictures as training will see them, page by page; captions corrected, pictures added.

In: a TrainConfig, or a data set that `open_dataset` gave with its config. Out: a widget that decodes only the pictures
of the page it shows. `browser.figure()` is the page as a matplotlib Figure.
"""

from typing import Any

import traitlets
from ipywidgets import HTML, BoundedIntText, Button, Dropdown, HBox, Label, Layout, Text, VBox

from ..data import CaptionedPictures, open_dataset
from ..errors import DataError
from .cards import card, count_words, middle_crop
from .mending import Mending
from .shapes import Shapes
from .theme import style_sheet
from .twin import Twin
from .watching import Notice, Worker

PAGE = 12
SAID_EVERY = 500  # pictures between two words on how far measuring is
MEASURED = 5_000  # pictures at most that are all measured to know each one's bucket
ALL, LEFT_OUT = "all pictures", "left out"


class DatasetBrowser(Mending, Twin, VBox):
    """Thumbnails with captions, crops and token counts; see the module. `page`, `show` and `search` are its state."""

    page = traitlets.Int(0, min=0, help="Number of the page shown, from 0.")
    show = traitlets.Unicode(ALL, help="What is shown: all pictures, left out, or a kind of the audit's findings.")
    search = traitlets.Unicode("", help="Only captions and names that hold this text.")

    def __init__(self, dataset: Any, config: Any = None, report: Any = None, per_page: int = PAGE):
        self.config = config if isinstance(dataset, CaptionedPictures) else dataset
        self.dataset = dataset if isinstance(dataset, CaptionedPictures) else open_dataset(self.config)
        self.report, self.per_page, self._tokenizers = report, per_page, None
        self._notice, self._work, self._shapes = Notice(), Worker(), None
        super().__init__()
        self._controls()
        self.observe(self._notice.guard(lambda change: self.filter()), ["show", "search"])
        self.observe(self._notice.guard(lambda change: self.turn()), "page")
        self.filter()
        self.measure()

    def _controls(self) -> None:
        self._cards = HBox(layout=Layout(flex_flow="row wrap", grid_gap="8px"))
        self._kinds = Dropdown(options=[ALL], description="Show", layout=Layout(width="300px"))
        search = Text(description="Search", placeholder="in captions and names", continuous_update=False)
        self._number = BoundedIntText(min=1, description="Page", layout=Layout(width="150px"))
        self._of = Label()
        back, forth = (Button(description=f"{way} page", layout=Layout(width="110px")) for way in ("Previous", "Next"))
        back.on_click(lambda _: self.set_trait("page", max(0, self.page - 1)))
        forth.on_click(lambda _: self.set_trait("page", min(self.pages - 1, self.page + 1)))
        self._number.observe(lambda change: self.set_trait("page", change["new"] - 1), "value")
        traitlets.link((self, "show"), (self._kinds, "value"))
        traitlets.link((self, "search"), (search, "value"))
        turn = HBox([back, self._number, self._of, forth])
        filters = HBox([self._kinds, search, turn], layout=Layout(flex_flow="row wrap"))
        tools = HBox(self.tools(), layout=Layout(flex_flow="row wrap", grid_gap="4px 8px"))
        self.children = [style_sheet(), filters, tools, self._cards, self._notice]
        self.add_class("sdxl-nb")
        self.list_kinds()

    # What is shown.

    @property
    def pages(self) -> int:
        return max(1, -(-len(self._shown) // self.per_page))

    def list_kinds(self) -> None:
        kinds = [ALL]
        if self.dataset.faults:
            kinds.append(LEFT_OUT)
        kinds += sorted({finding.kind for finding in self.report.findings if finding.files}) if self.report else []
        self._kinds.options = kinds

    def filter(self) -> None:
        """Which pictures there are to page through: indices, or the faults of what was left out."""
        if self.show == LEFT_OUT:
            self._shown = list(self.dataset.faults)
        else:
            self._shown = self._among(None if self.show == ALL else self.report.files(self.show))
        self._number.max, self._of.value = self.pages, f"of {self.pages} ({len(self._shown):,} pictures)"
        if self.page:
            self.page = 0
        else:
            self.turn()

    def _among(self, names: Any) -> Any:
        """Indices of the pictures with these names (None: all) that the search finds."""
        if names is None and not self.search:
            return range(len(self.dataset))
        wanted = self.search.lower()
        both = zip(self.dataset.names, self.dataset.captions, strict=True)
        return [
            index
            for index, (name, caption) in enumerate(both)
            if (names is None or name in names) and (wanted in name.lower() or wanted in caption.lower())
        ]

    def turn(self) -> None:
        """Show the page: only its pictures are decoded."""
        self._number.value = self.page + 1
        first = self.page * self.per_page
        page = self._shown[first : first + self.per_page]
        typed = {old.name: old.editor.value for old in self._cards.children if _is_edited(old)}
        cards = [self._card(item) for item in page]
        for new in cards:
            if new.name in typed:  # the page is built again under somebody's hands: what is not saved stays
                new.editor.value = typed[new.name]
        self._cards.children = cards or [HTML("<i>No picture is like that.</i>")]

    def _card(self, item: Any) -> VBox:
        if not isinstance(item, int):
            return card(item.name, "", None, None, None, self.saver(item.name), item.sentence)
        name, caption = self.dataset.names[item], self.dataset.captions[item]
        words = count_words(caption, self._tokenizers) if self._tokenizers else None
        try:
            picture = self.dataset[item].picture
        except DataError as error:
            return card(name, caption, None, None, words, self.saver(name), str(error))
        size = (picture.height, picture.width)
        crop = middle_crop(self.config, size, self._shape(item, size)) if self.config else None
        return card(name, caption, picture, crop, words, self.saver(name))

    def _shape(self, index: int, size: tuple[int, int]) -> tuple[int, int]:
        return (self._shapes or Shapes(self.config, self.dataset)).of(index, size)

    def measure(self) -> None:
        """Look at what takes longer, in the background: tokens of the captions, and the shape that each picture gets.

        Of a large set each picture shows the shape that it alone would get. The page is shown again with both.
        """
        if self.config is not None:
            self._shapes = Shapes(self.config, self.dataset)
            self._work.start(self._notice.guard(self._measure))

    def _measure(self) -> None:
        if self._tokenizers is None:
            from ..models import Source, load

            source = Source.of(self.config)
            self._tokenizers = [load(source, name) for name in ("tokenizer", "tokenizer_2")]
            self.turn()
        if self.config.uses_buckets() and len(self.dataset) <= MEASURED:
            self._shapes.measure(self._measured)
            if len(self.dataset) >= SAID_EVERY:
                self._notice.say("")
            self.turn()

    def _measured(self, done: int, total: int) -> None:
        if done % SAID_EVERY == 0:
            self._notice.say(f"Measuring the pictures: {done:,} of {total:,} ...")

    def figure(self) -> Any:
        """The page as a matplotlib Figure, for papermill, nbconvert and GitHub."""
        first = self.page * self.per_page
        indices = [item for item in self._shown[first : first + self.per_page] if isinstance(item, int)]
        return self.dataset.select(indices).figure(self.per_page)


def _is_edited(card: Any) -> bool:
    return hasattr(card, "editor") and card.editor.value != card.caption
