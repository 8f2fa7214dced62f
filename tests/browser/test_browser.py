"""The widgets in a real JupyterLab, in a real Chromium: what a person types, presses and sees; and the whole way of a
person with photographs, from an empty folder to a LoRA on their own computer."""

import itertools
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from lab import lab_fixture, running_lab_fixture  # noqa: F401 - fixtures
from photographs import CAPTIONS, path
from PIL import Image
from playwright.sync_api import expect
from safetensors.torch import load_file
from test_overview import trained

from sdxl_nb.config.flags import read_flags, train_parser
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.events import EventLog
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.runs.run import Run

FORM = """from sdxl_nb import ConfigForm, TrainConfig
form = ConfigForm(TrainConfig.preset("tiny"))
form"""
WRONG = [  # field, what is typed, what is then said beside it
    ("rank", "abc", "rank must be a whole number, not 'abc'"),
    ("rank", "0", "rank must be at least 1, not 0"),
    ("learning_rate", "-1e-4", "learning_rate must be greater than 0, not -1e-4"),
    ("learning_rate", "0,001", "learning_rate must be a number, not '0,001'"),
    ("resolution", "100", "resolution must be a multiple of 8, not 100: use 96 or 104"),
    ("train_batch_size", "2.5", "train_batch_size must be a whole number"),
    ("max_train_steps", "-5", "max_train_steps must be at least 1, not -5"),
    ("output_dir", "s3://bucket/run", "output_dir must be a local folder"),
    ("pretrained_model_name_or_path", "embedded:tiny", "use embedded:tiny-sdxl"),
    ("dataset_name", "", "there are no training pictures: give dataset_name or train_data_dir"),
    ("train_data_dir", "nothing", "The folder nothing is empty: check train_data_dir."),
]
PAGE = """from sdxl_nb import Project
project = Project("mine")
project"""
WAIT = 'print("the cell waited:", project.run.wait())'
WITHIN = """row => {  // the page has followed its window, and the field its row
  const [inner, outer] = [row.querySelector('textarea'), row].map((each) => each.getBoundingClientRect().right);
  return inner <= outer && outer <= window.innerWidth;
}"""
WORDS = ("a portrait of an astronaut", "a ginger cat", "a cup of espresso", "a rocket on its launch pad")


def row(page, field):
    """The line of a setting: its input and what is said beside it."""
    return page.locator(".sdxl-nb-row", has=page.get_by_label(field, exact=True))


def button(page, name):
    return page.locator(".sdxl-nb button", has_text=name)


