"""Captions are found where programs put them: in metadata files of any folder, and beside pictures however spelt."""

import json

import datasets
import pytest
from test_meant import opened, write

from sdxl_nb.data.editing import save_caption
from sdxl_nb.system.errors import DataError


def said(pictures, *kinds):
    return [str(note) for note in pictures.notes if getattr(note, "kind", "") in kinds]


def row(name, text):
    return json.dumps({"file_name": name, "text": text})


# spelling of a caption beside a picture -> (picture, file)
SPELT = [
    ("a.png", "a.txt"),
    ("A.JPG", "A.TXT"),
    ("a.JPG", "a.txt"),
    ("A.png", "a.Txt"),
    ("a.jpg", "a.jpg.txt"),
    ("a.jpg", "a.JPG.TXT"),
    ("a.png", "a.caption"),
    ("a.png", "a.CAPTION"),
    ("a.png", "a.cap"),
    ("a.png", "a.png.caption"),
    ("a.b.png", "a.b.txt"),
    ("sub dir/ä.png", "sub dir/ä.txt"),
]


@pytest.mark.parametrize(("picture", "text"), SPELT)
def test_a_caption_beside_a_picture(picture, text, tmp_path):
    write(tmp_path, picture)
    (tmp_path / text).write_text("an apple", "utf-8")
    pictures = opened(tmp_path)
    assert (pictures.names, pictures.captions, pictures.notes) == ([picture], ["an apple"], [])
    config = pictures_config(tmp_path)
    assert save_caption(config, picture, "a pear") == tmp_path / text
    assert opened(tmp_path).captions == ["a pear"]


def pictures_config(root):
    from sdxl_nb import TrainConfig

    return TrainConfig(train_data_dir=str(root))


@pytest.mark.parametrize(
    ("files", "caption", "used"),
    [
        (("a.png", "a.txt=one", "a.caption=two"), "one", "a.txt"),
        (("a.png", "a.caption=two", "a.cap=three"), "two", "a.caption"),
        (("a.png", "a.txt=one", "a.png.txt=two"), "one", "a.txt"),
        (("a.png", "a.TXT=one", "a.caption=two"), "one", "a.TXT"),
        (("a.png", "A.txt=one", "a.caption=two"), "two", "a.caption"),
    ],
)
def test_two_captions_beside_a_picture_are_said(files, caption, used, tmp_path):
    write(tmp_path, *files)
    pictures = opened(tmp_path)
    assert pictures.captions == [caption]
    assert said(pictures, "two_caption_files") == [f"a.png has two caption files; {used} is used."]
    assert pictures.notes[0].files == {"a.png": f"{used} is used"}


def test_pictures_that_share_a_stem_have_texts_of_their_own(tmp_path):
    write(tmp_path, "a.jpg", "a.png", "a.jpg.txt=one", "a.png.txt=two")
    assert opened(tmp_path).captions == ["one", "two"]


def test_many_pictures_with_two_captions_are_one_note(tmp_path):
    write(tmp_path, *(f"{n}.png" for n in range(9)), *(f"{n}.{s}" for n in range(9) for s in ("txt", "caption")))
    assert said(opened(tmp_path), "two_caption_files") == [
        "9 pictures have two caption files, such as 0.png; 0.txt is used."
    ]


def test_a_caption_without_a_picture_is_said(tmp_path):
    write(tmp_path, "a.png", "a.txt=one", "b.txt=two", "sub/b.png", "sub/c.txt=x")
    assert said(opened(tmp_path), "caption_without_picture") == [
        "2 caption files without a picture of that name (b.txt, sub/c.txt)."
    ]
    with pytest.raises(DataError, match=r"no captions at all \(no metadata.jsonl.*; 1 caption file without a picture"):
        opened(tmp_path / "sub")


# metadata in subfolders -> (files, names, captions)
BELOW = {
    "data beside README.md": (
        ("README.md", "data/a.png", "data/b.png", f"data/metadata.jsonl={row('a.png', 'A')}\n{row('b.png', 'B')}"),
        ["data/a.png", "data/b.png"],
        ["A", "B"],
    ),
    "one a folder": (
        ("x/a.png", f"x/metadata.jsonl={row('a.png', 'A')}", "y/a.png", f"y/metadata.jsonl={row('a.png', 'B')}"),
        ["x/a.png", "y/a.png"],
        ["A", "B"],
    ),
    "both kinds": (
        ("x/a.png", f"x/metadata.jsonl={row('a.png', 'A')}", "y/a.png", "y/metadata.csv=file_name,text\na.png,B"),
        ["x/a.png", "y/a.png"],
        ["A", "B"],
    ),
    "metadata and texts": (
        ("x/a.png", f"x/metadata.jsonl={row('a.png', 'A')}", "y/b.png", "y/b.txt=B"),
        ["x/a.png", "y/b.png"],
        ["A", "B"],
    ),
    "a text for what metadata does not name": (
        ("a.png", "b.png", "b.txt=B", f"metadata.jsonl={row('a.png', 'A')}"),
        ["a.png", "b.png"],
        ["A", "B"],
    ),
    "names below the metadata's folder": (
        ("data/deep/a.png", f"data/metadata.jsonl={row('deep/a.png', 'A')}"),
        ["data/deep/a.png"],
        ["A"],
    ),
    "names beside the metadata's folder": (
        ("a.png", f"meta/metadata.jsonl={row('../a.png', 'A')}"),
        ["a.png"],
        ["A"],
    ),
    "names in the manner of Windows": (("x/a.png", "metadata.csv=file_name,text\nx\\a.png,A"), ["x/a.png"], ["A"]),
    "capitals": (("a.png", "Metadata.CSV=file_name,text\na.png,A"), ["a.png"], ["A"]),
    "blanks after commas": (
        ("a.png", "b.png", 'metadata.csv=file_name, text\na.png, "one, two"\nb.png, three\n'),
        ["a.png", "b.png"],
        ["one, two", "three"],
    ),
    "semicolons": (("a.png", "metadata.csv=file_name;text\na.png;one, two\n"), ["a.png"], ["one, two"]),
    "tabs": (("a.png", "metadata.csv=file_name\ttext\na.png\tone, two\n"), ["a.png"], ["one, two"]),
}


