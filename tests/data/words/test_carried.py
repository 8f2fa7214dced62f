"""Captions inside pictures that exiftool and ImageMagick wrote, JSON beside pictures, and what must not be read."""

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.words import sidecars
from sdxl_nb.data.words.carried import carried, prompt_of, user_comment, xmp_captions

HERE = Path(__file__).parents[1] / "captions"
SAID = "A black cat – “Mia” – sleeps on a café chair."
PLACES = {
    "XMP description": "xmp.jpg xmp.png xmp.webp xmp.tif languages.jpg from-xmp.png",
    "IPTC caption": "iptc.jpg iptc.tif latin.jpg from-iptc.png",
    "EXIF ImageDescription": "exif.jpg exif.png exif.webp from-exif.png",
    "EXIF UserComment": "usercomment.jpg usercomment-motorola.jpg",
    "EXIF XPComment": "windows.jpg",
    "PNG Description": "description.png",
    "PNG comment": "comment.png",
    "comment": "comment.jpg",
}


def of(name):
    return carried((HERE / name).read_bytes(), name)


@pytest.mark.parametrize(("place", "names"), PLACES.items(), ids=PLACES)
def test_what_programs_write_is_found_where_it_is(place, names):
    assert {name: of(name) for name in names.split()} == {name: {place: SAID} for name in names.split()}


def test_keywords_parameters_and_packed_text():
    assert of("keywords.jpg") == {"XMP keywords": "cat, black fur"}
    assert of("parameters.png") == {"PNG parameters": "a lighthouse at night, (stars:1.2)"}
    assert of("packed.png") == {"PNG Description": SAID * 40}


def test_of_several_the_most_particular_comes_first_and_noise_is_none():
    assert list(of("everything.jpg").values()) == [SAID, "another", "third"]
    assert of("camera.jpg") == {} and carried(b"no picture") == {}
    assert prompt_of('{"3": {"class_type": "KSampler"}}') == "" and prompt_of("a cat\nin a hat") == "a cat in a hat"


def test_user_comments_of_either_byte_order_and_code():
    for code, kind in (("UNICODE\0", "utf-16-le"), ("UNICODE\0", "utf-16-be"), ("ASCII\0\0\0", "utf-8")):
        assert [user_comment(code.encode() + SAID.encode(kind), endian) for endian in "<>"] == [SAID, SAID]


def test_xml_with_entities_is_not_read():
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    packet = f'<x xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description>{SAID}</dc:description></x>'
    assert xmp_captions(packet) == {"XMP description": SAID}
    assert xmp_captions(bomb + packet.replace(SAID, "&b;")) == xmp_captions(packet[:-3]) == {}
    assert xmp_captions(packet.replace(SAID, "x" * (1 << 20))) == {}


def test_a_bomb_of_compressed_text_is_passed_over(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    body = b"zTXtDescription\0\0" + zlib.compress(bytes(64 << 20))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    assert carried(data[:33] + chunk + data[33:]) == {}


SIDECARS = {
    "gallery-dl, Gelbooru": ({"tags": "1girl solo long_hair", "id": 7}, ["1girl, solo, long_hair"]),
    "gallery-dl, Danbooru": ({"tags": ["1girl", "solo"], "tag_string_general": "x"}, ["1girl, solo"]),
    "Danbooru's own": ({"tag_string": "1girl solo", "tag_string_artist": "a"}, ["1girl, solo"]),
    "e621": ({"tags": {"general": ["hat", "cat"], "artist": ["someone"]}}, ["someone, hat, cat"]),
    "Danbooru's groups": ({"tag_string_general": "solo", "tag_string_character": "mia"}, ["mia, solo"]),
    "Pixiv": ({"caption": "", "tags": ["cat", "black fur"], "title": "Mia"}, ["cat, black fur"]),
    "Hydrus": ({"tags": "character:mia, black fur"}, ["character:mia, black fur"]),
    "Flickr": ({"description": {"_content": "a cat"}, "tags": []}, ["a cat"]),
    "img2dataset": ({"caption": "a cat", "url": "https://x"}, ["a cat"]),
    "several": ({"captions": ["a cat", "Mia  asleep"]}, ["a cat", "Mia asleep"]),
    "named tags": ({"tags": [{"name": "cat", "score": 0.9}]}, ["cat"]),
    "Mastodon": ({"content": "a cat", "id": 1}, ["a cat"]),
    "nothing": ({"width": 5}, []),
    "a list": (["a cat"], []),
    "a number": (7, []),
}


@pytest.mark.parametrize("program", SIDECARS)
def test_json_beside_a_picture(program):
    said, captions = SIDECARS[program]
    assert sidecars.read(json.dumps(said), TrainConfig(seed=0)) == captions


def test_what_is_no_json_raises_value_error():
    for text in ("{", "[" * 100_000, ""):
        with pytest.raises(ValueError):
            sidecars.read(text, TrainConfig(seed=0))
