"""DatasetBrowser in process: what is shown while others work, captions with a trigger word, uploads, the audit."""

import threading
from pathlib import Path

import pytest
from ipywidgets import HTML, HBox, Widget
from test_editing import png
from test_widgets_pictures import button, inside

from benchmarks import browser as benchmark
from sdxl_nb import TrainConfig, open_dataset
from sdxl_nb.audit import inspection
from sdxl_nb.audit.findings import NOTE, WARNING, AuditReport, Finding
from sdxl_nb.tiny.album import write_album
from sdxl_nb.widgets.dataset.browser import DatasetBrowser
from sdxl_nb.widgets.dataset.bulk import Bulk
from sdxl_nb.widgets.dataset.cards import SAID, Card, Shown, Words
from sdxl_nb.widgets.dataset.measuring import telling
from sdxl_nb.widgets.dataset.selection import ALL, NO_CAPTION
from sdxl_nb.widgets.parts.pictures import PictureButton
from sdxl_nb.widgets.parts.uploads import DropZone

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    return write_album(tmp_path / "album", faults=True)


@pytest.fixture
def album(folder):
    return TrainConfig.preset("tiny", train_data_dir=str(folder), center_crop=False)


def browse(config, **settings):
    browser = DatasetBrowser(config, **settings)
    browser._work.wait(600)
    return browser


def names(browser):
    return [card.name for card in browser._cards.children]


def said(card):
    return card.text


def write(card, caption):
    """Type a caption and leave the field."""
    card.value = caption


def test_pages_filters_and_search(album):
    browser = browse(album, per_page=10)
    assert browser._notice.value == ""
    shapes = {browser._shapes.of(index, (1, 1)) for index in range(16)}
    assert len(shapes) > 1 and all(side % 16 == 0 for shape in shapes for side in shape)
    assert browser.pages == 3 and names(browser)[:3] == ["00.jpg", "01.jpg", "02.jpg"] and len(names(browser)) == 10
    button(browser, "Next page").click()
    assert browser.page == 1 and names(browser)[0] == "10.jpg"
    for beyond in (99, 100):
        browser.page = beyond
        assert browser.page == 2 and browser._number.value == 3 and len(names(browser)) == 6
    browser.search = "ring"
    assert browser.page == 0 and 0 < len(names(browser)) < 5
    browser.search = ""
    browser.show = NO_CAPTION
    assert names(browser) == ["no-caption.jpg"]
    browser.audit()
    kinds = browser._kinds.options
    assert kinds[:2] == (("all pictures (26)", ALL), ("without a caption (1)", NO_CAPTION))
    browser.show = next(kind for _, kind in kinds if "duplicate" in kind)
    assert {"twin.jpg"} <= set(names(browser))
    assert browser._repr_mimebundle_()["image/png"]
    browser.close()


def test_captions_are_saved_and_the_trigger_word_changes_the_configuration(album, folder):
    browser = browse(album)
    browser.save("00.jpg", "new & <words>")
    assert (folder / "00.txt").read_text() == "new & <words>\n" and "00.txt" in browser._notice.value
    assert browser.dataset.captions[0] == "new & <words>"
    assert browser._count.value == "<b>25 of 26 captioned</b>"
    browser.show = NO_CAPTION
    browser.save("no-caption.jpg", "found")
    assert "no-caption.jpg" in list(browser.dataset.names) and browser._count.value == "<b>26 of 26 captioned</b>"
    assert names(browser) == ["no-caption.jpg"]  # it stays under the hands of who writes, until somebody filters anew
    browser.set_trigger(" zarko ")
    assert browser.config.trigger_word == "zarko" and browser.dataset.captions[0] == "zarko, new & <words>"
    browser.close()


