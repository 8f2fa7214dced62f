"""axe-core over every widget in a real JupyterLab, light and dark: nothing serious is found in any of them.

axe is run inside the widget alone, for the page around it is JupyterLab's. The report lies in output/axe.json.
"""

import json
import shutil

import pytest
from lab import ROOT, lab_fixture, running_lab_fixture  # noqa: F401 - fixtures
from photographs import copy_all
from playwright.sync_api import expect
from test_overview import begun, trained

from sdxl_nb.runs.events import update

pytestmark = pytest.mark.soak

FORM = "from sdxl_nb import ConfigForm, TrainConfig\nform = ConfigForm(TrainConfig.preset('tiny'))"
BROWSER = "from sdxl_nb import DatasetBrowser, TrainConfig\nbrowser = DatasetBrowser(TrainConfig.preset('tiny'))"
OWN = BROWSER.replace("'tiny'", "'tiny', train_data_dir='projects/settings/pictures'")
PROJECT = "from sdxl_nb import Project\n"
WIDGETS = {  # what is run, and what is there when it is drawn
    "form": (f"{FORM}\nform", ".sdxl-nb-plan"),
    "form with a fault": (
        "from sdxl_nb import ConfigForm\nform = ConfigForm()\nform._editors['rank'].input.value = 'x'\nform",
        ".sdxl-nb-wrong",
    ),
    "browser": (f"{BROWSER}\nbrowser", ".sdxl-nb-picture"),
    "monitor, over": ("from sdxl_nb import RunMonitor\nRunMonitor('axe/one')", ".sdxl-nb-plot canvas"),
    "monitor, failed": ("from sdxl_nb import RunMonitor\nRunMonitor('axe/failed')", ".sdxl-nb-error"),
    "monitor, running": ("from sdxl_nb import RunMonitor\nRunMonitor('axe/running')", ".sdxl-nb-status"),
    "grid": ("from sdxl_nb import ValidationGrid\nValidationGrid('axe/one')", ".sdxl-nb-picture"),
    "runs, two compared": (
        "from sdxl_nb import Runs\nRuns('axe', compared=('one', 'two'), opened='two')",
        ".sdxl-nb-pair img.over",
    ),
    "playground": (
        "from sdxl_nb import LoraPlayground\nLoraPlayground([], base='embedded:tiny-sdxl')",
        ".sdxl-nb-slider",
    ),
    "form, all unfolded": (
        f"{FORM}\nfor fold in form._folds.values():\n    fold.unfolded = True\nform",
        ".sdxl-nb-unfolded",
    ),
    "form, nothing found": (f"{FORM}\nform._find.value = 'zarko'\nform", "[role=status] >> text=zarko"),
    "browser, a picture large": (f"{BROWSER}\nbrowser.look_at(browser.dataset.names[0])\nbrowser", ".sdxl-nb-large"),
    "browser, several at once": (
        f"{OWN}\nbrowser._tools.children[-1].children[-1].unfolded = True\nbrowser",
        ".sdxl-nb-unfolded",
    ),
    "grid, one large": (
        "from sdxl_nb import ValidationGrid\ngrid = ValidationGrid('axe/one')\n"
        "grid.enlarge(3, grid._shown.rows[0])\ngrid",
        ".sdxl-nb-large",
    ),
    "monitor, interrupted": (
        "from sdxl_nb import RunMonitor\nmonitor = RunMonitor('axe/gone')\n"
        "monitor._drawn._stepper.place = 0\nmonitor._drawn.look_at(3, '00-0.png')\nmonitor",
        ".sdxl-nb-large",
    ),
    "runs, none": ("from sdxl_nb import Runs\nRuns('axe/nothing')", ".sdxl-nb"),
    "project, empty": (f"{PROJECT}Project('axe-project')", ".sdxl-nb-drop"),
    "project, no caption": (f"{PROJECT}Project('projects/pictures')", ".sdxl-nb-picture"),
    "project, settings": (f"{PROJECT}Project('projects/settings')", ".sdxl-nb-plan"),
    "project, a wrong setting": (
        f"{PROJECT}project = Project('projects/settings')\n"
        "project.steps.few.fields['max_train_steps'].value = 'many'\nproject",
        ".sdxl-nb-wrong [role=alert]",
    ),
    "project, running": (f"{PROJECT}Project('projects/running')", ".sdxl-nb-status"),
    "project, failed": (f"{PROJECT}Project('projects/failed')", ".sdxl-nb-error"),
    "project, done": (f"{PROJECT}Project('projects/done')", ".sdxl-nb-status"),
    "project, asked": (
        f"{PROJECT}project = Project('projects/done')\n"
        "project.form.edits = {**project.form.edits, 'output_dir': str(project.run.folder)}\n"
        "project.start.begin()\nproject",
        "text=holds a run already",
    ),
}
FOUND: dict[str, list[str]] = {}


