"""Sheets of pictures, measured in the pixels that come out."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from sdxl_nb.system import figures
from sdxl_nb.system.figures import Sheet, picture_sheet, script_fonts, wrapped


def card(colour, size=(64, 64)):
    return Image.new("RGB", size, colour)


def pixels(sheet):
    return np.asarray(Image.open(io.BytesIO(sheet.png())).convert("RGB")).astype(int)


def share(sheet, colour):
    return int((np.abs(pixels(sheet) - colour).max(axis=2) <= 1).sum())


def test_small_pictures_are_enlarged_by_a_whole_factor():
    board = Image.fromarray(np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 255).convert("RGB")
    few, many = picture_sheet([[board]]), picture_sheet([[board] * 5])
    for sheet, factor, count in ((few, 3, 1), (many, 2, 5)):
        assert share(sheet, (0, 0, 0)) == 64 * 64 // 2 * factor**2 * count


def test_every_picture_is_whole_and_every_word_inside():
    words = "a picture of something that takes many words to say"
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    sheet = picture_sheet(
        [[card(colour) for colour in colours]] * 2,
        above=[words] * 3,
        beside=[words] * 2,
        below=[[words] * 3] * 2,
        title="$5 for a title",
    )
    for colour in colours:
        assert share(sheet, colour) == 2 * 192**2
    edges = np.concatenate([pixels(sheet)[i] for i in (0, 1, -1, -2)] + [pixels(sheet)[:, i] for i in (0, 1, -1, -2)])
    assert (edges == 255).all()  # nothing is cut off, and the page's colour does not shine through
    boxes = [text.get_window_extent() for axes in sheet.axes for text in (axes.title, axes.xaxis.label)]
    boxes = [box for box in boxes if box.width]
    assert len(boxes) == 9
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_no_picture_a_sentence_and_a_large_picture():
    sheet = picture_sheet([[None, "rose.png cannot be read: save it again.", card((250, 0, 0), (1024, 512))]])
    assert share(sheet, (250, 0, 0)) == 192 * 96
    assert "rose.png cannot" in sheet.axes[1].texts[0].get_text()
    assert isinstance(picture_sheet([[]]), Sheet)


def test_wrapping_keeps_lines_and_ends():
    assert wrapped("scale 1\nseed 0", 20) == "scale 1\nseed 0"
    assert wrapped("word " * 60, 20).count("\n") == 4 and wrapped("word " * 60, 20).endswith(" ...")


@pytest.fixture
def fonts(monkeypatch):
    """The fonts for other scripts, as if this machine had these."""
    script_fonts.cache_clear()
    yield lambda *names: monkeypatch.setattr(figures, "SCRIPTS", names)
    script_fonts.cache_clear()


def test_words_of_other_scripts_are_written_with_the_fonts_there_are(fonts, caplog):
    capital = "\N{MATHEMATICAL SCRIPT CAPITAL A}"  # STIX, which comes with matplotlib, has it; DejaVu Sans has not
    boxed = pixels(picture_sheet([[card("red")]], beside=[capital * 3]))
    script_fonts.cache_clear()
    fonts("Nowhere Sans", "STIXGeneral")
    assert script_fonts() == ["STIXGeneral"]
    sheet = picture_sheet([[card("red")]], beside=[capital * 3])
    assert np.abs(pixels(sheet) - boxed).max() > 100
    assert sheet.axes[0].yaxis.label.get_fontfamily()[-1] == "STIXGeneral"
    assert "findfont" not in caplog.text


def test_words_that_no_font_has_are_drawn_without_a_warning(fonts):
    fonts()
    house = "\N{CJK UNIFIED IDEOGRAPH-5BB6}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(picture_sheet([[card("red")]], above=[house], beside=[house * 40])).max() == 255


def test_wide_characters_have_the_room_of_two():
    lines = wrapped("\N{CJK UNIFIED IDEOGRAPH-5BB6}" * 60, 20).split("\n")
    assert len(lines) == 5 and all(len(line) <= 10 for line in lines[:-1])
    assert figures.width_of(lines[:1]) == figures.width_of(["x" * 20])


def test_on_a_page_words_stand_on_its_own_ground_light_or_dark_and_the_file_to_keep_stays_as_it_was():
    sheet = picture_sheet([[card("black"), "no picture"]], above=["one", "two"], title="Both")
    kept = sheet.png()
    page = np.asarray(Image.open(io.BytesIO(sheet._repr_png_())).convert("RGBA")).astype(int)
    words, picture = page[:40], page[60:180, 20:120]
    inked = words[words[..., 3] > 0]
    assert len(inked) > 50 and (inked[:, :3] == 0x77).all()  # no black, and nothing of a white ground
    assert (picture == [0, 0, 0, 255]).all()  # what is black in a picture stays
    assert (page[..., 3] == 0).mean() > 0.3 and sheet.png() == kept
