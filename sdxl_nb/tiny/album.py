"""An album to practise on: a folder of drawn pictures of many shapes with captions, as people really bring them.

In: a folder. Out: sixteen good pictures with a caption beside each, and, if asked for, ten with a fault each, named
after it. Drawn anew at every call, the same each time; nothing is downloaded.
"""

import random
import shutil
from pathlib import Path

from PIL import Image, ImageFilter

from .draw import SIDE, Scene, caption, draw, place, random_thing

# width, height
SIZES = ((384, 384), (512, 384), (384, 512), (576, 384), (640, 360), (360, 640), (400, 320), (320, 448))
ENLARGED = 6  # pixels of a picture for one of its drawing


def write_album(folder: str | Path, faults: bool = False) -> Path:
    """Write the album into `folder`, replacing one that is there; returns the folder.

    Raises FileExistsError when the folder holds anything else.
    """
    folder, rng = Path(folder), random.Random(7)
    if folder.exists() and not (folder / ".album").is_file() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds files that are no album: choose another folder.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / ".album").touch()
    for number in range(16):
        scene = one_thing(rng)
        _store(folder, f"{number:02d}.jpg", painted(scene, SIZES[number % len(SIZES)]), caption(scene, rng))
    if faults:
        add_faults(folder, rng)
    return folder


def one_thing(rng: random.Random) -> Scene:
    """A scene with one thing in it, on a ground of another colour."""
    thing = place(random_thing(rng, detailed=True), rng)
    background = rng.choice([colour for colour in ("white", "yellow", "green", "blue") if colour != thing.colour])
    return Scene((thing,), background)


def painted(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """The scene on a canvas of (width, height), its thing where it would be in the square."""
    small = tuple(round(side / ENLARGED) for side in size)
    offset = ((small[0] - SIDE) / 2, (small[1] - SIDE) / 2)
    return draw(scene, small, offset).resize(size, Image.Resampling.LANCZOS)


def add_faults(folder: Path, rng: random.Random) -> None:
    """One picture for each thing that goes wrong most often."""
    good = {name: painted(one_thing(rng), (384, 384)) for name in ("blurred", "rotated", "transparent", "long-caption")}
    _store(folder, "blurred.jpg", good["blurred"].filter(ImageFilter.GaussianBlur(16)), "a drawing out of focus")
    _store(folder, "blank.png", Image.new("RGB", (384, 384), "white"), "a white picture")
    _store(folder, "small.png", good["rotated"].resize((40, 40)), "a small drawing")
    _store(folder, "panorama.jpg", painted(one_thing(rng), (1200, 200)), "a wide drawing")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right by the camera
    good["rotated"].save(folder / "rotated.jpg", exif=exif)
    _caption(folder, "rotated", "a drawing that lies on its side")
    layer = good["transparent"].convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(layer.size))
    _store(folder, "transparent.png", layer, "a drawing that fades away")
    _store(folder, "long-caption.jpg", good["long-caption"], "a drawing, " + ", ".join(["very detailed"] * 50))
    shutil.copy(folder / "03.jpg", folder / "twin.jpg")
    _caption(folder, "twin", "the same drawing again")
    (folder / "torn.jpg").write_bytes((folder / "05.jpg").read_bytes()[:2000])
    _caption(folder, "torn", "a drawing that was cut short")
    shutil.copy(folder / "06.jpg", folder / "no-caption.jpg")


def _store(folder: Path, name: str, picture: Image.Image, text: str) -> None:
    picture.save(folder / name, quality=92)
    _caption(folder, Path(name).stem, text)


def _caption(folder: Path, stem: str, text: str) -> None:
    (folder / f"{stem}.txt").write_text(f"{text}\n", encoding="utf-8")
