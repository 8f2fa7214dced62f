"""What is typed in the configuration form while a cell runs, and Start pressed after it, in a real JupyterLab."""

import pytest
from lab import lab_fixture, running_lab_fixture  # noqa: F401 - fixtures
from playwright.sync_api import expect

pytestmark = pytest.mark.soak

FORM = """import threading, time
from pathlib import Path
from sdxl_nb import ConfigForm, TrainConfig
from sdxl_nb.widgets.form import start
launched = []
start.launch = lambda config, say: launched.append(config)
form = ConfigForm(TrainConfig.preset("tiny"))
form.start._watch = False
form"""
WAIT = """Path("waits").touch()
while not Path("over").exists():
    time.sleep(0.2)
form.start.wait()
print("trained:", [(config.rank, config.max_train_steps) for config in launched])"""


def test_start_hears_what_was_typed_before_it_also_while_a_cell_runs(lab):
    page = lab.open(FORM, "ready = True")
    rank = page.get_by_label("rank", exact=True)
    for typed in ("5", "6"):  # the kernel has answered to it, and spoken of it in the thread of cells
        rank.fill(typed)
        rank.press("Tab")
        expect(page.locator(".sdxl-nb-changed").filter(has=rank)).to_be_visible()
    lab.run_cell(1)
    lab.begin_cell(1, WAIT)
    while not (lab.folder / "waits").exists():
        page.wait_for_timeout(200)
    rank.fill("7")
    page.get_by_label("max_train_steps", exact=True).fill("33")
    page.locator(".sdxl-nb button", has_text="Start").click()
    expect(page.locator(".sdxl-nb button", has_text="Start")).to_be_focused()
    expect(page.locator(".sdxl-nb-plan").first).to_contain_text("33 steps")
    (lab.folder / "over").touch()
    expect(page.locator(".jp-OutputArea").last).to_contain_text("trained: [(7, 33)]")
