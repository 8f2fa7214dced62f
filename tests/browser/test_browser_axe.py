"""axe-core over every widget in a real JupyterLab, light and dark: nothing serious is found in any of them.

axe is run inside the widget alone, for the page around it is JupyterLab's. The report lies in output/axe.json.
"""

import json

import pytest
from lab import ROOT, lab_fixture, running_lab_fixture  # noqa: F401 - fixtures
from playwright.sync_api import expect
from test_overview import begun, trained

pytestmark = pytest.mark.soak

WIDGETS = {  # what is run, and what is there when it is drawn
    "form": ("from sdxl_nb import ConfigForm, TrainConfig\nConfigForm(TrainConfig.preset('tiny'))", ".sdxl-nb-plan"),
    "form with a fault": (
        "from sdxl_nb import ConfigForm\nform = ConfigForm()\nform._editors['rank'].input.value = 'x'\nform",
        ".sdxl-nb-wrong",
    ),
    "browser": (
        "from sdxl_nb import DatasetBrowser, TrainConfig\nDatasetBrowser(TrainConfig.preset('tiny'))",
        ".sdxl-nb-picture",
    ),
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
    "project, empty": ("from sdxl_nb import Project\nProject('axe-project')", ".sdxl-nb-drop"),
}
FOUND: dict[str, list[str]] = {}


@pytest.fixture(scope="module", name="runs")
def runs_fixture(running_lab):
    place = running_lab.folder / "axe"
    settings = {"validation_prompt": ["a cat"], "num_validation_images": 1}
    trained(place / "one", **settings)
    trained(place / "two", rank=8, **settings)
    trained(place / "failed", status="failed", error="The loss is not finite.")
    folder, log = begun(place / "running")
    yield place
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