@pytest.fixture(scope="module", name="runs")
def runs_fixture(running_lab):
    place = running_lab.folder / "axe"
    settings = {"validation_prompt": ["a cat"], "num_validation_images": 1}
    trained(place / "one", **settings)
    trained(place / "two", rank=8, **settings)
    trained(place / "failed", status="failed", error="The loss is not finite.")
    gone, log = begun(place / "gone")
    shutil.copytree(place / "one" / "validation", place / "gone" / "validation")
    shutil.copytree(place / "one" / "validation" / "step-3", place / "gone" / "validation" / "step-2")
    log.close()
    gone.release()
    (place / "nothing").mkdir()
    projects = running_lab.folder / "projects"
    for name in ("pictures", "settings", "running", "failed", "done"):
        copy_all(projects / name / "pictures")
        if name in ("running", "failed", "done"):
            update(projects / name / "project.json", run=f"runs/{name}", star=None)
    for caption in (projects / "pictures" / "pictures").glob("*.txt"):
        caption.unlink()
    (projects / "pictures" / "pictures" / "broken.jpg").write_bytes(b"nothing")
    trained(projects / "failed" / "runs" / "failed", status="failed", error="The loss is not finite.", **settings)
    trained(projects / "done" / "runs" / "done", **settings)
    open_ones = [begun(place / "running"), begun(projects / "running" / "runs" / "running")]
    yield place
    for folder, log in open_ones:
        log.close()
        folder.release()


def test_axe_finds_what_is_wrong(lab, runs):
    from axe_playwright_python.sync_playwright import Axe

    page = lab.open(WIDGETS["monitor, over"][0])
    expect(page.locator(WIDGETS["monitor, over"][1])).to_be_visible()
    page.evaluate("() => document.querySelector('.sdxl-nb').append(document.createElement('input'))")  # without a name
    found = Axe().run(page, context=[[".sdxl-nb"]]).response["violations"]
    assert [(each["id"], each["impact"]) for each in found] == [("label", "critical")]


@pytest.mark.parametrize("name", WIDGETS)
def test_axe_finds_nothing_serious(lab, runs, name):
    from axe_playwright_python.sync_playwright import Axe

    source, ready = WIDGETS[name]
    page = lab.open(source)
    expect(page.locator(ready).first).to_be_visible()
    serious = []
    for theme in ("Light", "Dark"):
        lab.theme(f"JupyterLab {theme}")
        found = Axe().run(page, context=[[".sdxl-nb"]]).response["violations"]
        places = [(each, node["html"][:200]) for each in found for node in each["nodes"]]
        told = [f"{theme} {each['impact']} {each['id']}: {place}" for each, place in places]
        FOUND[name] = FOUND.get(name, []) + told
        serious += [line for line in told if line.split()[1] in ("serious", "critical")]
    lab.theme("JupyterLab Light")
    report = ROOT / "output" / "axe.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(FOUND, indent=1))
    assert serious == []