def test_a_caption_is_kept_when_its_field_is_left_and_its_card_stays(album, folder):
    browser = browse(album, per_page=4)
    cards = list(browser._cards.children)
    for number, words in ((1, "first words"), (1, "second words"), (2, "two\nlines")):
        write(cards[number], words)
        browser._work.wait(600)
    assert (folder / "01.txt").read_text() == "second words\n" and (folder / "02.txt").read_text() == "two lines\n"
    assert list(browser._cards.children) == cards and cards[2].value == cards[2].caption == "two lines"
    assert "Saved in 02.txt." in cards[2].answer and "02.txt" in browser._notice.value
    browser.page = 1
    assert all(card.value == card.caption for card in browser._cards.children)
    assert all(card.comm is None for card in cards)  # what is gone is closed
    browser.close()


def test_a_caption_that_is_left_while_a_worker_shows_another_one_is_kept():
    kept = []
    card = Card("a.png", lambda *given: kept.append(given), print, print)
    person = threading.Thread(target=lambda: write(card, "mine"))

    def leave(change):
        if person.ident is None:
            person.start()
            person.join(600)

    card.observe(leave, "value")
    card.show("stored", Shown(), (), lambda: None)
    assert kept == [("a.png", "mine")]


def test_ctrl_enter_goes_on_to_the_next_without_a_caption_also_on_another_page(tmp_path):
    for name in "abcdef":
        (tmp_path / f"{name}.png").write_bytes(png())
    (tmp_path / "b.txt").write_text("a square")
    browser = browse(TrainConfig.preset("tiny", train_data_dir=str(tmp_path)), per_page=3)
    asked = []

    def enter(card, caption):
        for other in browser._cards.children:
            other.focus = lambda name=other.name: asked.append(name)
        write(card, caption)
        card.next += 1

    enter(browser._cards.children[0], "one")
    assert asked == ["c.png"] and browser.page == 0
    enter(browser._cards.children[2], "three")
    assert browser.page == 1 and names(browser) == ["d.png", "e.png", "f.png"]
    for card in browser._cards.children:
        enter(card, "more")
    assert "Every picture that is shown has a caption." in browser._notice.value
    assert browser._count.value == "<b>6 of 6 captioned</b>" and asked == ["c.png", "e.png", "f.png"]


def test_what_cannot_be_changed_says_why():
    browser = browse(TrainConfig.preset("tiny"))
    assert any("in no local folder" in h.value for h in inside(browser, HTML))
    assert not any(card.editable for card in inside(browser, Card)) and not inside(browser, DropZone)
    browser.close()


def test_a_page_that_a_worker_builds_never_covers_the_one_that_was_turned_to(album, monkeypatch):
    browser = browse(album, per_page=4)
    begun, go_on, build = threading.Event(), threading.Event(), browser._card

    def slow(item, were):
        if not begun.is_set():
            begun.set()
            go_on.wait(600)
        return build(item, were)

    monkeypatch.setattr(browser, "_card", slow)
    worker = threading.Thread(target=browser.turn)
    worker.start()
    begun.wait(600)
    person = threading.Thread(target=lambda: browser.set_trait("page", 1))
    person.start()
    person.join(0.5)
    go_on.set()
    for thread in (worker, person):
        thread.join(600)
    assert names(browser) == ["04.jpg", "05.jpg", "06.jpg", "07.jpg"] and browser._number.value == 2


def test_pages_that_were_left_are_forgotten(album):
    browser = browse(album, per_page=4)
    before = len(Widget.get_manager_state()["state"])
    for page in (1, 2, 3, 0):
        browser.page = page
    browser.search = "no such caption"
    browser.search = ""
    assert len(Widget.get_manager_state()["state"]) == before


def test_the_trigger_word_is_neither_shown_nor_saved_in_a_caption(album, folder):
    browser = browse(album.replace(trigger_word="mirel"))
    first = browser._cards.children[0]
    text = (folder / "00.txt").read_text().strip()
    assert first.caption == first.value == text
    assert browser.dataset.captions[0] == f"mirel, {text}" and "tokens with mirel" in said(first)
    write(first, "a corrected one")
    assert (folder / "00.txt").read_text() == "a corrected one\n"
    browser.search = "mirel"
    assert browser._shown == []
    browser.search = ""
    browser.set_trigger("zarko")
    assert browser.dataset.captions[0] == "zarko, a corrected one"
    browser.search = "no-caption"
    (card,) = browser._cards.children
    assert card.caption == "" and browser.dataset.captions[browser._shown[0]] == "zarko"


