"""The audit of a data set: every fault is found by kind and name, and real photographs raise no alarm."""

import io
import json
import os
import subprocess
import sys
import zlib

import numpy as np
import photographs
import pytest
from PIL import Image, ImageFilter

from sdxl_nb import TrainConfig, audit_dataset
from sdxl_nb.audit import caption_faults as captions
from sdxl_nb.audit import picture_faults as pictures
from sdxl_nb.audit.findings import ERROR
from sdxl_nb.audit.inspection import UNCHECKED, main, quick_findings

pytestmark = pytest.mark.slow

SIDE = 256


def config(folder, **changes):
    """The tiny base (tokenizers of 32 tokens) on a folder, with the buckets of real SDXL."""
    values = {"train_data_dir": str(folder), "resolution": SIDE, "center_crop": False, "train_batch_size": 1}
    return TrainConfig.preset("tiny", **values | changes)


def audit(folder, **changes):
    return audit_dataset(config(folder, **changes), progress=False)


def by_kind(report):
    """{kind: names} of everything found."""
    return {finding.kind: set(finding.files) for finding in report.findings}


def save(folder, name, picture, caption="", **options):
    """A picture with a caption of its own beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name, **options)
    if caption is not None:
        text = caption or f"a photo of a thing that is called {name.partition('.')[0]}"
        (folder / name).with_suffix(".txt").write_text(text, encoding="utf-8")


def raw(folder, name, data):
    (folder / name).write_bytes(data)
    (folder / name).with_suffix(".txt").write_text("a photo", encoding="utf-8")


def bomb(side=20_000):
    """A PNG of a few bytes that says it has 400 million pixels."""
    size = side.to_bytes(4, "big")

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = chunk(b"IHDR", size + size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return file.getvalue()


CAPTIONS = {  # name -> (kind, caption)
    "spoilt.jpg": (captions.MOJIBAKE, "a caf\u00c3\u00a9 in Paris, it\u00e2\u20ac\u2122s open"),
    "unseen.jpg": (captions.INVISIBLE_CHARACTERS, "a gar\u200bden with roses"),
    "bell.jpg": (captions.CONTROL_CHARACTERS, "a tower \x07 with a bell"),
    "tags.jpg": (captions.HTML, "<b>a tower</b> &amp; a wall"),
    "weights.jpg": (captions.PROMPT_SYNTAX, "a tower, (masterpiece:1.3)"),
    "quote.jpg": (captions.UNBALANCED, 'a sign that reads "open'),
    "script.jpg": (captions.NOT_LATIN, "東京の夜の街"),
    "camera_name.jpg": (captions.FILE_NAME, "IMG_0123.JPG"),
    "empty.jpg": (captions.EMPTY_CAPTION, " "),
    "long.jpg": (captions.LONG_CAPTION, "a photo of a river " * 20 + "and a waterfall"),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A folder with a fault of each kind, and what the audit must say of it."""
    folder = tmp_path_factory.mktemp("data") / "faulty"
    scene = iter(photographs.scenes())
    save(folder, "good.jpg", next(scene), quality=95)
    expected = {kind: {name} for name, (kind, _) in CAPTIONS.items()}
    for name, (_, caption) in CAPTIONS.items():
        save(folder, name, next(scene), caption, quality=95)

    save(folder, "first.png", photo := next(scene))
    (folder / "second.png").write_bytes((folder / "first.png").read_bytes())
    (folder / "second.txt").write_text("the same once more", encoding="utf-8")
    expected[pictures.EXACT_DUPLICATE] = {"first.png", "second.png"}
    photo = next(scene)
    save(folder, "large.png", photo)
    save(folder, "resaved.jpg", photo.resize((280, 280)), quality=60)
    expected[pictures.NEAR_DUPLICATE] = {"large.png", "resaved.jpg"}

    save(folder, "small.png", next(scene).resize((96, 80)))
    expected[pictures.TOO_SMALL] = {"small.png"}
    save(folder, "blurred.png", next(scene).filter(ImageFilter.GaussianBlur(4)))
    expected[pictures.BLURRED] = {"blurred.png"}
    save(folder, "blank.png", Image.new("RGB", (300, 300), (90, 91, 90)))
    expected[pictures.BLANK] = {"blank.png"}
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder, "rotated.jpg", next(scene), quality=95, exif=exif)
    expected[pictures.ROTATED] = {"rotated.jpg"}
    clear = next(scene).copy()
    clear.putalpha(Image.new("L", (200, 200), 255).crop((-60, -60, 260, 260)))
    save(folder, "clear.png", clear)
    solid = next(scene).copy()
    solid.putalpha(255)
    save(folder, "solid.png", solid)  # an alpha channel that changes nothing is no fault
    expected[pictures.TRANSPARENT] = {"clear.png"}
    wide = Image.fromarray(np.concatenate([np.asarray(next(scene)) for _ in range(4)], axis=1))
    save(folder, "wide.png", wide)
    expected[pictures.EXTREME_ASPECT] = {"wide.png"}
    save(folder, "moving.gif", next(scene), save_all=True, append_images=[next(scene)])
    expected[pictures.SEVERAL_FRAMES] = {"moving.gif"}

    data = jpeg(next(scene))
    raw(folder, "cut.jpg", data[: len(data) // 2])
    raw(folder, "text.png", b"this is no picture")
    raw(folder, "nothing.png", b"")
    expected[pictures.UNREADABLE] = {"cut.jpg", "text.png", "nothing.png"}
    raw(folder, "bomb.png", bomb())
    expected[pictures.TOO_LARGE] = {"bomb.png"}
    raw(folder, "camera.dng", b"II*\0")
    expected[pictures.UNSUPPORTED] = {"camera.dng"}
    next(scene).save(os.fsencode(folder) + b"/p\xff.png")
    expected[pictures.BAD_NAME] = {"p\\xff.png"}
    save(folder, "silent.jpg", next(scene), None)
    expected[pictures.MISSING_CAPTION] = {"silent.jpg"}
    save(folder, "latin.jpg", next(scene), None)
    (folder / "latin.txt").write_bytes("ein Bär".encode("latin-1"))
    expected[pictures.UNREADABLE_CAPTION] = {"latin.jpg"}
    save(folder, "double.jpg", next(scene), quality=95)
    (folder / "double.caption").write_text("another caption", encoding="utf-8")
    expected[pictures.TWO_CAPTIONS] = {"double.jpg"}
    (folder / "typo.txt").write_text("a picture that is not there", encoding="utf-8")
    expected[pictures.ORPHAN_CAPTION] = {"camera.txt", "typo.txt"}
    return folder, expected


@pytest.fixture(scope="module")
def report(faulty):
    return audit(faulty[0])


def test_every_fault_is_found_and_nothing_else(faulty, report):
    folder, expected = faulty
    assert len(expected) >= 25
    assert by_kind(report) == expected
    left_out = ("cut.jpg", "text.png", "nothing.png", "bomb.png", "silent.jpg", "latin.jpg", "p\\xff.png")
    files = {os.fsencode(p).decode(errors="backslashreplace").rpartition("/")[2] for p in folder.iterdir()}
    assert report.count == len([n for n in files if n.endswith((".jpg", ".png", ".gif"))]) - len(left_out)


def test_photographs_raise_no_alarm(tmp_path):
    names = photographs.copy_all(tmp_path / "photos")
    report = audit(tmp_path / "photos")
    assert (report.count, report.findings) == (len(names), [])
    assert "nothing found" in str(report)
    assert audit(tmp_path / "photos", center_crop=True).findings == []


def test_remarks_say_what_exactly(report):
    remarks = {name: text for finding in report.findings for name, text in finding.remarks.items()}
    assert remarks["small.png"] == "enlarged 3.2 times"
    assert remarks["first.png"] == "as second.png; captions differ"
    assert remarks["resaved.jpg"] == "like large.png"
    assert remarks["spoilt.jpg"] == "should read 'a café in Paris, it\u2019s open'"
    assert remarks["unseen.jpg"] == "U+200B"
    assert remarks["long.jpg"].startswith("both encoders: ") and "and a waterfall" in remarks["long.jpg"][-25:]
    assert "of 32 tokens" in remarks["long.jpg"]
    assert "million pixels" in remarks["bomb.png"]


def test_findings_are_json(report):
    listed = json.loads(json.dumps(report.as_dicts()))
    assert all({"kind", "severity", "files", "advice"} <= set(finding) for finding in listed)
    assert {finding["severity"] for finding in listed} == {"warning", "note"}
    assert all(finding["advice"] for finding in listed)


def test_files_are_a_filter(faulty, report):
    assert report.files(pictures.BLURRED) == {"blurred.png"}
    assert report.files() == set().union(*faulty[1].values())
    assert report.files("no_such_kind") == set()


def test_notebook_table_is_escaped(tmp_path):
    save(tmp_path / "d", "<img src=x onerror=alert(1)>.png", photographs.scenes()[0], "<script>alert(1)</script>")
    save(tmp_path / "d", "b.png", photographs.scenes()[1], "<script>alert(1)</script>")
    page = audit(tmp_path / "d")._repr_html_()
    assert "&lt;script&gt;" in page and "&lt;img src=x" in page
    assert "<script" not in page and "onerror=alert(1)>." not in page.replace("&gt;", "]")
    assert page.count('<img src="data:image/png;base64,') >= 2


def test_table_and_text(report):
    page, text = report._repr_html_(), str(report)
    assert page.count("<tr>") == len(report.findings) + 1
    assert "background:#" not in page and "color:#000" not in page  # both themes
    assert "warning too_small: 1 picture too small for 256 px, and enlarged. small.png (enlarged 3.2 times)" in text
    assert report.summary().startswith(f"Data audit: {report.count} pictures; ")


def test_quick_audit_decodes_nothing(faulty, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda *a: pytest.fail("decoded"))
    found = by_kind(audit_dataset(config(faulty[0]), quick=True, progress=False))
    pixels = {pictures.BLURRED, pictures.BLANK, pictures.NEAR_DUPLICATE, pictures.EXACT_DUPLICATE, pictures.TRANSPARENT}
    same = {kind: names for kind, names in faulty[1].items() if kind not in pixels}
    same[pictures.UNREADABLE] = {"text.png", "nothing.png"}  # what is cut short has a good header
    assert found == same


def test_what_training_does_by_itself_needs_no_file(tmp_path):
    from sdxl_nb import open_dataset

    photographs.copy_all(tmp_path / "d")
    save(tmp_path / "d", "small.png", photographs.scenes()[0].resize((64, 64)), "a small picture")
    opened = open_dataset(config(tmp_path / "d"))
    sizes = [opened.size(i) for i in range(len(opened))]
    digests = [bytes([i]) for i in range(len(opened) - 1)] + [b"\0"]
    for path in (tmp_path / "d").iterdir():
        path.unlink()
    report = quick_findings(config(tmp_path / "d"), opened, np.array(sizes), digests)
    assert by_kind(report) == {
        pictures.TOO_SMALL: {"small.png"},
        pictures.EXACT_DUPLICATE: {"astronaut.png", "small.png"},
    }
    assert report.summary() == ("Data audit (names, sizes and captions): 12 pictures; too small 1, exact duplicate 2.")


def test_same_caption_everywhere(tmp_path):
    for number in range(3):
        save(tmp_path / "d", f"p{number}.png", photographs.scenes()[number], "a photo of sks {dog}")
    assert by_kind(audit(tmp_path / "d")) == {captions.SAME_CAPTION: {"p0.png", "p1.png", "p2.png"}}


def test_trigger_coverage(tmp_path):
    for number, caption in enumerate(["a sks vase", "a vase", "tasks on a table"]):
        save(tmp_path / "d", f"p{number}.png", photographs.scenes()[number], caption)
    (finding,) = audit(tmp_path / "d", trigger_word="sks").findings
    assert (finding.kind, finding.files) == (captions.TRIGGER_WORD, ["p1.png", "p2.png"])
    assert finding.message == "The trigger word 'sks' is written in 1 of 3 captions."
    assert finding.remarks == {"p2.png": "only inside another word"}


def test_trigger_alone_makes_up_for_captions(tmp_path):
    for number in range(2):
        save(tmp_path / "d", f"p{number}.png", photographs.scenes()[number], None)
    found = by_kind(audit(tmp_path / "d", trigger_word="sks"))
    assert found[captions.TRIGGER_WORD] == found[captions.TRIGGER_ALONE] == {"p0.png", "p1.png"}


def test_pictures_that_no_metadata_names(tmp_path):
    for number in range(2):
        save(tmp_path / "d", f"p{number}.png", photographs.scenes()[number], None)
    (tmp_path / "d" / "metadata.jsonl").write_text('{"file_name": "p0.png", "text": "a thing"}\n')
    assert by_kind(audit(tmp_path / "d")) == {pictures.NOT_LISTED: {"p1.png"}}


def test_what_squares_crop_away(tmp_path):
    save(tmp_path / "d", "wide.png", photographs.scenes()[0].crop((0, 0, 320, 140)).resize((640, 280)))
    save(tmp_path / "d", "square.png", photographs.scenes()[1])
    assert by_kind(audit(tmp_path / "d", center_crop=True))[pictures.CROPPED] == {"wide.png"}
    assert pictures.CROPPED not in by_kind(audit(tmp_path / "d"))


def test_pictures_that_are_all_blank(tmp_path):
    for number in range(2):
        save(tmp_path / "d", f"p{number}.png", Image.new("RGB", (300, 300), (90, 91 + number, 90)))
    assert by_kind(audit(tmp_path / "d")) == {pictures.BLANK: {"p0.png", "p1.png"}}


def test_buckets_are_reported(tmp_path):
    photographs.copy_all(tmp_path / "d")
    assert "pictures by size" in str(audit(tmp_path / "d")).lower()


@pytest.mark.parametrize("fault", ["metadata", "link", "captions"])
def test_data_that_training_would_refuse(tmp_path, fault, capsys):
    folder = tmp_path / "d"
    save(folder, "p0.png", photographs.scenes()[0], None)
    photographs.scenes()[1].save(tmp_path / "outside.png")
    if fault == "metadata":
        (folder / "metadata.jsonl").write_text('{"file_name": "../outside.png", "text": "a thing"}\n')
    if fault == "link":
        (folder / "link.png").symlink_to(tmp_path / "outside.png")
    report = audit(folder)
    (finding,) = report.findings
    assert report.fails and (finding.kind, finding.severity) == (pictures.UNUSABLE, ERROR)
    assert ("captions" if fault == "captions" else "leads out of") in finding.advice
    assert finding.advice.count("\n") == 0


def run(capsys, *argv):
    code = main([*argv, "--pretrained_model_name_or_path", "embedded:tiny-sdxl", "--resolution", str(SIDE)])
    return code, *capsys.readouterr()


def test_command_line(tmp_path, capsys, faulty):
    code, out, _ = run(capsys, "--train_data_dir", str(faulty[0]), "--json", str(tmp_path / "findings.json"))
    assert code == 0  # training leaves the bad pictures out and goes on
    assert {f["kind"] for f in json.loads((tmp_path / "findings.json").read_text())} == set(faulty[1])
    assert "decompression_bomb: 1 picture" in out


def test_command_line_fails_where_training_would(tmp_path, capsys):
    code, out, _ = run(capsys, "--train_data_dir", str(tmp_path / "nowhere"))
    assert code == 1 and "There is no folder" in out
    save(tmp_path / "d", "p.png", photographs.scenes()[0])
    (tmp_path / "d" / "p.png").write_bytes(b"not a picture")
    code, out, _ = run(capsys, "--train_data_dir", str(tmp_path / "d"))
    assert code == 1 and "None of the 1 pictures can be used" in out
    code, _, err = run(capsys, "--train_data_dir", str(tmp_path / "d"), "--json", str(tmp_path / "no" / "f.json"))
    assert (code, err.count("\n")) == (1, 1) and "Cannot write" in err


def test_bad_flags(capsys):
    assert run(capsys, "--train_data_dirr", "x")[0] == 2
    assert run(capsys, "--train_data_dir", "x", "--rank", "0")[0] == 2


def test_an_unknown_base_leaves_only_tokens_unchecked(tmp_path):
    photographs.copy_all(tmp_path / "d")
    report = audit(tmp_path / "d", pretrained_model_name_or_path=str(tmp_path / "no-model"))
    assert [finding.kind for finding in report.findings] == [UNCHECKED]


def test_a_start_from_the_shell(tmp_path):
    photographs.copy_all(tmp_path / "d")
    command = [sys.executable, "-m", "sdxl_nb.audit", "--train_data_dir", str(tmp_path / "d"), "--preset", "tiny"]
    done = subprocess.run([*command, "--resolution", "256", "--quick"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "nothing found"), done.stderr


def test_overlap_with_a_validation_folder(tmp_path):
    names = photographs.copy_all(tmp_path / "train")
    save(tmp_path / "held", "other.png", photographs.scenes()[0], "a place")
    (tmp_path / "held" / "cat.png").write_bytes((tmp_path / "train" / "chelsea.png").read_bytes())
    (tmp_path / "held" / "cat.txt").write_text("a cat")
    with Image.open(tmp_path / "train" / "coffee.png") as coffee:
        save(tmp_path / "held", "cup.jpg", coffee.convert("RGB").resize((450, 300)), "a cup", quality=70)
    (finding,) = audit(tmp_path / "train", validation_data_dir=str(tmp_path / "held")).findings
    assert (finding.kind, set(finding.files)) == (pictures.OVERLAP, {"chelsea.png", "coffee.png"})
    assert finding.remarks == {"chelsea.png": "is cat.png", "coffee.png": "looks like one of them"}
    assert len(names) == 11


def test_overlap_of_a_split(tmp_path):
    with Image.open(photographs.path("skimage/data/coffee.png")) as coffee:
        for number in range(8):
            save(tmp_path / "d", f"p{number}.jpg", coffee.convert("RGB"), f"cup {number}", quality=70 + number)
    found = by_kind(audit(tmp_path / "d", validation_split=0.25))
    assert len(found[pictures.OVERLAP]) == 6  # those that are trained on
