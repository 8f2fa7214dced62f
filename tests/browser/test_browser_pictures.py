"""The widgets that show pictures, in a real JupyterLab and Chromium: grid, playground, monitor and data set browser."""

import json
import re
import shutil
from pathlib import Path

import pytest
from lab import lab_fixture, running_lab_fixture  # noqa: F401 - fixtures
from PIL import Image
from playwright.sync_api import expect
from test_browser import begin

from sdxl_nb import Run, TrainConfig, fine_tune
from sdxl_nb.tiny.album import write_album

GRID = """from sdxl_nb import ValidationGrid
ValidationGrid("run")"""
WATCH = """from sdxl_nb import RunMonitor
RunMonitor("run")"""
LAUNCHED = """from sdxl_nb import TrainConfig, ValidationGrid, launch
config = TrainConfig.preset("tiny", output_dir="launched", max_train_steps=400, validation_epochs=1)
run = launch(config.replace(validation_inference_steps=2, report_to="none"))
ValidationGrid(run)"""
PLAYGROUND = """from sdxl_nb import LoraPlayground
LoraPlayground("run", prompt="a blueprint of a house", steps=4)"""
BROWSER = """from sdxl_nb import DatasetBrowser, TrainConfig
config = TrainConfig.preset("tiny", train_data_dir="album").replace(center_crop=False)
DatasetBrowser(config, per_page=8)"""
STEPPER = """from sdxl_nb.widgets.monitor.stepper import Stepper
chosen = Stepper()
chosen"""
VIEWER = """from PIL import Image
from sdxl_nb.widgets.parts.viewer import Viewer
viewer = Viewer(print, print)
viewer.show(Image.new("RGB", (64, 64)), "words")
viewer"""
LATE = """() => {  // modules come after the time that anywidget gives them
  const timeout = AbortSignal.timeout.bind(AbortSignal);
  AbortSignal.timeout = (milliseconds) => timeout(milliseconds === 2000 ? 0 : milliseconds);
  window.inTime = () => { AbortSignal.timeout = timeout; };
}"""
TOLD = """() => {
  const Own = window.Notification;
  window.told = [];
  window.Notification = class extends Own {
    constructor(title, options) { super(title, options); window.told.push([title, options.body]); }
  };
}"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run of the tiny base with pictures at three steps."""
    settings = {"max_train_steps": 14, "validation_epochs": 1, "validation_inference_steps": 4, "report_to": "none"}
    settings |= {"checkpointing_steps": 7, "validation_split": 0.1, "learning_rate": 2e-2, "lr_warmup_steps": 0}
    folder = tmp_path_factory.mktemp("finished") / "run"
    return fine_tune(TrainConfig.preset("tiny", output_dir=str(folder), **settings), progress=False)


@pytest.fixture
def run_folder(lab, finished):
    shutil.rmtree(lab.folder / "run", ignore_errors=True)
    shutil.copytree(finished.folder, lab.folder / "run")
    return lab.folder / "run"


def pictures(place):
    return place.locator(".sdxl-nb-picture img")


def told(place, words):
    """Wait until a widget says this, whatever it says beside it of how far it is with something."""
    expect(place.get_by_role("status").filter(has_text=words)).to_be_visible()


def decoded(place):
    """Wait until every picture is decoded, and return their widths."""
    place.page.wait_for_function(
        "() => [...document.querySelectorAll('.sdxl-nb img')].every((image) => image.complete && image.naturalWidth)"
    )
    return pictures(place).evaluate_all("images => images.map((image) => image.naturalWidth)")


