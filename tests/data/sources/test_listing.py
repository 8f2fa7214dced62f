"""Columns of text that act like lists, and listings put after each other."""

import numpy as np
import pyarrow as pa
import pytest

from sdxl_nb.data.sources import listing
from sdxl_nb.data.sources.listing import Files, Listing, Texts, file_stamp, joined, text_column

WORDS = ["a", "b", None, "ü龍", ""]


def test_texts_are_a_sequence():
    texts = Texts(text_column(WORDS))
    assert (len(texts), list(texts), texts[3], texts[-1], texts[1:4]) == (5, WORDS, "ü龍", "", ["b", None, "ü龍"])
    assert texts == WORDS and texts != WORDS[:4] and texts != "ab" and texts != 5
    assert texts.index("b") == 1 and "b" in texts and "x" not in texts
    assert repr(texts) == repr(WORDS)
    assert repr(Texts(text_column("x" * 12))).endswith("'x', ... 12 in all]")
    for outside in (5, -6):
        with pytest.raises(IndexError):
            texts[outside]


def test_texts_of_some_rows_in_another_order():
    texts = Texts(text_column(WORDS), np.array([3, 0, 3]))
    assert texts == ["ü龍", "a", "ü龍"] and texts[1] == "a" and texts[-2:] == ["a", "ü龍"]
    assert texts.where({"a", "b"}).tolist() == [False, True, False]
    assert Texts(text_column(WORDS)).where(["b"]).tolist() == [False, True, False, False, False]


def test_many_texts_are_made_in_portions(monkeypatch):
    monkeypatch.setattr(listing, "CHUNK", 7)
    many = [str(number) for number in range(50)]
    column = text_column(many)
    assert isinstance(column, pa.LargeStringArray) and Texts(column) == many
    assert Texts(column, np.arange(49, -1, -1)) == many[::-1]


def test_columns_are_arrows_own_and_refuse_lone_surrogates():
    for words in ([], [None], WORDS, [None] * 9 + ["x"]):
        column = text_column(words)
        column.validate(full=True)
        assert column.equals(pa.array(words, pa.large_string())) and column.null_count == words.count(None)
        assert listing.flags(column.is_null()).tolist() == [word is None for word in words]
    assert listing.take(text_column(WORDS), np.array([4, 2, 2], np.int32)).to_pylist() == ["", None, None]
    assert listing.take(text_column(WORDS), np.arange(5)[::-2]).to_pylist() == ["", None, "a"]
    with pytest.raises(UnicodeEncodeError):
        text_column(["\ud800"])


def some(count, **columns):
    names = text_column(f"{count}-{row}" for row in range(count))
    return Listing(names, names, lambda row: f"{count}:{row}".encode(), lambda row: f"{count}/{row}", **columns)


def test_joined():
    both = joined([some(2, notes=["x"]), some(0), some(3, repeats=np.array([4, 5, 6]))])
    assert Texts(both.names) == ["2-0", "2-1", "3-0", "3-1", "3-2"]
    assert [both.read(row) for row in range(5)] == [b"2:0", b"2:1", b"3:0", b"3:1", b"3:2"]
    assert both.stamp(4) == "3/2" and both.notes == ["x"]
    assert both.repeats.tolist() == [1, 1, 4, 5, 6] and both.weights is None


def test_a_stamp_changes_with_the_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    files = Files(str(tmp_path), text_column(["a.png", "gone.png"]))
    first = files.stamp(0)
    assert first == file_stamp(path) and str(path) in first and files.read(0) == b"one"
    path.write_bytes(b"three")
    assert files.stamp(0) != first and files.stamp(1) is None