def tab_to(page, place, most=40):
    """Go to a button as one does without a mouse, from where the focus is."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if place.evaluate("place => place === document.activeElement"):
            return
    raise AssertionError(f"Tab does not reach {place}")


def copied(page, title, number):
    """What the clipboard holds once this part was unfolded and its Copy button pressed, by keyboard alone."""
    tab_to(page, button(page, title))
    page.keyboard.press("Enter")
    copy = page.locator(".sdxl-nb-copy").nth(number)
    expect(copy).to_be_visible()
    tab_to(page, copy)
    page.keyboard.press("Space")
    expect(copy).to_have_text("Copied")
    expect(copy).to_be_focused()
    page.context.grant_permissions(["clipboard-read"])
    return page.evaluate("() => navigator.clipboard.readText()")


def different(config, wanted):
    """The settings that differ, but for the seed, which is drawn."""
    return [name for name in wanted if name != "seed" and config[name] != wanted[name]]


def test_eleven_wrong_values_are_explained_beside_their_fields(lab):
    (lab.folder / "nothing").mkdir()
    page = lab.open(FORM)
    for field, typed, said in WRONG:
        place = page.get_by_label(field, exact=True)
        before = place.input_value()
        place.fill(typed)
        alert = row(page, field).get_by_role("alert")
        expect(alert).to_contain_text(said)
        expect(alert).to_be_in_viewport()
        expect(place).to_have_accessible_description(re.compile(re.escape(said)))  # what a screen reader says of it
        expect(place).to_have_attribute("aria-invalid", "true")
        place.fill(before)
        expect(row(page, field).get_by_role("alert")).to_have_count(0)
    assert len(WRONG) == 11


def test_the_form_says_what_will_happen_and_can_be_taken_along_without_a_mouse(lab):
    page = lab.open(FORM)
    expect(page.locator(".sdxl-nb-plan")).to_contain_text("56 pictures at 64 px, 8 a step: 7 steps an epoch.")
    lab.photograph("form", ".sdxl-nb")
    page.get_by_label("rank", exact=True).fill("16")
    page.keyboard.press("Tab")
    expect(page.get_by_label("learning_rate", exact=True)).to_be_focused()
    wanted = TrainConfig.preset("tiny", rank=16).model_dump()
    python = copied(page, "Copy as Python", 0)
    exec(python, scope := {})
    assert different(scope["config"].model_dump(), wanted) == []
    flags = shlex.split(copied(page, "Copy as flags", 1).replace("\\\n", " "))
    assert flags[:3] == ["python", "-m", "sdxl_nb.train"]
    assert different(read_flags(train_parser("x", "y"), flags[3:])[0].model_dump(), wanted) == []
    file = copied(page, "Copy or save as a file", 2)
    assert different(json.loads(file), wanted) == []
    with page.expect_download() as download:
        button(page, "Download").click()
    assert download.value.suggested_filename == "config.json"
    assert Path(download.value.path()).read_text() == file
    use_what_is_folded(lab, page)


def use_what_is_folded(lab, page):
    """Settings in a folded group are reached, changed and folded again without a mouse."""
    page.get_by_label("validation_prompt", exact=True).focus()
    alpha, heading = page.get_by_label("lora_alpha", exact=True), button(page, "more LoRA")
    expect(alpha).to_have_count(0)
    tab_to(page, heading)
    expect(heading).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("Enter")
    expect(alpha).to_be_visible()
    page.keyboard.press("Tab")
    expect(alpha).to_be_focused()
    expect(alpha).to_have_accessible_description(re.compile("LoRA strength is lora_alpha / rank"))
    page.keyboard.type("-1")
    page.keyboard.press("Shift+Tab")
    expect(heading).to_have_text("▾ more LoRA · 1 changed · 1 to be mended")
    expect(heading).to_be_focused()
    expect(heading).to_have_attribute("aria-expanded", "true")
    lab.photograph("form-wrong", ".sdxl-nb")
    page.set_viewport_size({"width": 900, "height": 1800})
    lab.photograph("form-narrow", ".sdxl-nb", both=False)
    line = row(page, "validation_prompt").element_handle()
    page.wait_for_function(WITHIN, arg=line)  # nothing of its border is cut off
    page.set_viewport_size({"width": 1280, "height": 1800})
    heading.focus()
    page.keyboard.press("Space")
    expect(alpha).to_have_count(0)
    expect(heading).to_have_text("▸ more LoRA · 1 changed · 1 to be mended")


def begin(place, **settings):
    """A run folder as a training leaves it that has just begun, its lock held, and its log."""
    config = TrainConfig(output_dir=str(place), seed=0, **settings)
    folder = RunFolder(config)
    folder.begin(config, resumed_from=None)
    log = EventLog(place, quiet=True)
    log.emit("start", steps=1000, processes=1, resumed_from=None)
    return folder, log


def test_a_monitor_of_a_run_that_caches_and_of_one_that_failed(lab):
    caching, log = begin(lab.folder / "caching")
    failed, its_log = begin(lab.folder / "failed")
    log.emit("cache", done=1250, total=5000)
    why = "The loss at step 1 is not a finite number: lower --learning_rate, or try <b>--mixed_precision bf16</b>."
    its_log.end(status="failed", error=why, seconds=1.0)
    failed.release()
    page = lab.open('from sdxl_nb import RunMonitor\nRunMonitor("caching")', 'RunMonitor("failed")')
    first, second = page.locator(".sdxl-nb").first, page.locator(".sdxl-nb").last
    expect(first.locator(".sdxl-nb-status")).to_contain_text("encoding pictures, 1,250 of 5,000")
    expect(second.get_by_role("alert")).to_have_text(why.replace("--", ""))
    expect(second.locator("button", has_text="Resume")).to_be_enabled()
    lab.photograph("monitor-caching-failed", ".jp-Notebook")
    log.close()
    caching.release()


def test_runs_are_compared_and_their_curve_is_read_without_a_mouse(lab):
    place = lab.folder / "output"
    for name, rank in (("one", 4), ("two", 8)):
        trained(place / name, rank=rank, validation_prompt=["a cat"])
    page = lab.open('from sdxl_nb import Runs\nRuns("output")')
    boxes = page.get_by_label("compare", exact=True)
    expect(boxes).to_have_count(2)
    for number in range(2):  # the newest first
        boxes.nth(number).focus()
        page.keyboard.press("Space")
    canvas = page.get_by_role("slider", name="Losses of two and of one")
    expect(page.locator(".sdxl-nb-settings")).to_contain_text("rank84")
    expect(page.locator(".sdxl-nb-pair img.over")).to_be_visible()
    canvas.focus()
    page.keyboard.press("Home")
    expect(canvas).to_have_attribute("aria-valuetext", re.compile("^step 1: two 0.5, two, held out 0.5, one 0.5"))
    page.keyboard.press("ArrowRight")
    expect(canvas).to_have_attribute("aria-valuetext", re.compile("^step 2: .*held out 0.25"))
    lab.photograph("runs", ".sdxl-nb", both=False)


class Mouse:
    """Presses by mouse, and counts."""

    def __init__(self, page):
        self.page, self.clicks = page, 0

    def press(self, place):
        place.click()
        self.clicks += 1

    def write(self, place, text):
        place.fill(text)
        place.press("Tab")

    def has_its_place(self):
        """A mouse is where it is."""


class Keyboard(Mouse):
    """Goes everywhere with Tab, from where the focus is, and presses Enter."""

    def press(self, place):
        self.go(place)
        self.page.keyboard.press("Enter")

    def write(self, place, text):
        self.go(place)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Tab")

    def has_its_place(self):
        """What was pressed may be disabled now, or gone: the focus is in the widget still."""
        expect(self.page.locator(".sdxl-nb :focus")).to_have_count(1)

    def go(self, place):
        expect(place).to_be_enabled()
        if not place.evaluate("place => place === document.activeElement"):
            tab_to(self.page, place, most=300)


def exactly(page, words):
    """The button that says just this; an icon of its is no word."""
    return page.locator(".sdxl-nb button", has_text=re.compile(rf"^\s*{words}\s*$"))


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


def bring(page, files, hand):
    """Choose files with the button; they come in parts, with a bar each."""
    with page.expect_file_chooser() as chooser:
        hand.press(exactly(page, "Choose files"))
    chooser.value.set_files(files)


def write_captions(page, many, hand):
    """Type every caption, going on with Ctrl+Enter; the last is left with Tab."""
    first = page.get_by_label(re.compile("caption of"), exact=False).first
    hand.go(first) if isinstance(hand, Keyboard) else first.focus()
    for number in range(many):
        box = page.locator("textarea:focus")
        expect(box).to_have_value("")
        page.keyboard.type(f"{WORDS[number % len(WORDS)]}, {number}")
        page.keyboard.press("Control+Enter" if number + 1 < many else "Tab")
        expect(page.get_by_text(f"{number + 1} of {many} captioned")).to_be_visible()


@pytest.fixture
def project(lab):
    """The project's folder; what trains there is ended with the test, whatever happens."""
    shutil.rmtree(lab.folder / "mine", ignore_errors=True)
    yield lab.folder / "mine"
    for place in (lab.folder / "mine" / "runs").glob("*"):
        run = Run.open(place)
        run.stop()
        run.wait(1200)


