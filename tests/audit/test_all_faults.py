"""A folder with a fault of every kind that the audit knows: each is found, with its remedy; real photographs have none.

The kinds are taken from the code, so that one without an example here fails.
"""

import re
import shutil
import sys
from pathlib import Path

import photographs
import pytest
from PIL import Image, ImageFilter
from test_audit import CAPTIONS, SIDE, bomb, by_kind, config, jpeg, raw, save

from sdxl_nb import audit_dataset
from sdxl_nb.audit import caption_faults as captions
from sdxl_nb.audit import findings, inspection
from sdxl_nb.audit import picture_faults as pictures
from sdxl_nb.data.plugins import MODULES

OF_COLOUR = Path(__file__).parent.parent / "data" / "pictures"
MORE_CAPTIONS = {
    "slot.jpg": (captions.PLACEHOLDER, "a photo of [trigger] in a garden"),
    "sorry.jpg": (captions.REFUSAL, "I'm sorry, I cannot describe this image."),
    "code.jpg": (captions.CODE, '{"caption": "a tower"}'),
    "booru.jpg": (captions.BOORU_TAGS, "1girl, hatsune_miku_\\(vocaloid\\), long_hair"),
}
WORD = "zwx"
PLAIN = {  # kind -> what has it when nothing else is asked for; None: it is about the whole
    captions.MISSING_CAPTION: {"silent.jpg"},
    pictures.EXACT_DUPLICATE: {"first.png", "second.png"},
    pictures.NEAR_DUPLICATE: {"large.png", "resaved.jpg"},
    pictures.TOO_SMALL: {"small.png"},
    pictures.BLURRED: {"blurred.png"},
    pictures.BLANK: {"blank.png"},
    pictures.ROTATED: {"rotated.jpg"},
    pictures.TRANSPARENT: {"clear.png"},
    pictures.EXTREME_ASPECT: {"wide.png"},
    pictures.CROPPED: {"wide.png"},
    pictures.ALONE: {"small.png", "wide.png"},
    pictures.SEVERAL_FRAMES: {"moving.gif"},
    pictures.UNREADABLE: {"cut.jpg"},
    pictures.TOO_LARGE: {"bomb.png"},
    pictures.UNSUPPORTED: {"camera.dng"},
    pictures.BAD_NAME: {"p\\xff.png"},
    pictures.UNREADABLE_CAPTION: {"latin.jpg"},
    pictures.TWO_CAPTIONS: {"double.jpg"},
    pictures.NOT_LISTED: {"named/unnamed.jpg"},
    pictures.COLOURS: {"profile.png"},
    pictures.HIGH_RANGE: {"avifenc-pq.avif"},
    pictures.MISSING_PLUGIN: {"phone.heic"},
    pictures.REMARK: None,
}
ASKED = {  # those of a trigger word, masks and held-out pictures
    captions.TRIGGER_ALONE: {"silent.jpg", "empty.jpg"},
    captions.TRIGGER_WORD: None,
    pictures.MASKS: None,
    pictures.UNUSABLE_MASK: {"rotated.jpg"},
    pictures.OVERLAP: {"first.png", "second.png"},
}
ALONE = {captions.SAME_CAPTION, pictures.UNUSABLE, pictures.ORPHAN_CAPTION, inspection.UNCHECKED}


def kinds():
    """Every kind of finding that the audit's modules name."""
    named = {
        value
        for module in (captions, pictures, inspection)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and re.fullmatch(r"[a-z]+(_[a-z]+)*", value)
    }
    return named - set(findings.SEVERITIES)


def about_captions():
    return {kind: {name} for name, (kind, _) in {**CAPTIONS, **MORE_CAPTIONS}.items()}


def make(folder):
    """The folder, and beside it one of held-out pictures."""
    scene = iter(photographs.scenes(SIDE))
    for name, (_, caption) in {**CAPTIONS, **MORE_CAPTIONS}.items():
        save(folder, name, next(scene), caption, quality=95)
    _of_pictures(folder, scene)
    _of_files(folder, scene)
    held = folder.parent / "held"
    save(held, "other.png", next(scene))
    shutil.copy(folder / "first.png", held)
    (held / "first.txt").write_text("a photo")


def _of_pictures(folder, scene):
    for name in ("first.png", "large.png"):
        save(folder, name, next(scene))
    raw(folder, "second.png", (folder / "first.png").read_bytes())
    with Image.open(folder / "large.png") as large:
        save(folder, "resaved.jpg", large.resize((280, 280)), quality=60)
    save(folder, "small.png", next(scene).resize((96, 60)))
    save(folder, "blurred.png", next(scene).filter(ImageFilter.GaussianBlur(4)))
    save(folder, "blank.png", Image.new("RGB", (300, 300), (90, 91, 90)))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder, "rotated.jpg", next(scene), quality=95, exif=exif)
    clear = next(scene).copy()
    clear.putalpha(Image.new("L", (200, 200), 255).crop((0, 0, SIDE, SIDE)))
    save(folder, "clear.png", clear)
    wide = Image.new("RGB", (8 * SIDE, SIDE))
    for place in range(8):
        wide.paste(next(scene), (SIDE * place, 0))
    save(folder, "wide.png", wide)
    save(folder, "moving.gif", next(scene), save_all=True, append_images=[next(scene)])
    save(folder, "profile.png", next(scene), icc_profile=b"no profile")
    raw(folder, "avifenc-pq.avif", (OF_COLOUR / "avifenc-pq.avif").read_bytes())


