"""The names of a folder's only metadata file, found by hashes."""

import numpy as np
import pytest

from sdxl_nb.data.sources.folders import seen as module
from sdxl_nb.data.sources.folders.seen import Seen
from sdxl_nb.data.sources.listing import text_column
from sdxl_nb.system.errors import DataError

NAMES = [f"a/{number}.png" for number in range(50)]


@pytest.mark.parametrize("hashed", [hash, len, lambda name: 0])
def test_names_are_found_whatever_their_hashes_are(monkeypatch, hashed):
    monkeypatch.setattr(module, "hash", hashed, raising=False)
    found = Seen("metadata.jsonl", text_column(NAMES))
    assert list(found) == NAMES and len(found) == 50
    assert found["a/7.png"] == "metadata.jsonl" and "a/50.png" not in found and found.get("b") is None
    asked = text_column(["a/49.png", "b", "a/0.png"])
    assert np.array_equal(found.where(asked), [True, False, True])
    with pytest.raises(
        DataError, match=r"^metadata\.jsonl names 'a/3\.png' more than once: keep one line per picture\.$"
    ):
        Seen("metadata.jsonl", text_column([*NAMES, "a/3.png", "a/2.png"]))


def test_no_names():
    assert not Seen("metadata.jsonl", text_column([])) and "a" not in Seen("metadata.jsonl", text_column([]))