def test_an_audit_goes_on_when_a_caption_is_saved_and_says_how_far_it_is(album, monkeypatch):
    browser = browse(album, per_page=4)
    halfway, go_on, told, real = threading.Event(), threading.Event(), [], inspection.audit_dataset

    def slow(config, progress):
        monkeypatch.setattr("sdxl_nb.widgets.dataset.measuring.OFTEN", 0)
        report = real(config, progress=lambda *counts: (progress(*counts), told.append(browser._progress.value)))
        halfway.set()
        go_on.wait(600)
        return report

    monkeypatch.setattr(inspection, "audit_dataset", slow)
    button(browser, "Look for faults, then filter by what was found").click()
    halfway.wait(600)
    browser.page = 2
    browser.save("00.jpg", "saved meanwhile")
    browser._work.wait(600)
    go_on.set()
    browser._auditing.wait(600)
    assert "Looking at every picture: 5 of 25 ..." in told[4] and browser._progress.value == ""
    assert "kinds of findings: choose one under Show." in browser._notice.value
    assert browser.report is not None and browser.page == 2  # nobody is taken away from the page


def test_what_is_shown_stays_and_says_why_each_picture_is_there(album):
    browser = browse(album)
    browser.audit()
    browser.show = "too_small"
    (card,) = browser._cards.children
    remark = next(finding for finding in browser.report.findings if finding.kind == "too_small").remarks["small.png"]
    assert card.name == "small.png" and remark and remark in said(card)
    assert "1 picture too small for 64 px, and enlarged. Use larger originals" in browser._why.value
    browser.audit()
    assert browser.show == "too_small" == browser._kinds.value and names(browser) == ["small.png"]
    browser.save("small.png", "still here")
    assert browser.show == "too_small" and names(browser) == ["small.png"]
    browser.show = "missing_caption"
    assert names(browser) == ["no-caption.jpg"]
    browser.save("no-caption.jpg", "found")
    browser.show = ALL
    assert browser._why.value == "<i></i>"


RED = "--jp-error-color1"


def test_what_was_done_is_said_above_the_cards(album):
    browser = browse(album)
    order = list(browser.children)
    tools = next(box for box in order if inside(box, Bulk))
    for said in (browser._notice, browser._progress):
        assert order.index(tools) < order.index(said) < order.index(browser._cards)


def test_a_caption_that_is_saved_or_refused_is_answered_on_its_card(album, folder):
    browser = browse(album)
    card = browser._cards.children[5]
    write(card, "new words")
    browser._work.wait(600)
    assert browser._cards.children[5] is card
    assert "Saved in 05.txt." in card.answer and RED not in card.answer
    assert [other.name for other in browser._cards.children if other.answer] == ["05.jpg"]
    (folder / "05.jpg").unlink()
    write(card, "newer words")
    assert "There is no picture 05.jpg" in card.answer and RED in card.answer
    assert "There is no picture 05.jpg" in browser._notice.value and 'role="alert"' in browser._notice.value
    assert card.value == "newer words"


def test_an_empty_caption_is_refused_or_said_to_leave_the_trigger_word_alone(album, folder):
    browser = browse(album)
    (card, *_), written = browser._cards.children, (folder / "00.txt").read_text()
    write(card, " ")
    assert "training would learn the picture without any words" in card.answer
    assert (folder / "00.txt").read_text() == written
    browser.set_trigger("zarko")
    write(card, "")
    said = "It is empty: training gives zarko alone."
    assert said in browser._notice.value and said in browser._cards.children[0].answer
    assert (folder / "00.txt").read_text() == "\n" and browser.dataset.captions[0] == "zarko"