def test_the_grid_fills_is_enlarged_rescaled_and_shipped(lab, run_folder):
    page = lab.open(GRID)
    grid = page.locator(".sdxl-nb")
    expect(pictures(grid)).to_have_count(6)
    assert decoded(grid) == [256] * 6
    expect(grid).to_contain_text("held-out loss")
    lab.photograph("grid", ".sdxl-nb")
    pictures(grid).nth(2).click()
    expect(pictures(grid)).to_have_count(7)
    assert decoded(grid)[0] == 512  # above the table
    enlarged = grid.locator(".sdxl-nb-large button")
    expect(enlarged).to_be_focused()
    expect(enlarged).to_be_in_viewport(ratio=1)
    page.keyboard.press("ArrowLeft")
    expect(enlarged).to_have_attribute("title", re.compile("step 7"))
    page.keyboard.press("ArrowDown")
    expect(enlarged).to_have_attribute("title", re.compile("red fish.*step 7"))
    expect(enlarged).to_be_focused()
    page.keyboard.press("Escape")
    expect(pictures(grid)).to_have_count(6)
    expect(grid.get_by_role("button", name="step 14").first).to_be_focused()  # what was pressed
    page.keyboard.press("Enter")
    expect(pictures(grid)).to_have_count(7)
    lab.photograph("grid-enlarged", ".sdxl-nb")  # which changes JupyterLab's theme: no key is pressed next
    page.get_by_label("LoRA scale").select_option("0.5")
    expect(grid).to_contain_text("4 pictures drawn at scale 0.5")
    expect(pictures(grid)).to_have_count(6)
    page.get_by_label("Ship to").fill(str(lab.folder / "chosen"))
    grid.get_by_role("button", name="Ship 7").click()
    expect(grid.get_by_role("status")).to_contain_text("The LoRA of step 7 is in")
    assert grid.get_by_role("status").bounding_box()["y"] < pictures(grid).first.bounding_box()["y"]
    assert (lab.folder / "chosen" / "pytorch_lora_weights.safetensors").is_file()
    grid.get_by_role("button", name="Ship 14").click()
    expect(grid.get_by_role("alert")).to_contain_text("name a new folder")
    with page.expect_download() as download:
        grid.get_by_role("button", name="Download 7").click()
    assert download.value.suggested_filename == "run-step7.safetensors"
    assert Path(download.value.path()).read_bytes() == (run_folder / "checkpoint-7" / "run.safetensors").read_bytes()
    expect(grid.get_by_role("button", name="Download 0")).to_have_count(0)  # the base has no LoRA
    with page.expect_download() as download:
        grid.get_by_role("button", name="Download grid").click()
    assert download.value.suggested_filename == "grid.png"
    with open(download.value.path(), "rb") as file:
        assert file.read(4) == b"\x89PNG"
    shutil.rmtree(run_folder / "validation" / "step-7")
    page.get_by_label("LoRA scale").select_option("1")
    expect(grid.get_by_text("not drawn", exact=True)).to_have_count(2)
    expect(pictures(grid)).to_have_count(4)
    lab.photograph("grid-not-drawn", ".sdxl-nb")
    grid.get_by_role("button", name="Draw what is missing").click()
    expect(grid.get_by_role("status")).to_contain_text("2 pictures drawn at scale 1.")
    expect(pictures(grid)).to_have_count(6)
    expect(grid.get_by_role("button", name="Draw what is missing")).to_be_disabled()


def test_long_prompts_leave_room_and_without_prompts_a_lora_is_shipped(lab, run_folder):
    shutil.copytree(run_folder, lab.folder / "plain", ignore=shutil.ignore_patterns("validation"))
    config = json.loads((run_folder / "config.json").read_text())
    without = {name: value for name, value in config.items() if "validation" not in name}
    (lab.folder / "plain" / "config.json").write_text(json.dumps(without))
    prompts = ["a blueprint of a house, " * 40, "unbroken" * 100][: len(config["validation_prompt"])]
    (run_folder / "config.json").write_text(json.dumps(config | {"validation_prompt": prompts}))
    page = lab.open(GRID, WATCH, 'ValidationGrid("plain")')
    grid, monitor, plain = (page.locator(".sdxl-nb").nth(number) for number in range(3))
    expect(plain).to_contain_text("it has no validation_prompt")
    expect(plain.get_by_role("button", name="Ship 7")).to_be_enabled()
    expect(plain.get_by_label("LoRA scale")).to_be_hidden()
    expect(pictures(grid)).to_have_count(6)
    expect(monitor.get_by_role("slider", name="Curve of the loss up to step 14: training loss")).to_be_visible()
    drawn = monitor.get_by_role("img", name="step 14, seed")
    expect(drawn).to_have_count(2)
    decoded(monitor)
    for words in page.locator(".sdxl-nb-caption").all():
        assert words.bounding_box()["height"] < 128 and len(words.get_attribute("title")) >= 800
    assert {(box["width"], box["height"]) for box in (one.bounding_box() for one in drawn.all())} == {(160, 160)}
    lab.photograph("long-prompts", ".jp-Notebook")


