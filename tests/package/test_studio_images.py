"""pyproject.toml against Amazon's Studio images: which of our requirements each meets, and which it cannot.

VERSIONS are read from the lock files build_artifacts/vN/vN.x/vN.x.y/cpu.env.out of aws/sagemaker-distribution on GitHub
at aa8a7fb03b476f71ac31fb05edd6a9f1088cb12e (2026-08-19), the newest of 2, 3 and 4 then; None is not in the image.
"""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib")
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMAGES = ("2.14.10", "3.9.10", "4.4.1")
VERSIONS = {  # by our names; conda's pytorch, matplotlib-base and sagemaker-python-sdk are torch, matplotlib, sagemaker
    "python": ("3.11.11", "3.12.9", "3.12.13"),
    "accelerate": ("1.14.0", "1.14.0", "1.14.0"),
    "anywidget": (None, None, None),
    "boto3": ("1.40.70", "1.37.3", "1.43.56"),
    "datasets": ("2.2.1", "2.2.1", "5.0.1"),
    "diffusers": (None, None, None),
    "filelock": ("3.32.2", "3.32.2", "3.32.3"),
    "ftfy": (None, None, None),
    "huggingface_hub": ("0.36.0", "0.36.0", "0.36.0"),
    "imagehash": (None, None, None),
    "ipykernel": ("7.3.0", "7.3.0", "7.3.0"),
    "ipywidgets": ("8.1.8", "8.1.8", "8.1.9"),
    "jupyterlab": ("4.5.10", "4.4.10", "4.5.10"),
    "matplotlib": ("3.10.9", "3.10.9", "3.10.9"),
    "nbclient": ("0.11.0", "0.11.0", "0.11.0"),
    "nbconvert": ("7.17.1", "7.17.1", "7.17.1"),
    "numpy": ("1.26.4", "1.26.4", "1.26.4"),
    "peft": (None, None, None),
    "pillow": ("11.3.0", "11.3.0", "11.3.0"),
    "psutil": ("5.9.8", "5.9.8", "7.1.3"),
    "pyarrow": ("19.0.1", "19.0.1", "21.0.0"),
    "pydantic": ("2.13.4", "2.13.4", "2.13.4"),
    "pyyaml": ("6.0.3", "6.0.3", "6.0.3"),
    "safetensors": ("0.8.0", "0.8.0", "0.8.0"),
    "sagemaker": ("2.257.0", "2.245.0", "3.12.0"),
    "tensorboard": ("2.18.0", "2.18.0", "2.19.0"),
    "torch": ("2.6.0", "2.6.0", "2.8.0"),
    "tqdm": ("4.70.0", "4.70.0", "4.70.0"),
    "transformers": ("4.57.6", "4.57.6", "4.57.6"),
}
CONFLICTS = {  # what each image has and we do not take; docs/sagemaker.md says why
    "2.14.10": {"datasets", "filelock", "numpy", "pyarrow", "sagemaker"},
    "3.9.10": {"datasets", "filelock", "numpy", "pyarrow", "sagemaker"},
    "4.4.1": {"filelock", "numpy"},
}
LACKING = {"anywidget", "diffusers", "ftfy", "imagehash", "peft"}


def ours(python):
    """Our requirements that hold for a version of Python."""
    written = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["sagemaker"]]
    read = [Requirement(line) for line in written]
    return [one for one in read if one.marker is None or one.marker.evaluate({"python_version": python})]


@pytest.mark.parametrize("image", IMAGES)
def test_what_of_a_studio_image_we_do_not_take(image):
    place = IMAGES.index(image)
    python = ".".join(VERSIONS["python"][place].split(".")[:2])
    needed = ours(python)
    lacking = {one.name for one in needed if VERSIONS[one.name][place] is None}
    others = [one for one in needed if one.name not in lacking]
    refused = {one.name for one in others if not one.specifier.contains(VERSIONS[one.name][place])}
    assert (refused, lacking) == (CONFLICTS[image], LACKING)


def test_the_page_names_every_conflict():
    page = (Path(__file__).parents[2] / "docs" / "sagemaker.md").read_text(encoding="utf-8")
    told = page[page.index("## SageMaker Studio's own packages") :]
    for name in set.union(*CONFLICTS.values(), LACKING):
        assert f"`{name}`" in told
    assert all(image in told for image in IMAGES)
