"""The path of a person with photographs: one page, by mouse, from an empty folder to a LoRA on their own computer."""

import itertools
import os
import re
from pathlib import Path

import numpy as np
import pytest
from lab import lab_fixture, running_lab_fixture  # noqa: F401 - fixtures
from photographs import CAPTIONS, path
from PIL import Image
from playwright.sync_api import expect
from safetensors.torch import load_file

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.run import Run

PAGE = """from sdxl_nb import Project
project = Project("mine")
project"""
WAIT = 'print("the cell waited:", project.run.wait())'
WORDS = ("a portrait of an astronaut", "a ginger cat", "a cup of espresso", "a rocket on its launch pad")


class Mouse:
    """Counts what is pressed."""

    def __init__(self):
        self.clicks = 0

    def press(self, place):
        place.click()
        self.clicks += 1


def photographs(folder: Path, many: int) -> list[Path]:
    """So many photographs of 4 MB each: a camera's size and its noise, which no codec makes small."""
    folder.mkdir()
    made, noise = [], np.random.default_rng(0).integers(-40, 40, (1100, 1400, 3))
    for number, name in zip(range(many), itertools.cycle(CAPTIONS), strict=False):
        pixels = np.asarray(Image.open(path(name)).convert("RGB").resize((1400, 1100)), dtype=np.int16)
        made.append(folder / f"{number:02d}.png")
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(made[-1], compress_level=1)
        assert made[-1].stat().st_size > 3_500_000
    return made


def button(page, words):
    """The button that says just this; an icon of its is no word."""
    return page.locator(".sdxl-nb button", has_text=re.compile(rf"^\s*{words}\s*$"))


def bring(page, files, mouse):
    """Choose files with the button; they come in parts, with a bar each."""
    with page.expect_file_chooser() as chooser:
        mouse.press(button(page, "Choose files"))
    chooser.value.set_files(files)


def write_captions(page, many):
    """Type every caption, going on with Ctrl+Enter; the last is left with Tab."""
    first = page.get_by_label(re.compile("caption of"), exact=False).first
    first.focus()
    for number in range(many):
        box = page.locator("textarea:focus")
        expect(box).to_have_value("")
        page.keyboard.type(f"{WORDS[number % len(WORDS)]}, {number}")
        page.keyboard.press("Control+Enter" if number + 1 < many else "Tab")
        expect(page.get_by_text(f"{number + 1} of {many} captioned")).to_be_visible()


@pytest.fixture
def project(lab):
    """The project's folder; what trains there is ended with the test, whatever happens."""
    yield lab.folder / "mine"
    for place in (lab.folder / "mine" / "runs").glob("*"):
        run = Run.open(place)
        run.stop()
        run.wait(300)


@pytest.mark.parametrize("many", [4, pytest.param(25, marks=pytest.mark.soak)])
def test_from_an_empty_folder_to_a_lora_of_ones_own(lab, project, tmp_path, many):
    mouse, page = Mouse(), lab.open(PAGE, "ready = True")
    expect(page.get_by_text("There is no picture yet in")).to_be_visible()
    lab.photograph("project-empty", ".sdxl-nb")
    bring(page, photographs(tmp_path / "photographs", many), mouse)
    expect(page.get_by_text(f"0 of {many} captioned")).to_be_visible()
    write_captions(page, many)
    assert (project / "pictures" / "00.txt").read_text() == "a portrait of an astronaut, 0\n"
    steps = page.get_by_label("Steps", exact=True)
    expect(steps).to_have_value(re.compile(r"\d+"))
    steps.fill("999")
    steps.press("Tab")
    page.get_by_label("Word that calls it").fill("zarko")
    page.get_by_label("Word that calls it").press("Tab")
    expect(page.get_by_label("Trigger word")).to_have_value("zarko")
    lab.photograph("project-settings", ".sdxl-nb")
    mouse.press(button(page, "Start"))
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Running: step")
    wait_for_step(page, 2)

    lab.reload()  # the page is new, the kernel is not
    wait_for_step(page, 3)
    run = Run.open(next((project / "runs").iterdir()))
    pid = run.info["pid"]
    lab.restart_kernel()
    lab.run_cell(0)
    wait_for_step(page, run.step)
    os.kill(pid, 0)  # the process that was launched first trains on
    assert TrainConfig.load(project / "settings.json").trigger_word == run.config.trigger_word == "zarko"

    lab.begin_cell(1, WAIT)
    mouse.press(button(page, "Stop"))
    expect(page.locator(".jp-OutputArea-output", has_text="the cell waited: stopped")).to_be_visible()
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Stopped")
    expect(page.get_by_text("Stopping after the current step")).to_have_count(0)
    stopped = run.step
    assert stopped < 999

    expect(page.get_by_label("Stage", exact=True)).to_have_value(re.compile(f"step {stopped}"))
    mouse.press(button(page, "Resume"))
    wait_for_step(page, stopped)
    assert run.info["pid"] != pid
    mouse.press(button(page, "Star it"))
    expect(page.get_by_text(f"Step {stopped} is starred")).to_be_visible()
    with page.expect_download() as download:
        mouse.press(button(page, "Download the LoRA"))
    assert download.value.suggested_filename == f"mine-step{stopped}.safetensors"
    assert len(load_file(download.value.path())) > 10
    assert mouse.clicks <= 12
    run.stop()
    run.wait(300)
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Stopped")
    lab.photograph("project-result", ".sdxl-nb")


def wait_for_step(page, step):
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Running: step")
    page.wait_for_function(
        "step => +(document.querySelector('.sdxl-nb-status').innerText.match(/step (\\d+)/) || [0, 0])[1] > step",
        arg=step,
    )