def test_a_page_that_is_slow_hears_the_kernel_all_the_same(lab):
    lab.page.evaluate(LATE)
    page = lab.open(STEPPER, "chosen.offer([0, 7, 14], 1)", "chosen.offer([0, 7, 14, 21], 2)", "chosen.place")
    slider = page.get_by_role("slider", name="Step")
    expect(slider).to_have_attribute("aria-valuetext", "step 14 of 21")  # said before its module had come
    lab.run_cell(1)
    expect(slider).to_have_attribute("aria-valuetext", "step 7 of 14")  # and after
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "step 14, the newest")
    lab.run_cell(3)
    expect(page.locator(".jp-OutputArea").last).to_contain_text("2")
    page = lab.open(VIEWER, name="viewer.ipynb")
    expect(page.locator(".sdxl-nb-large button")).to_have_attribute("title", "words")
    page.evaluate("() => window.inTime()")


@pytest.mark.soak
def test_the_grid_of_a_run_that_goes_on_fills_by_itself(lab):
    page = lab.open(LAUNCHED)
    run = Run.open(lab.folder / "launched")
    try:
        grid = page.locator(".sdxl-nb").first
        expect(pictures(grid)).not_to_have_count(0)
        begun = pictures(grid).count()
        page.wait_for_function("begun => document.querySelectorAll('.sdxl-nb-picture img').length > begun", arg=begun)
        assert run.status == "running" and set(decoded(grid)) == {256}
    finally:
        run.stop()
        run.wait(1200)
    for step in range(1, 12):  # many stages at once
        drawn = run.folder / "validation" / f"step-{step}"
        shutil.copytree(run.folder / "validation" / "step-0", drawn, dirs_exist_ok=True)
    every = grid.get_by_label("all stages")
    expect(every).to_be_visible()
    every.check()
    expect(grid).to_contain_text("steps 0 to 7")
    for step in range(1, 8):
        expect(grid.get_by_text(f"step {step}", exact=True)).to_be_attached()
    lab.photograph("grid-all-stages", ".sdxl-nb")
    grid.get_by_role("button", name="Later").click()
    expect(grid).to_contain_text("stages: steps 8 to")
    expect(grid.get_by_text("step 7", exact=True)).to_have_count(0)
    every.uncheck()
    expect(grid).to_contain_text("8 of")


def test_the_scale_slider_changes_the_picture(lab, run_folder):
    page = lab.open(PLAYGROUND)
    widget = page.locator(".sdxl-nb").first
    widget.get_by_role("button", name="Draw").click()
    expect(widget.get_by_role("status")).to_contain_text("scale 1")
    after = page.locator(".sdxl-nb-pair .over")
    assert after.evaluate("image => image.decode().then(() => image.naturalWidth)") == 512
    first = after.get_attribute("src")
    lab.photograph("playground", ".sdxl-nb")
    page.get_by_role("slider", name="LoRA scale").focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    expect(widget.get_by_role("status")).to_contain_text(re.compile(r"scale 0\.5\."))  # not 0.55
    assert after.get_attribute("src") != first
    page.locator(".sdxl-nb-pair input").fill("20")
    expect(after).to_have_css("clip-path", re.compile(r"20%"))
    steps = widget.get_by_label("Steps")
    for refused in ("0", "2000"):
        steps.fill(refused)
        steps.press("Tab")
        expect(widget.get_by_role("alert")).to_contain_text(f"from 1 to 1000: {refused} was not taken.")
        expect(steps).to_have_value("4")
    lab.photograph("playground-refused", ".sdxl-nb", both=False)
    steps.fill("3")
    steps.press("Tab")
    expect(widget.get_by_role("alert")).to_have_count(0)
    widget.get_by_label("draw when a slider moves").uncheck()
    with page.expect_download() as download:  # what is shown, not what was typed since
        widget.get_by_role("button", name="Settings").click()
    settings = json.loads(Path(download.value.path()).read_text())
    assert (settings["steps"], settings["scale"]) == (4, 0.5)
    first = after.get_attribute("src")
    widget.get_by_role("button", name="Draw").click()
    expect(after).not_to_have_attribute("src", first)
    widget.get_by_label("Prompt").fill(" ")
    widget.get_by_role("button", name="Draw").click()
    expect(widget.get_by_role("alert")).to_contain_text("There is no prompt: say what to draw.")
    lab.photograph("playground-empty", ".sdxl-nb", both=False)


