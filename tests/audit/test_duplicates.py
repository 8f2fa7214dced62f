"""The parts of an audit by themselves: groups of like pictures, odd captions, and the report."""

import time

import numpy as np
import pytest

from sdxl_nb import TrainConfig
from sdxl_nb.audit import caption_faults as captions
from sdxl_nb.audit.duplicates import across, groups, near
from sdxl_nb.audit.findings import AuditReport, Finding


def test_near_duplicates_of_ten_thousand_hashes():
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 1 << 63, 10_000, dtype=np.uint64)
    colours = generator.integers(0, 256, (10_000, 192), dtype=np.uint8)
    hashes[9_000], colours[9_000] = hashes[17] ^ np.uint64(0b1011), colours[17]
    hashes[9_001] = hashes[18]  # alike in grey, but of other colours
    begun = time.process_time()
    assert groups(near(hashes, colours)) == [[17, 9_000]]
    assert time.process_time() - begun < 5
    assert across(hashes[:100], hashes[8_990:], colours[:100], colours[8_990:]).nonzero()[0].tolist() == [17]


def test_groups_join_chains():
    assert groups(iter([(1, 2), (4, 5), (2, 5), (7, 9)])) == [[1, 2, 4, 5], [7, 9]]


def test_report_without_findings_and_worst_first():
    empty = AuditReport("x<y", 1, [])
    assert "x&lt;y" in empty._repr_html_() and empty.summary() == "Data audit: 1 picture, nothing found."
    order = [Finding("a", "note", [], "", ""), Finding("b", "error", [], "", ""), Finding("c", "warning", [], "", "")]
    assert AuditReport("x", 1, order).kinds() == ["b", "c", "a"]


@pytest.mark.parametrize(
    "caption",
    [
        'a 5" nail and a 3" screw, the artist\'s son',
        "café, naïve façade, Ærø, crème brûlée",
        "a family 👨\u200d👩\u200d👧 at the beach",
        "a red car (side view), 1girl, solo :)",
        "he said \u201chello\u201d, AT&T store, x < y > z",
        "a photo\nof a dog\tat night",
    ],
)
def test_ordinary_captions_are_not_odd(caption):
    assert captions.single_captions({"p.png": caption}) == []


def test_the_first_of_very_many_are_looked_at(monkeypatch):
    from sdxl_nb import open_dataset
    from sdxl_nb.audit import inspection as module

    monkeypatch.setattr(module, "FIRST", 5)
    opened = open_dataset(TrainConfig.preset("tiny"))
    line = module.quick_summary(TrainConfig.preset("tiny"), opened, np.full((len(opened), 2), 32))
    assert line.startswith("Data audit (names, sizes and captions): 5 pictures; too small 5.")
    assert line.endswith(f"Of {len(opened)} pictures the first were looked at.")