@pytest.mark.parametrize(
    ("by", "many"), [(Mouse, 4), *(pytest.param(by, 25, marks=pytest.mark.soak) for by in (Mouse, Keyboard))]
)
def test_from_an_empty_folder_to_a_lora_of_ones_own(lab, project, tmp_path, by, many):
    page = lab.open(PAGE, "ready = True")
    hand = by(page)
    expect(page.get_by_text("There is no picture yet in")).to_be_visible()
    lab.photograph("project-empty", ".sdxl-nb")
    bring(page, photographs(tmp_path / "photographs", many), hand)
    expect(page.get_by_text(f"0 of {many} captioned")).to_be_visible()
    write_captions(page, many, hand)
    assert (project / "pictures" / "00.txt").read_text() == "a portrait of an astronaut, 0\n"
    steps = page.get_by_label("Steps", exact=True)
    expect(steps).to_have_value(re.compile(r"\d+"))
    hand.write(steps, "999")
    trigger = page.get_by_label("Trigger word").locator("visible=true")
    hand.write(trigger, "zarko")
    expect(page.get_by_text("tokens with zarko").first).to_be_visible()
    lab.photograph("project-settings", ".sdxl-nb")
    hand.press(exactly(page, "Start"))
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Running: step")
    hand.has_its_place()
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
    hand.press(exactly(page, "Stop"))
    expect(page.locator(".jp-OutputArea-output", has_text="the cell waited: stopped")).to_be_visible()
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Stopped")
    expect(page.get_by_text("Stopping after the current step")).to_have_count(0)
    stopped = run.step
    assert stopped < 999
    hand.has_its_place()

    expect(page.get_by_label("Stage", exact=True)).to_have_value(re.compile(f"step {stopped}"))
    hand.press(exactly(page, "Resume"))
    wait_for_step(page, stopped)
    assert run.info["pid"] != pid
    hand.press(exactly(page, "Star it"))  # the stage that is offered moves on while the run does
    said = page.get_by_text(re.compile(r"Step [\d,]+ is starred"))
    expect(said).to_be_visible()
    starred = int(re.search(r"Step ([\d,]+)", said.inner_text())[1].replace(",", ""))
    assert starred >= stopped
    hand.has_its_place()
    with page.expect_download() as download:
        hand.press(exactly(page, "Download the LoRA"))
    assert download.value.suggested_filename == f"mine-step{starred}.safetensors"
    assert len(load_file(download.value.path())) > 10
    assert hand.clicks <= 12
    run.stop()
    run.wait(1200)
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Stopped")
    lab.photograph("project-result", ".sdxl-nb")


def wait_for_step(page, step):
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Running: step")
    page.wait_for_function(
        "step => +(document.querySelector('.sdxl-nb-status')?.innerText.match(/step (\\d+)/) || [0, 0])[1] > step",
        arg=step,
    )
