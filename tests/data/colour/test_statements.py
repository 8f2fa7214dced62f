"""What files say of their colours: the table of PNG's chunks and their rank, doubts, HDR, and what Pillow refuses."""

import io
import logging
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from sdxl_nb.audit.measures import measure, read_header
from sdxl_nb.data.colour import chunks, profiles
from sdxl_nb.data.decoding import PictureError, colours_of, decode, open_header

PICTURES = Path(__file__).parent.parent / "pictures"
STORED = (200, 100, 50)
P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
SRGB = (0.3127, 0.329, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
LINEAR = profiles.of_gamma(1.0)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(pixels, *more, colour=2, depth=8):
    """A PNG of one row of pixels with these chunks before them."""
    pixels = np.asarray(pixels, ">u2" if depth == 16 else np.uint8)
    header = struct.pack(">IIBBBBB", len(pixels), 1, depth, colour, 0, 0, 0)
    image = chunk(b"IDAT", zlib.compress(b"\0" + pixels.tobytes()))
    return chunks.SIGNATURE + chunk(b"IHDR", header) + b"".join(more) + image + chunk(b"IEND", b"")


def gamma(value):
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def points(values):
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values)))


def cicp(*values):
    return chunk(b"cICP", bytes(values))


def icc(profile):
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


def grey_profile(exponent=1.0):
    """A grey profile of version 2 with a gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    table, body = struct.pack(">I", 2), b""
    for name, content in ((b"wtpt", white), (b"kTRC", curve + bytes(2))):
        table += name + struct.pack(">II", 132 + 24 + len(body), len(content))
        body += content
    kind = struct.pack(">4xI4s4s4s12x4s28x3i", 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp", 63190, 65536, 54061)
    return struct.pack(">I", 132 + 24 + len(body)) + kind.ljust(124, b"\0") + table + body


INTENT = chunk(b"sRGB", b"\0")
BROKEN = icc(b"no profile at all" * 20)
MISFIT = icc(grey_profile())

# What Chromium 156 shows of (200, 100, 50), read back from an sRGB canvas; for what profiles hold LittleCMS agrees.
SEEN = [
    ("no chunk", [], STORED),
    # gAMA alone: within 5 % of a screen's it means sRGB
    ("gAMA 1", [gamma(1)], (229, 168, 122)),
    ("gAMA 0.3", [gamma(0.3)], (178, 59, 14)),
    ("gAMA 0.43", [gamma(0.43)], (199, 95, 41)),
    ("gAMA 0.44", [gamma(0.44)], STORED),
    ("gAMA 0.45455", [gamma(0.45455)], STORED),
    ("gAMA 0.47", [gamma(0.47)], STORED),
    ("gAMA 0.48", [gamma(0.48)], (204, 105, 51)),
    ("gAMA 0.55", [gamma(0.55)], (210, 118, 64)),
    ("gAMA 2.2", [gamma(2.2)], (243, 211, 184)),
    ("gAMA 0", [gamma(0)], STORED),
    ("the first of two gAMA", [gamma(1), gamma(0.45455)], (229, 168, 122)),
    # cHRM, alone and with gAMA, whose curve is then a true power
    ("cHRM alone", [points(P3)], STORED),
    ("cHRM and gAMA 0.45455", [gamma(0.45455), points(P3)], (216, 93, 24)),
    ("cHRM and gAMA 1", [gamma(1), points(P3)], (240, 165, 114)),
    ("cHRM of sRGB and gAMA", [gamma(0.45455), points(SRGB)], (201, 100, 46)),
    ("cHRM of another white", [gamma(0.45455), points((0.3457, 0.3585, *SRGB[2:]))], (209, 101, 53)),
    ("cHRM of nothing", [gamma(1), points((0,) * 8)], STORED),
    ("cHRM beyond 1", [gamma(0.5), points((0.3127, 0.329, 2, *SRGB[3:]))], STORED),
    ("cHRM on a line", [gamma(0.5), points((*SRGB[:4], *SRGB[2:4], *SRGB[6:]))], STORED),
    # sRGB outranks gAMA and cHRM
    ("sRGB before gAMA", [INTENT, gamma(1)], STORED),
    ("gAMA before sRGB", [gamma(1), points(P3), INTENT], STORED),
    # iCCP outranks those; one that cannot be used leaves it to them, one of other colours does not
    ("iCCP", [icc(LINEAR)], (229, 168, 122)),
    ("iCCP and sRGB", [INTENT, icc(LINEAR), gamma(0.45455)], (229, 168, 122)),
    ("broken iCCP", [BROKEN], STORED),
    ("broken iCCP and gAMA 1", [BROKEN, gamma(1)], (229, 168, 122)),
    ("broken iCCP, sRGB and gAMA 1", [BROKEN, INTENT, gamma(1)], STORED),
    ("grey iCCP and gAMA 1", [MISFIT, gamma(1)], STORED),
    ("iCCP of 3 MB", [icc(LINEAR + bytes(3_000_000))], (229, 168, 122)),
    # cICP outranks all; numbers that mean nothing leave it to the others
    ("cICP of P3", [cicp(12, 13, 0, 1)], (215, 93, 31)),
    ("cICP of sRGB and all others", [cicp(1, 13, 0, 1), icc(LINEAR), INTENT, gamma(1)], STORED),
    ("iCCP before cICP", [icc(LINEAR), cicp(12, 13, 0, 1)], (215, 93, 31)),
    ("cICP unknown", [cicp(3, 13, 0, 1), gamma(1)], (229, 168, 122)),
    ("cICP unspecified", [cicp(12, 2, 0, 1)], STORED),
    ("cICP logarithmic", [cicp(12, 9, 0, 1), gamma(1)], (229, 168, 122)),
    ("cICP of narrow range", [cicp(1, 13, 0, 0)], STORED),
    ("cICP cut", [chunk(b"cICP", b"\x0c\x0d")], STORED),
    *((f"cICP primaries {n}", [cicp(n, 13, 0, 1)], seen) for n, seen in {
        4: (232, 93, 30), 5: (203, 100, 51), 6: (196, 102, 49), 7: (196, 102, 49), 8: (222, 92, 32), 9: (241, 76, 29),
        10: (255, 0, 61), 11: (211, 93, 32), 22: (202, 102, 49)}.items()),
    *((f"cICP transfer {n}", [cicp(1, n, 0, 1)], seen) for n, seen in {
        1: (197, 91, 39), 4: (201, 100, 46), 5: (189, 76, 26), 6: (197, 91, 39), 7: (206, 115, 68), 8: (229, 168, 122),
        11: (197, 91, 39), 14: (197, 91, 39), 15: (197, 91, 39), 17: (200, 87, 34)}.items()),
    # cut short, which Pillow refuses whole files for
    ("gAMA cut", [chunk(b"gAMA", b"\0")], STORED),
    ("cHRM cut", [chunk(b"cHRM", bytes(8)), gamma(1)], (229, 168, 122)),
    ("sRGB cut", [chunk(b"sRGB", b""), icc(LINEAR)], (229, 168, 122)),
    ("iCCP of another packing", [chunk(b"iCCP", b"x\0\1zzzz")], STORED),
]  # fmt: skip


@pytest.mark.parametrize("more, seen", [row[1:] for row in SEEN], ids=[row[0] for row in SEEN])
def test_a_png_is_what_its_chunks_say_in_their_rank(more, seen):
    found = decode(png([STORED], *more), "x").getpixel((0, 0))
    assert found == pytest.approx(seen, abs=1)


GREYS = [  # 100 as Chromium 156 shows it
    ("gAMA", [gamma(1)], 168),
    ("cICP", [cicp(12, 8, 0, 1)], 168),
    ("a grey profile", [icc(grey_profile(1.8))], 119),
    ("a profile of colours", [icc(LINEAR)], 168),
]


@pytest.mark.parametrize("more, seen", [row[1:] for row in GREYS], ids=[row[0] for row in GREYS])
@pytest.mark.parametrize("colour, depth", [(0, 8), (0, 16), (4, 8), (4, 16)])
def test_grey_has_colours_too(more, seen, colour, depth):
    unit = 257 if depth == 16 else 1
    value = [100 * unit] + [255 * unit] * (colour == 4)
    found = decode(png([value], *more, colour=colour, depth=depth), "x").getpixel((0, 0))
    assert found == pytest.approx((seen,) * 3, abs=1)


@pytest.mark.parametrize("photometric, seen", [("miniswhite", [255, 155, 0]), ("minisblack", [0, 100, 255])])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_tiff_may_have_0_for_white(photometric, seen, depth):
    """TIFF 6.0, PhotometricInterpretation; Pillow heeds it at 8 bits alone."""
    values = np.array([[0, 100, 255]], np.uint8) if depth == 8 else np.array([[0, 25700, 65535]], np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric=photometric)
    assert np.asarray(decode(file.getvalue(), "x"))[0, :, 0].tolist() == seen


def test_palettes_are_moved_and_grey_profiles_do_not_fit_them():
    palette = chunk(b"PLTE", bytes(STORED))
    assert decode(png([[0]], icc(LINEAR), palette, colour=3), "x").getpixel((0, 0)) == (229, 168, 122)
    assert decode(png([[0]], MISFIT, palette, colour=3), "x").getpixel((0, 0)) == STORED


def test_transparency_is_laid_on_white_after_colours_are_moved():
    """Half of linear (200, 100, 50) on white, as Chromium composes it: in sRGB. A keyed colour is transparent too."""
    assert decode(png([[*STORED, 128]], icc(LINEAR), colour=6), "x").getpixel((0, 0)) == (242, 211, 188)
    keyed = png([STORED], icc(LINEAR), chunk(b"tRNS", struct.pack(">3H", *STORED)))
    assert decode(keyed, "x").getpixel((0, 0)) == (255, 255, 255)
    deep = png([[1000], [2000]], chunk(b"tRNS", struct.pack(">H", 2000)), colour=0, depth=16)
    assert [decode(deep, "x").getpixel((x, 0))[0] for x in (0, 1)] == [4, 255]


def light(values):
    """What linear light from 0 to 1 is in sRGB (IEC 61966-2-1), unrounded."""
    return 255 * np.where(values <= 0.0031308, 12.92 * values, 1.055 * np.maximum(values, 1e-9) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
@pytest.mark.parametrize("said", [[gamma(1)], [cicp(1, 8, 0, 1)]], ids=["gAMA", "cICP"])
def test_sixteen_bits_of_linear_light_keep_their_darks(colour, said):
    """Chromium cuts them to 8 bits and shows steps of 13; the right values are the standard's own."""
    draw = np.random.default_rng(0)
    values = draw.integers(0, 65536, (500, {0: 1, 2: 3, 4: 2, 6: 4}[colour])) >> draw.integers(0, 14, (500, 1))
    if colour in (4, 6):
        values[:, -1] = 65535
    seen = np.asarray(decode(png(values, *said, colour=colour, depth=16), "x"))[0]
    bands = values[:, :3] if colour in (2, 6) else values[:, :1]
    assert np.abs(seen - light(bands / 65535)).max() < 1.3


