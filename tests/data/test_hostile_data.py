"""Data sets that mean harm: bombs, names and links that lead out, pipes, HTML: one sentence each."""

import html
import json
import os
import zlib

import pytest
from test_dataset import png

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.sources import listing
from sdxl_nb.data.sources.folders import caption_files
from sdxl_nb.system.errors import DataError


def bomb():
    """A PNG of a hundred bytes that says it holds 3.6 billion pixels."""
    small = png("red")
    side = (60_000).to_bytes(4, "big")
    chunk = b"IHDR" + side + side + small[24:29]
    return small[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + small[33:]


def beside(root, name, data, caption="a card"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(caption)


def opened(root):
    return open_dataset(TrainConfig(train_data_dir=str(root)))


def outside(tmp_path):
    """A picture and a folder that are not part of the data set."""
    beside(tmp_path / "secret", "key.png", png("blue"), "a password")
    return tmp_path / "secret"


def link(root, name, target):
    root.mkdir(exist_ok=True)
    os.symlink(target, root / name)


def named(root, name):
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "a card"}))


def through_a_linked_folder(root, secret):
    link(root, "in", secret)
    named(root, "in/key.png")


def through_a_hidden_linked_folder(root, secret):
    link(root, ".in", secret)
    named(root, ".in/key.png")


def linked(name, file):
    return lambda root, secret: link(root, name, secret / file)


# what leads out -> (how it is made, who names it)
OUT = {
    "a picture": (linked("a.png", "key.png"), "the folder names 'a.png'"),
    "a caption": (linked("good.caption", "key.txt"), "the folder names 'good.caption'"),
    "metadata": (linked("metadata.jsonl", "key.txt"), "the folder names 'metadata.jsonl'"),
    "a folder": (through_a_linked_folder, "the folder names 'in'"),
    "a hidden folder": (through_a_hidden_linked_folder, "metadata.jsonl names '.in/key.png'"),
    "dots": (lambda root, _: named(root, "x/../../secret/key.png"), "metadata.jsonl names 'x/../../secret/key.png'"),
}


@pytest.mark.parametrize("case", OUT)
def test_what_leads_out_of_the_folder_is_refused(case, tmp_path):
    make, start = OUT[case]
    root = tmp_path / "pictures"
    beside(root, "good.png", png("red"))
    make(root, outside(tmp_path))
    with pytest.raises(DataError) as caught:
        opened(root)
    assert str(caught.value) == f"{start}, which leads out of {root}: copy the file into the folder."


def test_a_bomb_is_left_out_and_the_rest_is_used(tmp_path):
    beside(tmp_path, "bomb.png", bomb())
    beside(tmp_path, "good.png", png("red"))
    pictures = opened(tmp_path)
    said = "1 picture left out: bomb.png holds more than 200 million pixels: make it smaller."
    assert str(pictures.check()) == said
    assert pictures.without(["bomb.png"]).sizes().tolist() == [[8, 12]]


def test_files_without_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_files, "MAX_CAPTION", 20)
    monkeypatch.setattr(listing, "MAX_BYTES", 1 << 30)
    beside(tmp_path, "long.png", png("red"), "x" * 21)
    beside(tmp_path, "large.png", b"")
    os.truncate(tmp_path / "large.png", (1 << 30) + 1)  # a sparse file: it takes no room
    beside(tmp_path, "good.png", png("red"))
    assert [fault.sentence for fault in opened(tmp_path).check()] == [
        "long.png: its caption file long.txt is larger than 20 bytes: shorten it.",
        "large.png is larger than 1 GiB: make it smaller.",
    ]


def test_a_pipe_is_refused_not_waited_for(tmp_path):
    beside(tmp_path, "good.png", png("red"))
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert str(caught.value) == f"pipe.png in {tmp_path} is neither a file nor a folder: remove it."


@pytest.mark.parametrize(
    "line",
    ["a.png,a red card, plain", 'a.png,"a red card", plain', "a.png,a,b,c,d"],
)
def test_commas_outside_quotes_lose_no_text_silently(tmp_path, line):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png("red"))
    (tmp_path / "metadata.csv").write_text(f'file_name,text\n{line}\nb.png,"a card, plain"\n')
    pictures = opened(tmp_path)
    assert pictures.captions == ["a card, plain"]
    assert [tuple(fault) for fault in pictures.faults] == [
        ("a.png", "a.png has more cells in metadata.csv than there are columns: put quotes around text with commas.")
    ]


HTML = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt;", "'; alert(1); '"]


def test_captions_and_names_with_html_are_shown_as_text(tmp_path):
    for number, caption in enumerate(HTML):
        beside(tmp_path, f"<i>{number}.png", png("red"), caption)
    beside(tmp_path, "<b onclick=alert(1)>.png", b"no picture")
    pictures = opened(tmp_path)
    shown = pictures._repr_html_()
    for text in [*HTML, *pictures.names]:
        assert html.escape(text) in shown
    assert not any(sign in shown for sign in ("<script", "<img src=x", "<i>", "<b "))
    assert "<b onclick=alert(1)>.png is not a picture" in str(pictures.check())


def test_a_picture_that_is_another_program_is_not_run(tmp_path):
    beside(tmp_path, "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n")
    beside(tmp_path, "good.png", png("red"))
    assert opened(tmp_path).check().names == ["a.png"]
