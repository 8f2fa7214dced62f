"""The list of runs, in process: pages, search, two compared, one opened; what a thread finds and a hand does meets."""

import pytest
from test_overview import begun, trained

from sdxl_nb.widgets.overview import overview
from sdxl_nb.widgets.overview.comparison import Comparison
from sdxl_nb.widgets.overview.overview import Runs


@pytest.fixture
def runs(tmp_path):
    """The list of a folder with three runs, a foreign one and a broken one."""
    for name, rank in (("one", 4), ("two", 4), ("<b>three</b>", 8)):
        trained(tmp_path / "output" / name.replace("/", "-"), rank=rank, validation_prompt=["a cat"], max_train_steps=9)
    (tmp_path / "output" / "broken").mkdir()
    (tmp_path / "output" / "broken" / "run.json").write_text("{")
    made = Runs(tmp_path / "output")
    made._work.wait(600)
    yield made
    made.close()


def lines(runs):
    return [entry._words.value for entry in runs._entries.values()]


def test_each_run_has_a_line_with_its_picture_and_what_sets_it_apart(runs):
    three, two, one, broken = lines(runs)
    for said in ("&lt;b&gt;three&lt;-b&gt;", "✓ Completed", "step 3 of 9", "0.3750 (lowest 0.2500 at step 2)", " kB"):
        assert said in three
    assert "<span>rank <b>8</b></span>" in three and "rank" not in two and "rank" not in one
    assert "✗ Unreadable" in broken and "run.json cannot be read: restore it" in broken
    entries = list(runs._entries.values())
    assert "data:image/webp" in entries[0]._picture.value and "no picture" in entries[3]._picture.value
    assert [entry.compare.disabled for entry in entries] == [False, False, False, True]
    assert runs._said.value == "4 runs" and "<td" in runs._repr_mimebundle_()["text/html"]


def test_two_are_compared_and_a_third_takes_the_place_of_the_first(runs):
    one, two, three = (runs._entries[name] for name in ("one", "two", "<b>three<-b>"))
    rows = runs._rows.children
    two.compare.value = True
    runs.refresh()
    assert runs._rows.children == rows  # nothing moves under the hands of who goes on to the next box
    two.compare.value = False
    one.compare.value = True
    assert "choose another to compare it with" in runs._notice.value and runs._beside.children == ()
    two.compare.value = True
    (shown,) = runs._beside.children
    assert isinstance(shown, Comparison) and runs._notice.value == ""
    assert [line["name"] for line in shown._plot.lines] == ["one", "one, held out", "two", "two, held out"]
    assert "Their settings are the same." in shown._settings.value
    assert shown._pair.labels == ["one, step 3", "two, step 3"] and len(shown._pair.before) > 20
    assert shown._which.options == (("a cat, seed 0", 0),)
    shown._step.value = 2.0
    assert shown._pair.labels == ["one, step 0", "two, step 0"]
    place = runs._rows.children.index(two)
    assert runs._rows.children[place + 1] is runs._beside  # below what was pressed
    three.compare.value = True
    assert runs.compared == ("two", "<b>three<-b>") and not one.compare.value and shown.comm is None
    assert "<td>rank</td><td>4</td><td>8</td>" in runs._beside.children[0]._settings.value
    two.compare.value = False
    assert runs._beside.children == ()


def test_a_run_is_opened_below_its_line_and_put_away(runs):
    runs._entries["two"].watch.click()
    close, monitor = runs._watched.children
    assert monitor.status == "completed" and runs._rows.children[2] is runs._watched
    close.click()
    assert runs.opened == "" and runs._watched.children == () and monitor.comm is None
    assert (runs.list.place / "two" / "run.json").is_file()


def test_search_and_pages(runs, monkeypatch):
    runs._search.value = "rank 8"
    assert list(runs._entries) == ["<b>three<-b>"] and runs._said.value == "1 of 4 runs"
    runs.only = ""
    monkeypatch.setattr(overview, "PAGE", 3)
    runs.refresh()
    assert len(runs._entries) == 3 and runs._said.value == "4 runs, 1 to 3" and runs._earlier.disabled
    runs._later.click()
    assert list(runs._entries) == ["broken"] and runs._later.disabled and runs._later.layout.display is None
    runs._earlier.click()
    assert len(runs._entries) == 3


def test_new_runs_come_in_and_what_stays_is_the_same_widget(runs):
    before = dict(runs._entries)
    folder, log = begun(runs.list.place / "four")
    runs.refresh()
    assert next(iter(runs._entries)) == "four" and "▶ Running" in lines(runs)[0] and runs.status == "running"
    assert {name: entry for name, entry in runs._entries.items() if name != "four"} == before
    log.end(status="completed", seconds=1.0)
    folder.release()
    runs.refresh()
    assert "✓ Completed" in lines(runs)[0] and runs.status == "completed"


def test_an_empty_folder_is_welcome(tmp_path):
    runs = Runs(tmp_path)
    assert "There is no run here yet" in runs._said.value
    trained(tmp_path / "run")
    runs._look.click()
    assert list(runs._entries) == ["run"]
    runs.close()
    with pytest.raises(TypeError, match="Runs has no setting pagee: did you mean page"):
        Runs(tmp_path, pagee=1)