@pytest.mark.parametrize(
    "kind, more", [("PQ", cicp(9, 16, 0, 1)), ("HLG", cicp(9, 18, 0, 1)), ("PQ", cicp(2, 16, 0, 1))]
)
def test_hdr_is_refused_with_a_remedy(kind, more):
    data = png([STORED], more, icc(LINEAR))
    said = rf"^x is an HDR picture \({kind}\), whose brightness sRGB cannot hold: export it as SDR, in sRGB\.$"
    for look in (decode, read_header, lambda data, name: measure(data, name, 64)):
        with pytest.raises(PictureError, match=said):
            look(data, "x")


def test_a_profile_that_says_pq_is_hdr():
    """ICC 4.4's cicp tag, as libjxl writes it: here put in place of a copyright."""
    profile = bytearray(LINEAR)
    entry = profile.index(b"cprt")
    at = int.from_bytes(profile[entry + 4 : entry + 8], "big")
    profile[entry : entry + 4], profile[at : at + 12] = b"cicp", b"cicp" + bytes(4) + bytes([9, 16, 0, 1])
    with pytest.raises(PictureError, match=r"is an HDR picture \(PQ\)"):
        decode(png([STORED], icc(bytes(profile))), "x")


DOUBTS = [
    ("broken profile", [BROKEN], r"its colour profile cannot be used \(.+\)"),
    ("profile of one channel", [MISFIT], "its colour profile is for GRAY, its pixels are RGB; taken as sRGB"),
    ("cICP of YCbCr", [cicp(12, 13, 1, 1)], "its cICP chunk 12/13/1/1 is passed over"),
    ("narrow range", [cicp(1, 13, 0, 0)], "its cICP chunk says narrow range; taken as full, as browsers do"),
    ("cHRM alone", [points(P3)], "its cHRM chunk has no gAMA and is passed over, as browsers do"),
    ("cHRM of nothing", [gamma(1), points((0,) * 8)], "its cHRM chunk spans no colours and is passed over with gAMA"),
]