def _of_files(folder, scene):
    data = jpeg(next(scene))
    raw(folder, "cut.jpg", data[: len(data) // 2])
    raw(folder, "bomb.png", bomb())
    raw(folder, "camera.dng", b"II*\0")
    raw(folder, "phone.heic", (OF_COLOUR / "heif-adobe.heic").read_bytes())
    save(folder, "p\udcff.png", next(scene), None)
    save(folder, "silent.jpg", next(scene), None)
    save(folder, "latin.jpg", next(scene), None)
    (folder / "latin.txt").write_bytes("ein Bär".encode("latin-1"))
    save(folder, "double.jpg", next(scene), quality=95)
    (folder / "double.caption").write_text("another caption")
    (folder / "notes.log").write_text("what is no picture")
    save(folder / "named", "unnamed.jpg", next(scene), None)
    save(folder / "named", "listed.jpg", next(scene), None)
    (folder / "named" / "metadata.jsonl").write_text('{"file_name": "listed.jpg", "text": "a photo of a place"}\n')
    Image.new("L", (SIDE, SIDE), 255).save(folder / "first-masklabel.png")
    Image.new("L", (SIDE, 100), 255).save(folder / "rotated-masklabel.png")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What the audit says, with and without all that can be asked for; no plugin is there."""
    folder = tmp_path_factory.mktemp("data") / "faulty"
    make(folder)
    asked = {"trigger_word": WORD, "masked_loss": True, "validation_data_dir": str(folder.parent / "held")}
    with pytest.MonkeyPatch.context() as patched:
        for module in MODULES.values():
            patched.setitem(sys.modules, module, None)
        Image.init()  # what it registers later would be lost with this
        patched.setattr(Image, "OPEN", {kind: how for kind, how in Image.OPEN.items() if kind not in MODULES})
        return [audit_dataset(config(folder, train_batch_size=2, **more), progress=False) for more in ({}, asked)]


def test_every_kind_has_an_example():
    assert kinds() == {*about_captions(), *PLAIN, *ASKED, *ALONE}


def test_every_fault_of_the_folder_is_named(reports):
    wanted = {**about_captions(), **PLAIN}
    found = by_kind(reports[0])
    assert set(found) == set(wanted)
    assert {kind: found[kind] for kind, files in wanted.items() if files} == {k: v for k, v in wanted.items() if v}


def test_what_is_asked_for_has_findings_of_its_own(reports):
    found = by_kind(reports[1])
    gone = {captions.MISSING_CAPTION, captions.EMPTY_CAPTION, pictures.TRANSPARENT}  # one has the word, one is a mask
    assert set(found) == {*about_captions(), *PLAIN, *ASKED} - gone
    assert {kind: found[kind] for kind, files in ASKED.items() if files} == {k: v for k, v in ASKED.items() if v}


def test_each_has_its_remedy(reports):
    for report in reports:
        for finding in report.findings:
            said = finding.message if finding.kind in (pictures.REMARK, pictures.MASKS) else finding.advice
            assert re.fullmatch(r".+[.:]\W*", said, re.DOTALL), finding
            assert str(finding) in str(report)
    remarks = [finding.message for finding in reports[0].findings if finding.kind == pictures.REMARK]
    assert any("2 masks" in each or "masks 2" in each for each in remarks) and any("notes.log" in e for e in remarks)


def test_kinds_that_stand_alone(tmp_path):
    for number in range(2):
        save(tmp_path / "same", f"{number}.png", photographs.scenes()[number], "a photo")
    (tmp_path / "same" / "typo.txt").write_text("a picture that is not there")
    found = by_kind(audit_dataset(config(tmp_path / "same"), quick=True, progress=False))
    assert found == {captions.SAME_CAPTION: {"0.png", "1.png"}, pictures.ORPHAN_CAPTION: {"typo.txt"}}
    nowhere = audit_dataset(config(tmp_path / "nowhere"), progress=False)
    assert nowhere.kinds() == [pictures.UNUSABLE] and "check --train_data_dir" in nowhere.findings[0].advice
    no_base = config(tmp_path / "same", pretrained_model_name_or_path=str(tmp_path / "no-model"))
    (finding,) = [f for f in audit_dataset(no_base, quick=True, progress=False).findings if f.severity == "note"]
    assert finding.kind == inspection.UNCHECKED and "was not checked: " in finding.message


def test_photographs_have_none(tmp_path):
    photographs.copy_all(tmp_path)
    asked = {"center_crop": True, "trigger_word": None, "alpha_background": "black"}
    for more in ({}, asked):
        assert audit_dataset(config(tmp_path, **more), quick=True, progress=False).findings == []
