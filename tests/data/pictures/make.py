"""Pictures as other programs write them, and what a colour-managed viewer shows of them.

    python tests/data/pictures/make.py FOLDER          the small set that lies here, with reference.json beside it
    python tests/data/pictures/make.py --many FOLDER   460 files: every program with every profile, in 64 colours

Needs Debian's gimp, imagemagick, chromium, libimage-exiftool-perl, libavif-bin, libheif-examples, libjxl-tools,
liblcms2-utils, and the profiles of icc-profiles-free, colord-data and libgs-common. Of each file reference.json holds
the colours of the squares of `source()` as Chromium shows them ("chromium"), or as LittleCMS's tificc or transicc moves
them where Chromium opens no such file, cuts it to 8 bits or does not use its profile; null for HDR.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from playwright.sync_api import sync_playwright

SQUARES = [(200, 100, 50), (20, 20, 20), (128, 128, 128), (255, 0, 0), (10, 200, 230), (255, 255, 255), (5, 9, 3)]
SQUARES += [(60, 120, 40)]
SIDE = 16
ICC = Path("/usr/share/color/icc")
PROFILES = {  # what the small set uses
    "adobe": ICC / "compatibleWithAdobeRGB1998.icc",
    "lstar": ICC / "LStar-RGB.icc",
    "linear": ICC / "ghostscript" / "scrgb.icc",
    "srgb": ICC / "ghostscript" / "srgb.icc",
    "prophoto": ICC / "ghostscript" / "rommrgb.icc",
    "grey": ICC / "ghostscript" / "ps_gray.icc",
    "grey18": ICC / "Gray.icc",
    "cmyk": ICC / "ghostscript" / "ps_cmyk.icc",
}
PACKAGES = "gimp imagemagick chromium libimage-exiftool-perl libavif-bin libheif-examples libjxl-tools liblcms2-utils "
PACKAGES += "icc-profiles-free colord-data libgs9-common libgs-common"
HDR = ("pq", "hlg")  # in a name
FLAGS = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
CANVAS = """async ([kind, squares, side]) => {
  const canvas = new OffscreenCanvas(side * squares.length, side);
  const paper = canvas.getContext('2d', {colorSpace: 'display-p3'});
  squares.forEach((rgb, i) => {
    const levels = rgb.map(value => value / 255).join(' ');
    paper.fillStyle = `color(display-p3 ${levels})`; paper.fillRect(i * side, 0, side, side);
  });
  const bytes = new Uint8Array(await (await canvas.convertToBlob({type: kind, quality: 1})).arrayBuffer());
  return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(''));
}"""
READ = """async ([data, kind, side]) => {
  const image = new Image(); image.src = `data:${kind};base64,${data}`;
  try { await image.decode(); } catch (error) { return null; }
  const canvas = document.createElement('canvas');
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const paper = canvas.getContext('2d', {colorSpace: 'srgb', willReadFrequently: true});
  paper.fillStyle = 'white'; paper.fillRect(0, 0, canvas.width, canvas.height); paper.drawImage(image, 0, 0);
  const seen = [];
  for (let x = side / 2; x < canvas.width; x += side) {
    seen.push(Array.from(paper.getImageData(x, side / 2, 1, 1).data.slice(0, 3)));
  }
  return seen;
}"""
KINDS = {".jpg": "jpeg", ".tif": "tiff", ".heic": "heic"}


def source(folder: Path) -> Path:
    """Eight plain squares in a row, as a PNG without any chunk about colours."""
    strip = np.array([SQUARES], np.uint8).repeat(SIDE, 0).repeat(SIDE, 1)
    Image.fromarray(strip).save(folder / "source.png")
    return folder / "source.png"


def run(*words: Any) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def chromium(read: Callable[..., Any], goal: Path) -> None:
    """The canvas of a wide-gamut page, saved."""
    for kind in ("png", "jpeg", "webp"):
        written = read.page.evaluate(CANVAS, [f"image/{kind}", SQUARES, SIDE])
        (goal / f"chromium-p3.{kind.replace('jpeg', 'jpg')}").write_bytes(base64.b64decode(written))


SAVE = {
    "png": '(file-png-save 1 image d "{0}" "x" 0 9 0 0 0 0 0)',
    "jpg": '(file-jpeg-save 1 image d "{0}" "x" 1.0 0 1 0 "" 0 1 0 0)',
    "tif": '(file-tiff-save 1 image d "{0}" "x" 1)',
    "webp": '(file-webp-save 1 image d "{0}" "x" 0 1 90 90 0 0 0 0 0 0 0 0 0)',
}


def gimp(start: Path, goal: Path, wanted: dict[str, list[str]]) -> None:
    """GIMP in batch mode: a list of files to save after each of these steps, from the start each time."""
    script = ""
    for steps, names in wanted.items():
        saved = " ".join(SAVE[name.rpartition(".")[2]].format(goal / name) for name in names)
        script += f'(let* ((image (car (gimp-file-load 1 "{start}" "x")))) {steps} '
        script += f"(let ((d (car (gimp-image-get-active-drawable image)))) {saved}))"
    run("gimp", "-i", "-d", "-f", "-b", f"(begin {script})", "-b", "(gimp-quit 0)")


def to_profile(path: Path) -> str:
    return f'(gimp-image-convert-color-profile-from-file image "file://{path}" 1 0)'


LINEAR8, LINEAR16 = "(gimp-image-convert-precision image 100)", "(gimp-image-convert-precision image 200)"
DEEP, GREYS = "(gimp-image-convert-precision image 250)", "(gimp-image-convert-grayscale image)"


def few(goal: Path, read: Callable[..., Any]) -> None:
    """The set that lies in the repository: one of each kind, each below 20 KB."""
    start = source(goal)
    chromium(read, goal)
    wanted = {
        LINEAR8: ["gimp-linear.png", "gimp-linear.jpg", "gimp-linear.webp", "gimp-linear.tif"],
        LINEAR16: ["gimp-linear-16.png", "gimp-linear-16.tif"],
        to_profile(PROFILES["adobe"]): ["gimp-adobe.png", "gimp-adobe.jpg", "gimp-adobe.tif"],
        DEEP + to_profile(PROFILES["prophoto"]): ["gimp-prophoto-16.png", "gimp-prophoto-16.tif"],
        GREYS: ["gimp-grey.png", "gimp-grey.jpg"],
        LINEAR8 + GREYS: ["gimp-grey-linear.png"],
        LINEAR16 + GREYS: ["gimp-grey-linear-16.png", "gimp-grey-linear-16.tif"],
        '(gimp-image-convert-indexed image 0 0 16 0 0 "")': ["gimp-palette.png"],
    }
    gimp(start, goal, wanted)
    magick(start, goal)
    boxed(start, goal)
    shutil.copy(goal / "chromium-p3.jpg", goal / "exiftool-r03.jpg")
    tool = ("exiftool", "-overwrite_original")
    run(*tool, "-all=", "-ExifIFD:ColorSpace#=65535", "-InteropIFD:InteropIndex=R03", goal / "exiftool-r03.jpg")
    shutil.copy(start, goal / "exiftool-lstar.png")
    run(*tool, f"-icc_profile<={PROFILES['lstar']}", goal / "exiftool-lstar.png")
    shutil.copy(goal / "magick-plain.jpg", goal / "exiftool-adobe.jpg")
    run(*tool, f"-icc_profile<={PROFILES['adobe']}", goal / "exiftool-adobe.jpg")
    pillow(goal)


def magick(start: Path, goal: Path) -> None:
    """ImageMagick: gamma chunks, linear light, ink, Lab, palettes, transparency, profiles in every format."""
    inks = ("-profile", PROFILES["srgb"], "-profile", PROFILES["cmyk"])
    for name, options in {
        "magick-plain.jpg": ("-quality", 100, "-sampling-factor", "1x1"),
        "magick-gamma.png": ("-gamma", 0.6),
        "magick-linear.png": ("-colorspace", "RGB"),
        "magick-linear-16.png": (
            "-depth",
            16,
            "-colorspace",
            "RGB",
            "-define",
            "png:bit-depth=16",
            "-define",
            "png:color-type=2",
        ),
        "magick-grey-linear.png": ("-colorspace", "LinearGray"),
        "magick-adobe.png": ("-profile", PROFILES["srgb"], "-profile", PROFILES["adobe"]),
        "magick-palette-linear.png": ("-profile", PROFILES["linear"], "-type", "Palette"),
        "magick-alpha-linear.png": (
            "-alpha",
            "set",
            "-channel",
            "A",
            "-evaluate",
            "set",
            "50%",
            "+channel",
            "-profile",
            PROFILES["linear"],
        ),
        "magick-linear.bmp": ("-profile", PROFILES["linear"]),
        "magick-linear.webp": ("-define", "webp:lossless=true", "-profile", PROFILES["linear"]),
        "magick-linear.gif": ("-profile", PROFILES["linear"]),
        "magick-linear.jpg": ("-quality", 100, "-sampling-factor", "1x1", "-profile", PROFILES["linear"]),
        "magick-grey.jpg": ("-colorspace", "Gray", "-quality", 100, "-profile", PROFILES["grey18"]),
        "magick-grey.png": ("-colorspace", "Gray", "-profile", PROFILES["grey18"]),
        "magick-grey-of-rgb.jpg": ("-colorspace", "Gray", "-quality", 100, "-profile", PROFILES["linear"]),
        "magick-cmyk.jpg": (*inks, "-quality", 100),
        "magick-cmyk.tif": (*inks, "-compress", "LZW"),
        "magick-cmyk-16.tif": (*inks, "-depth", 16),
        "magick-cmyk-bare.jpg": ("-colorspace", "CMYK", "-quality", 100),
        "magick-lab.tif": ("-colorspace", "Lab", "-depth", 8),
        "magick-linear-16.tif": ("-depth", 16, "-profile", PROFILES["linear"], "-compress", "LZW", "-endian", "MSB"),
        "magick-prophoto-16.tif": ("-depth", 16, "-profile", PROFILES["prophoto"], "-compress", "LZW"),
    }.items():
        target = goal / name
        run("convert", start, *options, f"{FORMS.get(name, '')}{target}")


FORMS = {"magick-adobe.png": "PNG24:", "magick-linear.png": "PNG24:"}


def boxed(start: Path, goal: Path) -> None:
    """AVIF, HEIC and JPEG XL; the last two need plugins to be opened."""
    exact = ("avifenc", "--min", 0, "--max", 0, "-y", 444, "-s", 8)
    for name, codes in {
        "p3": "12/13",
        "2020": "9/13",
        "709": "1/1",
        "linear": "1/8",
        "pq": "9/16",
        "hlg": "9/18",
    }.items():
        run(*exact, "--cicp", f"{codes}/6", start, goal / f"avifenc-{name}.avif")
    run(*exact, "--icc", PROFILES["adobe"], "--cicp", "12/16/6", start, goal / "avifenc-icc.avif")
    run("convert", start, "-colorspace", "Gray", goal / "grey.png")
    run(*exact[:-4], "-y", 400, "--icc", PROFILES["grey18"], goal / "grey.png", goal / "avifenc-grey.avif")
    shutil.copy(start, goal / "adobe.png")
    run("exiftool", "-overwrite_original", f"-icc_profile<={PROFILES['adobe']}", goal / "adobe.png")
    for name, kind in (("heif-adobe.heic", ()), ("heif-adobe.avif", ("-A",))):
        run("heif-enc", "-q", 100, "-p", "chroma=444", *kind, goal / "adobe.png", "-o", goal / name)
    run("heif-convert", goal / "heif-adobe.heic", goal / "heif-adobe.png")  # what Chromium can show of it
    run("cjxl", goal / "adobe.png", goal / "cjxl-adobe.jxl", "-d", 0)
    run("cjxl", start, goal / "cjxl-p3.jxl", "-d", 0, "-x", "color_space=RGB_D65_DCI_Rel_SRG")
    run("cjxl", start, goal / "cjxl-pq.jxl", "-d", 0, "-x", "color_space=RGB_D65_202_Rel_PeQ")
    for name in ("grey.png", "adobe.png"):
        (goal / name).unlink()


def pillow(goal: Path) -> None:
    """Pillow: profiles that do not fit or are broken, and one of its own making."""
    strip = Image.open(goal / "source.png")
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in {
        "srgb": made,
        "broken": b"no profile at all" * 20,
        "wrong-count": PROFILES["grey"].read_bytes(),
        "cut": PROFILES["adobe"].read_bytes()[:300],
    }.items():
        strip.save(goal / f"pillow-{name}.png", icc_profile=profile)


def many(goal: Path, read: Callable[..., Any]) -> None:
    """Every profile in every format that programs put it into, and 56 colours more than the small set has."""
    SQUARES.extend(np.random.default_rng(0).integers(0, 256, (56, 3)).tolist())
    few(goal, read)
    start = goal / "source.png"
    run("convert", start, "-colorspace", "Gray", "-define", "png:color-type=0", goal / "grey-source.png")
    for path in sorted(ICC.rglob("*.icc")):
        profile, name = (
            ImageCms.ImageCmsProfile(str(path)).profile,
            "-".join(path.relative_to(ICC).with_suffix("").parts),
        )
        if profile.xcolor_space.strip() == "RGB" and profile.device_class != "nmcl":
            for end, more in {
                "png": (),
                "jpg": EXACT,
                "webp": ("-define", "webp:lossless=true"),
                "bmp": (),
                "tif": (),
            }.items():
                run("convert", start, "-profile", path, *more, goal / f"magick-{name}.{end}")
            run("convert", start, "-profile", path, "-depth", 16, "-compress", "None", goal / f"magick-{name}-16.tif")
            run(
                "avifenc",
                "--min",
                0,
                "--max",
                0,
                "-y",
                444,
                "-s",
                8,
                "--icc",
                path,
                start,
                goal / f"avifenc-{name}.avif",
            )
        if profile.xcolor_space.strip() == "GRAY":
            for end in ("png", "jpg", "tif"):
                run("convert", goal / "grey-source.png", "-profile", path, *EXACT, goal / f"magick-{name}.{end}")
    inks = ("-profile", PROFILES["srgb"], "-profile", ICC / "ghostscript" / "default_cmyk.icc")
    run("convert", start, *inks, "-quality", 100, goal / "magick-print-cmyk.jpg")
    run("convert", start, *inks, "-compress", "LZW", goal / "magick-print-cmyk.tif")
    for gamma in range(30, 230, 10):
        run("convert", start, "-gamma", gamma / 100, goal / f"magick-gamma-{gamma}.png")
    for primaries in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22):
        for transfer in (1, 4, 5, 6, 7, 8, 13, 14, 15):
            run(
                "avifenc",
                "--min",
                0,
                "--max",
                0,
                "-y",
                444,
                "-s",
                10,
                "--cicp",
                f"{primaries}/{transfer}/6",
                start,
                goal / f"avifenc-{primaries}-{transfer}.avif",
            )


EXACT = ("-quality", 100, "-sampling-factor", "1x1")


def by_tificc(path: Path) -> list[list[int]]:
    """The squares as LittleCMS's own program moves them, by the file's profile, from what ImageMagick reads."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.tif"), Path(folder, "after.tif")
        precise = () if "cmyk" in path.name else ("-c0",)  # optimised, LittleCMS is 10 levels off in dark greys
        run("convert", path, "-compress", "None", before)
        run("tificc", "-e", "-t0", "-w8", *precise, before, after)
        seen = np.asarray(Image.open(after).convert("RGB"))
    return seen[SIDE // 2, SIDE // 2 :: SIDE].tolist()


def by_transicc(path: Path) -> list[list[int]]:
    """The squares of a Lab TIFF of 8 bits, signed, as LittleCMS's own program moves them."""
    stored = np.asarray(Image.open(path))[SIDE // 2, SIDE // 2 :: SIDE].astype(int)
    lines = "".join(
        f"{lightness / 2.55} {(a + 128) % 256 - 128} {(b + 128) % 256 - 128}\n" for lightness, a, b in stored
    )
    words = ("transicc", "-n", "-i*Lab", "-o*sRGB", "-t0", "-c0")
    moved = subprocess.run(words, input=lines, capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in moved.splitlines() if line.strip()]
    return [[min(max(round(float(value)), 0), 255) for value in line] for line in lines]


def reference(path: Path, read: Callable[..., Any]) -> dict[str, Any]:
    """What the file's colours are, and who says so."""
    if path.suffix == ".heic":
        return reference(path.with_suffix(".png"), read)
    if any(mark in path.stem.split("-") for mark in HDR):
        return {"by": None, "squares": None}
    if path.name.endswith("-16.png") and "magick" in path.name:
        return {"by": "source", "squares": SQUARES}  # Chromium cuts linear light to 8 bits; tificc knows no gAMA
    if "lab" in path.name:
        return {"by": "transicc", "squares": by_transicc(path)}
    unused = ("cmyk" in path.name and "bare" not in path.name) or "CIE_L" in path.name  # as Chromium treats them
    deep = path.name.endswith("-16.png")
    seen = None if unused or deep else read(path)
    return {"by": "chromium", "squares": seen} if seen else {"by": "tificc", "squares": by_tificc(path)}


def versions() -> dict[str, str]:
    found = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES.split()],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    from PIL import __version__

    return dict(line.split(" ", 1) for line in found.splitlines() if " " in line.strip()) | {"pillow": __version__}


def main(folder: str, make: Callable[..., None]) -> None:
    goal = Path(folder).resolve()
    goal.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page()

        def read(path: Path) -> list[list[int]] | None:
            kind = KINDS.get(path.suffix, path.suffix[1:])
            return page.evaluate(READ, [base64.b64encode(path.read_bytes()).decode(), f"image/{kind}", SIDE])

        read.page = page
        make(goal, read)
        files = sorted(path for path in goal.iterdir() if path.suffix not in (".py", ".json"))
        seen = {path.name: reference(path, read) for path in files}
        browser.close()
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(what)}" for name, what in seen.items())
    (goal / "reference.json").write_text(f"{{\n{lines}\n}}\n")
    (goal / "versions.json").write_text(json.dumps(versions(), indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[-1], many if "--many" in sys.argv else few)
