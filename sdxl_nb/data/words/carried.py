"""Captions that picture files carry: XMP, IPTC, EXIF and PNG text, as cameras, archives and generation programs write.

In: an encoded picture. Out: where in it a caption stands -> the caption, the one that is to be used first. Nothing is
decoded but texts, all of them bounded; XML is read without any entity (no DOCTYPE is let in). Nothing here raises for a
damaged file: what cannot be read is not there.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from ..colour.chunks import chunks, inflated
from ..decoding import PictureError, is_text, open_header

MAX_TEXT = 1 << 20  # bytes of one text
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DC = "{http://purl.org/dc/elements/1.1/}"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
XMP_WORD, XMP_TAG = "XML:com.adobe.xmp", 700
CAPTION, KEYWORD, CHARSET = (2, 120), (2, 25), (1, 90)
IPTC_BEGINS = (b"\x1c\x01\x5a\0", b"\x1c\x02\0\0\x02", b"\x1c\x02\x78\0", b"\x1c\x02\x19\0")
DESCRIPTION, USER_COMMENT, XP_COMMENT, XP_TITLE, EXIF_FOLDER = 0x010E, 0x9286, 0x9C9C, 0x9C9B, 0x8769
PNG_WORDS = ("caption", "description", "parameters", "prompt", "dream", "comment", "title")
# what cameras and programs write where a person would describe the picture
NOISE = re.compile(
    r"(?:olympus|sony|samsung|kodak|minolta|digital still|default|dcim|screenshot|created with|processed with|software|"
    r"copyright|binary comment|lead technologies|file source|created by|edited with|gimp|creator: gd)\b.*",
    re.IGNORECASE | re.DOTALL,
)
NEGATIVE = re.compile(r"\n(?:Negative prompt:|Steps: \d).*", re.DOTALL)


def carried(data: bytes, name: str = "") -> dict[str, str]:
    """Where -> caption, for every place of an encoded picture that has one; the most particular first."""
    try:
        picture = open_header(data, name)
    except PictureError:
        return {}
    texts = dict(png_texts(data))
    found = {
        **xmp_captions(_xmp(picture, data, texts)),
        **iptc_captions(_iptc(picture, data, texts)),
        **exif_captions(picture, data),
        **{f"PNG {word}": texts[word] for rank in PNG_WORDS for word in texts if word.lower() == rank},
        **comment(picture),
    }
    told = {where: prompt_of(text) for where, text in found.items()}
    return {where: text for where, text in told.items() if text and is_text(text) and not NOISE.fullmatch(text)}


def prompt_of(text: str) -> str:
    """The text in one line; of a generation program's parameters the prompt, of its workflow nothing."""
    text = NEGATIVE.sub("", f"\n{text}".replace("\r\n", "\n")) if "Steps: " in text else text
    text = " ".join(text.replace("\0", " ").split())
    return "" if text.startswith(("{", "[{")) else text


# XMP


def _xmp(picture: Image.Image, data: bytes, texts: dict[str, str]) -> str:
    """The XMP packet, wherever the format keeps it."""
    if XMP_WORD in texts:
        return texts[XMP_WORD]
    packet = picture.info.get("xmp") or getattr(picture, "tag_v2", {}).get(XMP_TAG) or raw_profile(texts, "xmp")
    if isinstance(packet, tuple):
        packet = bytes(packet)
    if isinstance(packet, bytes):
        packet = packet[:MAX_TEXT].decode(errors="replace")
    return packet if isinstance(packet, str) else ""


def xmp_captions(packet: str) -> dict[str, str]:
    """dc:description (of several languages the default), dc:title and the keywords of dc:subject."""
    start, end = packet.find("<"), packet.rfind(">") + 1
    if start < 0 or len(packet) > MAX_TEXT or "<!DOCTYPE" in packet or "<!ENTITY" in packet:
        return {}
    try:
        root = ElementTree.fromstring(packet[start:end])  # no DOCTYPE, so no entities
    except ElementTree.ParseError:
        return {}
    found = {"XMP description": _text_of(root, f"{DC}description"), "XMP title": _text_of(root, f"{DC}title")}
    subject = root.find(f".//{DC}subject")
    if subject is not None:
        found["XMP keywords"] = ", ".join(filter(None, (each.text for each in subject.iter(f"{RDF}li"))))
    ranked = ("XMP description", "XMP keywords", "XMP title")
    return {where: found[where] for where in ranked if found.get(where)}


def _text_of(root: ElementTree.Element, name: str) -> str:
    """The text of a property: a list of languages, plain text, or an attribute."""
    element = root.find(f".//{name}")
    if element is None:
        return next((each.get(name, "") for each in root.iter(f"{RDF}Description") if each.get(name)), "")
    items = list(element.iter(f"{RDF}li"))
    default = [item for item in items if item.get(LANGUAGE) == "x-default"]
    return next((item.text for item in (*default, *items) if item.text), element.text or "") or ""


# IPTC


def _iptc(picture: Image.Image, data: bytes, texts: dict[str, str]) -> bytes:
    """The IPTC records of a JPEG's or PNG's Photoshop block, or of a TIFF's tag."""
    block = picture.info.get("photoshop")
    stored: Any = block.get(0x0404) if isinstance(block, dict) else None
    if isinstance(stored, bytes):
        return stored
    if picture.format == "TIFF":  # as four-byte numbers, of which Pillow keeps the first
        begins = [at for at in map(data.find, IPTC_BEGINS) if at >= 0]
        return data[min(begins) :][:MAX_TEXT] if begins else b""
    return raw_profile(texts, "iptc")