@pytest.mark.parametrize("more, said", [row[1:] for row in DOUBTS], ids=[row[0] for row in DOUBTS])
def test_what_is_not_honoured_is_said(more, said, caplog):
    data = png([STORED], *more)
    assert read_header(data, "x").colours and measure(data, "x", 64).header.colours == read_header(data, "x").colours
    with caplog.at_level(logging.WARNING):
        decode(data, "x")
    assert re.fullmatch(rf"x: {said}\.", caplog.messages[-1])


@pytest.mark.parametrize(
    "more", [[], [gamma(0.45455), points(SRGB)], [points(SRGB)], [icc(LINEAR)], [INTENT], [cicp(12, 13, 0, 1)]]
)
def test_what_is_honoured_raises_no_doubt(more):
    assert read_header(png([STORED], *more), "x").colours == ""


def test_exif_alone_is_passed_over_as_browsers_do_but_said():
    """Interoperability R03, as cameras that were set to Adobe RGB write it: here into a JPEG by exiftool."""
    jpeg = (PICTURES / "exiftool-r03.jpg").read_bytes()
    file = io.BytesIO()
    Image.new("RGB", (16, 16), STORED).save(file, "WEBP", exif=Image.open(io.BytesIO(jpeg)).info["exif"], lossless=True)
    for data in (jpeg, file.getvalue()):
        assert decode(data, "x").getpixel((8, 8)) == pytest.approx(STORED, abs=2)
        assert read_header(data, "x").colours == "EXIF alone says Adobe RGB; taken as sRGB, as browsers do"