def test_the_browser_shows_crops_and_saves_a_caption(lab):
    write_album(lab.folder / "album", faults=True)
    page = lab.open(BROWSER)
    browser = page.locator(".sdxl-nb").first
    expect(pictures(browser)).to_have_count(8)
    expect(browser).to_contain_text("of 32 tokens")
    assert all(width > 200 for width in decoded(browser))
    lab.photograph("dataset", ".sdxl-nb")
    page.get_by_role("button", name="Audit").click()
    told(browser, "kinds of findings")
    page.get_by_label("Show", exact=True).select_option("without a caption (1)")
    expect(browser).to_contain_text("no caption yet")
    lab.photograph("dataset-uncaptioned", ".sdxl-nb", both=False)
    page.get_by_label("Show", exact=True).select_option("all pictures (26)")
    expect(pictures(browser)).to_have_count(8)
    box = page.get_by_label("caption of 00.jpg")
    box.fill("a corrected caption")
    button = browser.get_by_role("button", name="Next page")
    button.click()  # which leaves the field, and keeps what is in it
    told(browser, "The caption of 00.jpg is in 00.txt")
    assert (lab.folder / "album" / "00.txt").read_text() == "a corrected caption\n"
    page.get_by_label("Show", exact=True).select_option("too small (1)")
    expect(browser).to_contain_text("1 picture too small for 64 px, and enlarged.")
    lab.photograph("dataset-finding", ".sdxl-nb", both=False)
    picture = (lab.folder / "album" / "blank.png").read_bytes()
    files = [
        {"name": name, "mimeType": "image/png", "buffer": data}
        for name, data in (("a.png", picture), ("b.png", b"?"), ("Thumbs.db", b"x"))
    ]
    with page.expect_file_chooser() as chooser:
        browser.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(files)
    expect(browser.get_by_role("log")).to_contain_text("b.png is not a picture that can be read")
    passed = "1 file passed over, neither pictures nor captions to bring: Thumbs.db"
    expect(browser.get_by_role("log")).to_contain_text(passed)
    lab.photograph("dataset-uploads", ".sdxl-nb-drop")
    assert (lab.folder / "album" / "a.png").read_bytes() == picture
    page.get_by_label("Show", exact=True).select_option("all pictures (27)")
    expect(pictures(browser)).to_have_count(8)
    browser.get_by_role("button", name="00.jpg: ").click()
    large = browser.locator(".sdxl-nb-large button")
    expect(large).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(large).to_have_attribute("title", re.compile(r"^01\.jpg: "))
    lab.photograph("dataset-large", ".sdxl-nb", both=False)
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)


def test_a_monitor_shows_any_step_and_the_browser_tells_when_it_is_over_if_it_may(lab):
    folder, log = begin(lab.folder / "told", validation_prompt=["a red cat"], num_validation_images=1)
    for step in (0, 4, 8):
        (place := lab.folder / "told" / "validation" / f"step-{step}").mkdir(parents=True)
        Image.new("RGB", (256, 256), (30 * step, 60, 90)).save(place / "00-0.png")
    page = lab.open('from sdxl_nb import RunMonitor\nRunMonitor("told")')
    page.evaluate(TOLD)
    slider = page.get_by_role("slider", name="Step")
    expect(slider).to_have_attribute("aria-valuetext", "step 8, the newest")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "step 4 of 8")
    small = page.locator(".sdxl-nb-both .sdxl-nb-picture img")
    expect(small.last).to_have_attribute("alt", "a red cat, step 4, seed 0")
    lab.photograph("monitor-steps", ".sdxl-nb")
    small.last.click()
    large = page.locator(".sdxl-nb-large button")
    expect(large).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(large).to_have_attribute("title", "a red cat, step 8, seed 0")
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)

    box = page.get_by_label("Tell me when it is over")
    box.click()  # Chromium without a person to ask denies it
    expect(page.locator(".sdxl-nb-bell [role=status]")).to_contain_text("The browser does not allow it for this page")
    expect(box).not_to_be_checked()
    page.context.grant_permissions(["notifications"])
    box.check()
    expect(page.locator(".sdxl-nb-bell [role=status]")).to_have_text("")
    log.end(status="completed", seconds=1.0)
    folder.release()
    page.wait_for_function("() => window.told.length === 1")
    assert page.evaluate("() => window.told") == [["sdxl_nb", "told: completed at step 0"]]
    page.context.clear_permissions()
    log.close()