def iptc_captions(data: bytes) -> dict[str, str]:
    """The caption (2:120) and the keywords (2:25) of IPTC records; also of Photoshop's block around them."""
    start = data.find(b"8BIM\x04\x04")
    at = data.find(b"\x1c", max(start, 0))
    found: dict[tuple[int, int], list[bytes]] = {}
    while at >= 0 and at + 5 <= len(data) and data[at] == 0x1C:
        kind, size = (data[at + 1], data[at + 2]), int.from_bytes(data[at + 3 : at + 5], "big")
        if size > 0x7FFF:  # a longer text, which no caption is
            break
        found.setdefault(kind, []).append(data[at + 5 : at + 5 + size])
        at += 5 + size
    utf8 = any(value.startswith(b"\x1b%G") for value in found.get(CHARSET, ()))
    captions = {"IPTC caption": found.get(CAPTION, [])[:1], "IPTC keywords": found.get(KEYWORD, [])}
    return {where: ", ".join(_decoded(value, utf8) for value in values) for where, values in captions.items() if values}


def _decoded(text: bytes, utf8: bool = True) -> str:
    """UTF-8 where it is that, else Windows' Latin letters."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode(errors="replace") if utf8 else text.decode("cp1252", errors="replace")


# EXIF


def exif_captions(picture: Image.Image, data: bytes) -> dict[str, str]:
    """ImageDescription, UserComment, and what Windows writes as comment and title."""
    try:
        exif = picture.getexif() if picture.format != "PNG" else _png_exif(data)
        inner = exif.get_ifd(EXIF_FOLDER)
        found = {
            "EXIF ImageDescription": _ascii(exif.get(DESCRIPTION)),
            "EXIF UserComment": user_comment(inner.get(USER_COMMENT), exif.endian or "<"),
            "EXIF XPComment": _wide(exif.get(XP_COMMENT)),
            "EXIF XPTitle": _wide(exif.get(XP_TITLE)),
        }
    except Exception:  # whatever broken EXIF data raise
        return {}
    return {where: text for where, text in found.items() if text}


def _png_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    stored = next((data[start + 8 : end - 4] for name, start, end in chunks(data) if name == b"eXIf"), b"")
    stored = stored or raw_profile(dict(png_texts(data)), "exif") or raw_profile(dict(png_texts(data)), "APP1")
    if stored:
        exif.load(stored)
    return exif


def _ascii(value: Any) -> str:
    """A text of EXIF: Pillow reads it as Latin-1, programs write UTF-8 too."""
    if isinstance(value, str):
        text = value
        try:
            value = text.encode("latin-1")
        except UnicodeEncodeError:
            return text[:MAX_TEXT]
    return _decoded(value[:MAX_TEXT], utf8=False) if isinstance(value, bytes) else ""


def user_comment(value: Any, endian: str) -> str:
    """The text of a UserComment: eight bytes say how it is written. UTF-16 is of the file's byte order, or is not."""
    if not isinstance(value, bytes) or len(value) <= 8:
        return value if isinstance(value, str) else ""
    code, text = value[:8], value[8 : 8 + MAX_TEXT]
    if code != b"UNICODE\0":
        return _decoded(text if code in (b"ASCII\0\0\0", bytes(8), b"JIS\0\0\0\0\0") else value[:MAX_TEXT], utf8=False)
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", errors="replace")
    little, big = (text.decode(kind, errors="replace") for kind in ("utf-16-le", "utf-16-be"))
    usual = [sum(letter < "\u0250" for letter in each) for each in (little, big)]  # Latin: programs differ in the order
    return little if usual[0] > usual[1] or (usual[0] == usual[1] and endian == "<") else big


def _wide(value: Any) -> str:
    value = bytes(value) if isinstance(value, tuple) else value
    return value[:MAX_TEXT].decode("utf-16-le", errors="replace").rstrip("\0") if isinstance(value, bytes) else ""


# PNG text, and comments


def png_texts(data: bytes) -> Iterator[tuple[str, str]]:
    """(keyword, text) of every tEXt, zTXt and iTXt chunk of a PNG, before and after the pixels."""
    for name, start, end in chunks(data):
        if name in (b"tEXt", b"zTXt", b"iTXt"):
            word, _, rest = data[start + 8 : end - 4].partition(b"\0")
            text = _READ[name](rest)
            if text is not None and len(text) <= MAX_TEXT:
                yield word.decode("latin-1"), text


def _packed_text(rest: bytes) -> str | None:
    text = inflated(rest[1:], MAX_TEXT)
    return None if text is None else _decoded(text, utf8=False)


def _international(rest: bytes) -> str | None:
    text: bytes | None = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if rest[:1] == b"\1":
        text = inflated(text or b"", MAX_TEXT)
    return None if text is None else text.decode(errors="replace")


_READ: dict[bytes, Callable[[bytes], str | None]] = {
    b"tEXt": lambda rest: _decoded(rest, utf8=False),
    b"zTXt": _packed_text,
    b"iTXt": _international,
}


def raw_profile(texts: dict[str, str], kind: str) -> bytes:
    """What ImageMagick keeps of other formats' metadata in a PNG: hexadecimal digits in a text."""
    parts = texts.get(f"Raw profile type {kind}", "").split("\n", 3)
    try:
        return bytes.fromhex(parts[3]) if len(parts) == 4 else b""
    except ValueError:
        return b""


def comment(picture: Image.Image) -> dict[str, str]:
    """The comment of a JPEG or GIF."""
    stored = picture.info.get("comment")
    text = _decoded(stored[:MAX_TEXT], utf8=False) if isinstance(stored, bytes) else ""
    return {"comment": text} if text else {}
