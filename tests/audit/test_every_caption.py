"""The audit looks at every caption of a picture, and says which one it means."""

import json

import numpy as np
import photographs
import pytest
from test_audit import config

from sdxl_nb import audit_dataset
from sdxl_nb.audit import caption_faults as faults
from sdxl_nb.audit.findings import Part, found
from sdxl_nb.audit.inspection import quick_findings, quick_summary
from sdxl_nb.data.dataset import open_dataset

CAPTIONS = {
    "a.png": ["a red card on a table", "a red <b>card</b>", "a card, (red:1.3)"],
    "b.png": ["a blue card", "IMG_0123.JPG"],
    "c.png": "a green card",
    "d.png": ["a card that is yellow", "a word " * 40, "I'm sorry, I can't describe this image."],
}
WANTED = {
    faults.HTML: {"a.png": "caption 2 of 3: '<b>'"},
    faults.PROMPT_SYNTAX: {"a.png": "caption 3 of 3: '(red:1.3)'"},
    faults.FILE_NAME: {"b.png": "caption 2 of 2: 'IMG_0123.JPG'"},
    faults.REFUSAL: {"d.png": "caption 3 of 3: \"I'm sorry, I can't describe this image.\""},
}


@pytest.fixture
def several(tmp_path):
    for name, scene in zip(CAPTIONS, photographs.scenes(), strict=False):
        scene.save(tmp_path / name)
    rows = [{"file_name": name, "text": texts} for name, texts in CAPTIONS.items()]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def remarks(report):
    return {finding.kind: finding.remarks for finding in report.findings if finding.kind in WANTED}


@pytest.mark.parametrize("word", [None, "zwx"])
@pytest.mark.parametrize("quick", [True, False])
def test_every_caption_is_looked_at(several, word, quick):
    report = audit_dataset(config(several, trigger_word=word), quick=quick, progress=False)
    assert remarks(report) == WANTED
    (cut,) = [finding for finding in report.findings if finding.kind == faults.LONG_CAPTION]
    assert cut.files == ["d.png"] and cut.remarks["d.png"].startswith("caption 2 of 3: both encoders: ")
    (led,) = [finding for finding in report.findings if finding.kind == faults.TRIGGER_WORD] or [None]
    assert word is None or led.message == "The trigger word 'zwx' is written in 0 of 9 captions."


def test_the_first_alone_where_only_that_is_used(several):
    report = audit_dataset(config(several, caption_choice="first", trigger_word="zwx"), quick=True, progress=False)
    assert remarks(report) == {}


def test_a_run_says_so_when_it_starts(several, monkeypatch):
    pictures = open_dataset(config(several))
    sizes = np.full((4, 2), 320)
    assert "html in caption 1" in quick_summary(config(several), pictures, sizes)
    monkeypatch.setattr("sdxl_nb.audit.inspection.FIRST", 6)  # captions: those of three pictures
    assert quick_summary(config(several), pictures, sizes).startswith("Data audit (names, sizes and captions): 3 ")


def test_copies_differ_by_any_caption(several):
    (several / "b.png").write_bytes((several / "a.png").read_bytes())
    pictures = open_dataset(config(several))
    report = quick_findings(config(several), pictures, np.full((4, 2), 320), [b"a", b"a", b"c", b"d"])
    (copies,) = [finding for finding in report.findings if finding.kind == "exact_duplicate"]
    assert copies.remarks["a.png"] == "as b.png; captions differ"


def test_joined_and_selected_pictures_keep_what_is_written(several):
    pictures = open_dataset(config(several, trigger_word="zwx"))
    both = pictures.with_class(open_dataset(config(several, trigger_word="zwx"))).select([0, 3, 7])
    assert both.alternatives(0)[2] == "zwx, a card, (red:1.3)"
    assert [both.written_alternatives(i) for i in range(3)] == [CAPTIONS["a.png"], CAPTIONS["d.png"], CAPTIONS["d.png"]]


def test_a_finding_counts_pictures_not_captions():
    some = {Part("a.png", 1, 3): "x", Part("a.png", 3, 3): "", "b.png": "y", Part("c.png", 2, 2): ""}
    (finding,) = found("kind", "note", some, "{n} are odd.", "")
    assert finding.message == "3 pictures are odd." and finding.files == ["a.png", "b.png", "c.png"]
    assert finding.remarks == {
        "a.png": "caption 1 of 3: x; caption 3 of 3",
        "b.png": "y",
        "c.png": "caption 2 of 2",
    }