@pytest.mark.parametrize("case", BELOW)
@pytest.mark.parametrize("word", [None, "sks"])
def test_metadata_of_any_folder(case, word, tmp_path):
    files, names, captions = BELOW[case]
    write(tmp_path, *files)
    pictures = opened(tmp_path, trigger_word=word)
    assert (pictures.names, pictures.written, pictures.faults) == (names, captions, [])
    assert said(pictures, "trigger_word_alone") == []


def test_a_caption_in_a_subfolders_metadata_is_changed_there(tmp_path):
    write(tmp_path, *BELOW["one a folder"][0])
    assert save_caption(pictures_config(tmp_path), "y/a.png", "C") == tmp_path / "y" / "metadata.jsonl"
    assert opened(tmp_path).captions == ["A", "C"]


def test_as_datasets_reads_them(tmp_path):
    for case in ("one a folder", "data beside README.md"):
        root = tmp_path / case
        write(root, *BELOW[case][0])
        table = datasets.load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "c"))
        assert sorted(table["text"]) == sorted(opened(root).captions)


def test_the_nearer_of_two_metadata_files_counts(tmp_path):
    files = ("x/a.png", f"x/metadata.jsonl={row('a.png', 'near')}", f"metadata.jsonl={row('x/a.png', 'far')}")
    write(tmp_path, *files)
    pictures = opened(tmp_path)
    assert pictures.captions == ["near"]
    assert said(pictures, "named_twice") == [
        "1 picture named in two metadata files (x/a.png): the file nearer to the picture counts."
    ]


def test_a_text_beside_a_picture_that_metadata_names_is_said_to_be_unread(tmp_path):
    write(tmp_path, "a.png", "a.txt=text", f"metadata.jsonl={row('a.png', 'row')}")
    pictures = opened(tmp_path)
    assert pictures.captions == ["row"]
    assert said(pictures, "two_caption_files") == [
        "a.png has a caption in metadata.jsonl and in a text beside it; the text is not read."
    ]


def test_a_picture_that_a_subfolders_metadata_does_not_name(tmp_path):
    write(tmp_path, "x/a.png", "x/b.png", f"x/metadata.jsonl={row('a.png', 'A')}", "c.png")
    assert [fault.sentence for fault in opened(tmp_path).faults] == [
        "x/b.png is not named in x/metadata.jsonl.",
        "c.png has no caption: add one or remove the picture.",
    ]


def test_two_kinds_of_metadata_in_one_subfolder(tmp_path):
    write(tmp_path, "x/a.png", f"x/metadata.jsonl={row('a.png', 'A')}", "x/metadata.csv=file_name,text\na.png,B")
    with pytest.raises(DataError, match=r"x has both metadata\.jsonl and metadata\.csv: keep the one that is right\."):
        opened(tmp_path)


def test_absolute_names_into_the_folder_are_names_of_it(tmp_path):
    real = tmp_path / "real"
    write(real, "x/a.png", "b.png")
    (tmp_path / "link").symlink_to(real)
    told = [row(str(real / "x" / "a.png"), "A"), row(str(tmp_path / "link" / "b.png"), "B")]
    (real / "metadata.jsonl").write_text("\n".join(told))
    pictures = opened(real)
    assert (pictures.names, pictures.captions, pictures.faults) == (["x/a.png", "b.png"], ["A", "B"], [])
    assert opened(tmp_path / "link").names == ["x/a.png", "b.png"]


def test_a_trigger_word_hides_no_mistake(tmp_path):
    write(tmp_path, "a.png", "a.txt=an apple", "b.png", "c.png", "c.txt=SKS.", "d.png", "d.txt= ")
    pictures = opened(tmp_path, trigger_word="sks")
    assert pictures.captions == ["sks, an apple", "sks", "SKS.", "sks"]
    assert said(pictures, "trigger_word_alone") == [
        "3 of 4 pictures have no caption but the trigger word 'sks': describe what is seen, unless that is meant."
    ]


def test_the_sentence_about_captions_that_are_not_there_is_true(tmp_path):
    write(tmp_path, "a.png", "captions.jsonl", "notes.md")
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no captions at all (no metadata.jsonl, no metadata.csv and no .txt beside the pictures; "
        "2 other files not read (captions.jsonl, notes.md)): add them, or give a --trigger_word to train on alone."
    )