def test_long_texts_and_tall_pictures_leave_a_card_its_size():
    long = "word <b> " * 400
    made = Card("a.png", None, print, print)
    made.show(long, Shown(words=Words(1200, 77, long), complaint=f"loses {long}"), (), lambda: None)
    assert said(made).count("word &lt;b&gt; " * 390) == 2 == said(made).count('title="')  # only where one points
    shown = said(made).replace("word &lt;b&gt; " * 390, "")
    assert shown.count("word") < 6 * SAID
    assert len(made.alt) == len("a.png: ") + SAID
    assert "image.style.maxHeight" in PictureButton._esm and "height: 192px" in made._css
    for kind in (PictureButton, Card):
        assert "object-fit: contain" in kind._css and 'image.alt = model.get("alt")' in kind._esm


def test_only_faults_and_warnings_are_in_the_colour_of_errors(album):
    found = [Finding(kind, kind, ["00.jpg"], "m", "a", {"00.jpg": "128x32"}) for kind in (NOTE, WARNING)]
    browser = browse(album, report=AuditReport("x", 1, found))
    for kind in (NOTE, WARNING):
        browser.show = kind
        (only,) = browser._cards.children
        assert "128x32" in said(only) and (RED in said(only)) == (kind == WARNING)
    browser.show = NO_CAPTION
    assert RED not in said(browser._cards.children[0]) and "no caption yet" in said(browser._cards.children[0])


@pytest.mark.parametrize("given", ["folder", Path("folder"), None, {"train_data_dir": "x"}, ["a.png"]])
def test_what_is_no_data_set_is_said(given):
    with pytest.raises(TypeError, match=r"DatasetBrowser shows a TrainConfig or an open data set, not .*folder"):
        DatasetBrowser(given)


def test_an_audit_in_the_place_of_the_configuration_is_said(album):
    with pytest.raises(TypeError, match=r"config must be a TrainConfig, not AuditReport: .*report=report"):
        DatasetBrowser(open_dataset(album), AuditReport("x", 1, []))
    assert browse(open_dataset(album), per_page=4).pages == 7


def test_the_pager_is_never_squeezed(album):
    browser = browse(album)
    back = button(browser, "Previous page")
    turn = next(box for box in inside(browser, HBox) if back in box.children)
    assert turn.layout.flex_flow == "row wrap"
    assert {w.layout.flex for w in (back, button(browser, "Next page"), browser._of)} == {"0 0 auto"}


def test_progress_is_told_now_and_then_only(monkeypatch):
    heard = []
    tell = telling(heard.append, "Counting")
    for done in range(1000):
        tell(done, 1000)
    assert heard == []
    monkeypatch.setattr("sdxl_nb.widgets.dataset.measuring.OFTEN", 0)
    tell(1234, 5000)
    assert heard == ["Counting: 1,234 of 5,000 ..."]


@pytest.mark.parametrize("many", [pytest.param(many, marks=pytest.mark.soak) for many in (200, 100_000)])
def test_of_very_many_pictures_only_those_of_a_page_are_in_memory(many, tmp_path):
    benchmark.many_links(tmp_path / "pictures", many)
    found = benchmark.measure(tmp_path / "pictures", "mirel")
    assert found["grown"] < 100 and found["grown_in_all"] < 300, found


def test_a_folder_without_captions_is_shown_to_be_captioned(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "torn.png").write_bytes(png()[:40])
    browser = browse(TrainConfig.preset("tiny", train_data_dir=str(tmp_path)))
    assert names(browser) == ["a.png", "b.png", "torn.png"] and browser._count.value == "<b>0 of 3 captioned</b>"
    assert [bool(card.picture) for card in browser._cards.children] == [True, True, False]
    assert "no caption yet" in said(browser._cards.children[0])
    assert browser._repr_mimebundle_()["image/png"]
    browser.search = "b"
    assert names(browser) == ["b.png"]
    write(browser._cards.children[0], "a blue square")
    browser.search = ""
    assert names(browser) == ["a.png", "b.png", "torn.png"] and browser.dataset.captions == ["a blue square"]
    browser.set_trigger("mirel")
    assert browser.dataset.captions == ["mirel", "mirel, a blue square", "mirel"]
    browser.close()
