"""Folders of small pictures with captions, and what a data file makes of them."""

from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset


def write(root, captions, suffix=".txt", size=(8, 8)):
    """Pictures by name with their captions (None: none)."""
    for number, (name, caption) in enumerate(captions.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number, len(name), 0)).save(path, "PNG")
        if caption is not None:
            path.with_suffix(suffix).write_text(caption, encoding="utf-8")


def opened(file, **settings):
    return open_dataset(TrainConfig(train_data_dir=str(file), **settings))


def captions(pictures):
    """All captions by name, a list where there are several."""
    each = {name: pictures.alternatives(index) for index, name in enumerate(pictures.names)}
    return {name: texts[0] if len(texts) == 1 else texts for name, texts in each.items()}


def settings(pictures, name):
    """The settings that the folder of a picture has for itself."""
    number = int(pictures.folders.number[list(pictures.names).index(name)])
    return dict(pictures.folders.settings[number].settings)
