"""The widgets in a real JupyterLab, in a real Chromium: what a person types, presses and sees."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from lab import lab_fixture, running_lab_fixture  # noqa: F401 - fixtures
from playwright.sync_api import expect

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
TRAIN = """from sdxl_nb import RunMonitor, TrainConfig, launch
config = TrainConfig.preset("tiny", output_dir="run", max_train_steps=999, validation_inference_steps=2)
run = launch(config)"""
WATCH = """from sdxl_nb import Run, RunMonitor
monitor = RunMonitor(Run.open("run"))
monitor"""
HISTORY = """steps = monitor.run.losses()[0]
print("the whole history:", len(steps) > 5 and steps == list(range(1, len(steps) + 1)))"""


def row(page, field):
    """The line of a setting: its input and what is said beside it."""
    return page.locator(".sdxl-nb-row", has=page.get_by_label(field, exact=True))


def button(page, name):
    return page.locator(".sdxl-nb button", has_text=name)


def tab_to(page, place):
    """Go to a button as one does without a mouse, from where the focus is."""
    for _ in range(40):
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
    prompt = page.get_by_label("validation_prompt", exact=True).bounding_box()
    line = row(page, "validation_prompt").bounding_box()
    page.set_viewport_size({"width": 1280, "height": 1800})
    assert prompt["x"] + prompt["width"] <= line["x"] + line["width"]  # nothing of its border is cut off
    heading.focus()
    page.keyboard.press("Space")
    expect(alpha).to_have_count(0)
    expect(heading).to_have_text("▸ more LoRA · 1 changed · 1 to be mended")


def begin(path):
    """A run folder as a training leaves it that has just begun, its lock held, and its log."""
    config = TrainConfig(output_dir=str(path), seed=0)
    folder = RunFolder(config)
    folder.begin(config, resumed_from=None)
    log = EventLog(path, quiet=True)
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
    expect(second.get_by_role("alert")).to_have_text(why)
    expect(second.locator("button", has_text="Resume")).to_be_enabled()
    lab.photograph("monitor-caching-failed", ".jp-Notebook")
    log.close()
    caching.release()


@pytest.fixture
def trained(lab):
    """A run that a notebook has launched; it is ended with the test, whatever happens."""
    lab.open(TRAIN, WATCH, HISTORY)
    run = Run.open(lab.folder / "run")
    yield run
    run.stop()
    run.wait(300)


def steps_shown(page):
    found = re.search(r"step (\d+) of 999", page.locator(".sdxl-nb-status").inner_text())
    return int(found[1]) if found else 0


def wait_for_step(page, step):
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Running: step")
    page.wait_for_function(
        "step => +(document.querySelector('.sdxl-nb-status').innerText.match(/step (\\d+)/) || [0, 0])[1] > step",
        arg=step,
    )


def test_a_run_is_launched_watched_left_found_again_stopped_and_resumed(lab, trained):
    page = lab.page
    wait_for_step(page, 3)
    expect(page.locator(".sdxl-nb-numbers")).to_contain_text("loss, smoothed")
    wait_for_step(page, steps_shown(page) + 2)
    lab.photograph("monitor-running", ".sdxl-nb")

    lab.reload()  # the page is new, the kernel is not
    wait_for_step(page, steps_shown(page))

    pid, before = trained.info["pid"], trained.step
    lab.restart_kernel()
    lab.run_cell(1)
    wait_for_step(page, before)
    os.kill(pid, 0)  # the process that was launched first trains on
    assert trained.info["pid"] == pid
    lab.run_cell(2)
    expect(page.locator(".jp-OutputArea-output", has_text="the whole history: True")).to_be_visible()

    button(page, "Stop").click()
    expect(page.locator(".sdxl-nb-status")).to_contain_text("Stopped")
    expect(button(page, "Stop")).to_be_disabled()
    lab.photograph("monitor-stopped", ".sdxl-nb")
    stopped = trained.step
    button(page, "Resume").click()
    wait_for_step(page, stopped)
    assert trained.info["pid"] != pid
