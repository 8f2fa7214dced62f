"""What kind of file is this? By the end of its name, and where that is unknown by its first bytes.

In: a name, and for an unknown one where the file lies. Out: a kind; of a picture that cannot be used, one sentence.
"""

import os

from ...decoding import SUFFIXES, UNREADABLE_SUFFIXES
from .. import metadata

PICTURE, CAPTION, TABLE, OTHER = "picture", "caption", "table", "other"
USUAL = SUFFIXES[:10]  # enough to name in a sentence
CAPTIONS = (".txt", ".caption", ".cap")  # of two beside a picture the first counts
ARCHIVES = (".zip", ".tar")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")
RAW = (
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 "
    ".rwl .sr2 .srf .srw .x3f"
)
DRAWING = ".ai .cdr .emf .eps .pdf .ps .svg .svgz .wmf"
LAYERED = ".afphoto .clip .kra .mdp .ora .pdn .procreate .psb .psd .sai .sai2 .xcf"
VIDEO = ".3gp .avi .flv .gifv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv"
RARE = (
    ".bpg .cur .dcm .dds .exr .fit .fits .flif .hdr .icns .ico .iff .jls .jxr .pam .pcx .pfm .pict .qoi .ras .sgi .wdp "
    ".xbm .xpm"
)
NONE = (  # of no picture, so that nobody needs to look inside
    ".md .rst .json .jsonl .csv .tsv .yaml .yml .toml .xml .html .htm .css .js .ts .log .ini .cfg .conf .lock .db "
    ".sqlite .url .lnk .py .pyc .ipynb .sh .bat .ps1 .rtf .doc .docx .xls .xlsx .odt .zip .tar .gz .tgz .bz2 .xz .zst "
    ".7z .rar .npy .npz .pt .pth .ckpt .safetensors .bin .onnx .gguf .pkl .parquet .arrow .feather .h5 .index .idx "
    ".xmp .aae .thm .mp3 .wav .flac .ogg .m4a .srt .vtt .ttf .otf"
)
UNREADABLE = "{name} is in a format that cannot be read: save it as JPEG, PNG or WebP."
SENTENCES = {  # of what somebody may take for a picture of the set
    RAW: "{name} is a camera's raw file, in a format that cannot be read: develop it to JPEG, PNG or TIFF.",
    VIDEO: "{name} is a video, in a format that cannot be read: save frames of it as JPEG, PNG or WebP.",
    DRAWING: UNREADABLE,
    LAYERED: UNREADABLE,
    RARE: UNREADABLE,
}
# the first bytes of a file, from which place on -> what it is, and how its name should end
SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG", ".jpg"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG", ".png"),
    (0, b"GIF8", "GIF", ".gif"),
    (8, b"WEBP", "WebP", ".webp"),
    (0, b"II*\0", "TIFF", ".tif"),
    (0, b"MM\0*", "TIFF", ".tif"),
    (4, b"ftypavi", "AVIF", ".avif"),
    (4, b"ftyphei", "HEIC", ".heic"),
    (4, b"ftypmif1", "HEIC", ".heic"),
    (0, b"\xff\x0a", "JPEG XL", ".jxl"),
    (4, b"JXL \r\n\x87\n", "JPEG XL", ".jxl"),
    (4, b"jP  \r\n\x87\n", "JPEG 2000", ".jp2"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000", ".j2k"),
    (0, b"8BPS", "Photoshop", ".psd"),
)
LONGEST = 16  # bytes to tell by


def _kinds() -> dict[str, str]:
    """Every known end of a name -> PICTURE, CAPTION, TABLE, OTHER, or the sentence about a picture of no use."""
    known = dict.fromkeys(NONE.split(), OTHER)
    known |= {suffix: sentence for suffixes, sentence in SENTENCES.items() for suffix in suffixes.split()}
    known |= dict.fromkeys(UNREADABLE_SUFFIXES, UNREADABLE) | {suffix: known[suffix] for suffix in RAW.split()}
    known |= dict.fromkeys((os.path.splitext(name)[1] for name in metadata.NAMES), TABLE)
    return known | dict.fromkeys(CAPTIONS, CAPTION) | dict.fromkeys(SUFFIXES, PICTURE)


KINDS = _kinds()
LOOKED_AT = (*SUFFIXES, *(suffix for suffix, kind in KINDS.items() if kind not in (PICTURE, CAPTION, TABLE, OTHER)))


def ending(name: str) -> str:
    """The end of a file's name from its last full stop, in small letters; "" where there is none."""
    at = name.rfind(".")
    return name[at:].lower() if at > 0 else ""


def hidden_picture(path: str, name: str) -> str | None:
    """What is wrong with a file of unknown suffix that holds a picture all the same; None when it holds none."""
    try:
        with open(path, "rb") as file:
            start = file.read(LONGEST)
    except OSError:
        return None
    for at, mark, kind, suffix in SIGNATURES:
        if start.startswith(mark, at):
            return f"{name} holds a {kind} picture, which its name does not say: let it end with {suffix}."
    return None