def test_true_srgb_profiles_change_nothing():
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = png([STORED], icc(made))
    assert colours_of(open_header(data, "x"), data, "x").profile is None
    assert decode(data, "x").getpixel((0, 0)) == STORED


BULK = b"a" * 2_000_000
BULKY = {
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(BULK)),
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(BULK)),
    "plain iTXt": chunk(b"iTXt", b"workflow\0\0\0\0\0" + BULK),
    "tEXt": chunk(b"tEXt", b"workflow\0" + BULK),
    "many": chunk(b"zTXt", b"x\0\0" + zlib.compress(b"a" * 1_000_000)) * 40,
    "bomb": chunk(b"zTXt", b"x\0\0" + zlib.compress(b"a" * 200_000_000)),
}


@pytest.mark.parametrize("more", BULKY.values(), ids=BULKY)
@pytest.mark.parametrize("late", [False, True])
def test_a_valid_png_opens_however_much_text_it_holds(more, late):
    data = png([STORED], gamma(1), more)
    if late:  # ComfyUI and others write text behind the pixels
        data = png([STORED], gamma(1)).replace(chunk(b"IEND", b""), more + chunk(b"IEND", b""))
    assert decode(data, "x").getpixel((0, 0)) == (229, 168, 122)


def test_a_profile_beyond_any_bound_is_passed_over_and_said():
    data = png([STORED], icc(LINEAR + bytes(chunks.MAX_PROFILE)))
    assert decode(data, "x").getpixel((0, 0)) == STORED
    assert read_header(data, "x").colours.startswith("its colour profile cannot be used")


def test_nearly_every_png_is_opened_uncopied():
    data = png([STORED], gamma(1), icc(LINEAR), chunk(b"tEXt", b"parameters\0" + b"1girl " * 1000))
    assert chunks.openable(data) is data
