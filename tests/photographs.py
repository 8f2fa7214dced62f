"""Real photographs that ship inside the packages that the tests need anyway, and sane captions for them."""

import functools
import importlib.util
import shutil
from pathlib import Path

from PIL import Image

CAPTIONS = {
    "skimage/data/astronaut.png": "a portrait of an astronaut in an orange suit in front of a flag",
    "skimage/data/chelsea.png": "a close-up of a ginger cat that looks aside",
    "skimage/data/coffee.png": "a cup of espresso with a spoon on a wooden table",
    "skimage/data/rocket.jpg": "a rocket on its launch pad at night",
    "skimage/data/motorcycle_left.png": "a red motorcycle in a garage",
    "skimage/data/retina.jpg": "the retina of an eye with its blood vessels",
    "skimage/data/hubble_deep_field.jpg": "hundreds of distant galaxies in a dark sky",
    "skimage/data/camera.png": "a black and white photo of a man with a camera on a tripod",
    "sklearn/datasets/images/china.jpg": "the pagoda of a temple under a blue sky",
    "sklearn/datasets/images/flower.jpg": "a pink flower with green leaves behind",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg": "an officer in uniform in front of a flag",
}


def path(name: str) -> Path:
    """The file of a photograph, without importing the package that holds it."""
    package, _, rest = name.partition("/")
    return Path(importlib.util.find_spec(package).origin).parent / rest


def copy_all(folder: Path) -> list[str]:
    """Copy all photographs with their captions; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, caption in CAPTIONS.items():
        shutil.copyfile(path(name), folder / Path(name).name)
        (folder / Path(name).with_suffix(".txt").name).write_text(caption, encoding="utf-8")
    return [Path(name).name for name in CAPTIONS]


@functools.cache
def scenes(side: int = 320) -> list[Image.Image]:
    """Square pieces of the photographs, all different."""
    found = []
    for name in CAPTIONS:
        if "flower" in name or "chelsea" in name or "rocket" in name:  # mostly out of focus, too small, mostly sky
            continue
        photo = Image.open(path(name)).convert("RGB")
        for top in range(0, photo.height - side + 1, side):
            found += [photo.crop((x, top, x + side, top + side)) for x in range(0, photo.width - side + 1, side)]
    return found
