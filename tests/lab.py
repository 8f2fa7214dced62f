"""A real JupyterLab and a real Chromium for tests: notebooks are opened, run, clicked and photographed.

Everything of Jupyter's lies in a temporary home, behind a free port and a random token. No request leaves this
machine: Chromium cannot resolve another host, and a test that makes it try fails. Pictures of the screen are kept in
`output/screenshots`, in light; SDXL_NB_DARK=1 takes them in dark, too: to change the theme and back is a second's work.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / "output" / "screenshots"
IN_DARK = os.environ.get("SDXL_NB_DARK", "0") != "0"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
HERE = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "about:")
PATIENCE = 1_200_000  # milliseconds: a wait ends when what it waits for comes, and a busy machine is slow
OPEN = """async ([path, kernel]) => {
  const app = window.jupyterapp;
  await app.restored;
  const options = {path, factory: 'Notebook', ...(kernel ? {kernel: {id: kernel}} : {})};
  const panel = await app.commands.execute('docmanager:open', options);
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  app.shell.activateById(panel.id);
  return panel.sessionContext.session.kernel.id;
}"""
RUN = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
RUN_CELL = """index => {
  const app = window.jupyterapp;
  app.shell.currentWidget.content.activeCellIndex = index;
  return app.commands.execute('notebook:run-cell');
}"""
BEGIN_CELL = """([index, source]) => {
  const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
  notebook.activeCellIndex = index;
  notebook.activeCell.model.sharedModel.setSource(source);
  app.commands.execute('notebook:run-cell');  // which is not waited for
}"""
RESTART = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.sessionContext.restartKernel();
  await panel.sessionContext.session.kernel.info;
}"""
CLOSE = """async () => {
  const app = window.jupyterapp;
  for (const panel of [...app.shell.widgets('main')]) {
    const kernel = panel.sessionContext?.session?.kernel;
    await kernel?.requestExecute({code: 'import ipywidgets; ipywidgets.Widget.close_all()', silent: true}).done;
    panel.dispose();
  }
}"""
IN_TIME = """arg => Promise.race([(SCRIPT)(arg), new Promise((_, fail) => {
  setTimeout(() => fail(new Error('the page or its kernel does not answer')), PATIENCE);
})])"""
THEME = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
THEMED = """theme => {  // a theme that comes hides the page for a moment, which takes the focus from what has it
  const now = document.body.dataset.jpThemeName;
  return (theme ? now === theme : now) && !document.getElementById('jupyterlab-splash');
}"""


def chromium() -> str:
    """Where Chromium is; without one the tests that need it are skipped, which fails CI."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("the browser tests need Chromium: apt-get install chromium fonts-dejavu-core")
    return found


class Lab:
    """A JupyterLab that serves a folder; `open` shows a notebook in the page, all with one kernel: it has imported."""

    kernel: str | None = None
    dark = False  # whether a picture was taken in dark

    def __init__(self, folder: Path, url: str, token: str, page: Page):
        self.folder, self.url, self.token, self.page, self.outside = folder, url, token, page, []
        page.on("request", lambda request: self._note(request.url))
        page.on("websocket", lambda websocket: self._note(websocket.url))

    def _do(self, script: str, given: Any = None) -> Any:
        """What a script gives in the page, which fails if that takes longer than anything is waited for."""
        return self.page.evaluate(IN_TIME.replace("PATIENCE", str(PATIENCE)).replace("SCRIPT", script), given)

    def _note(self, url: str) -> None:
        if not url.startswith(HERE):
            self.outside.append(url)

    def start(self) -> None:
        """Load JupyterLab, empty, without what a test before has left."""
        self.page.goto(f"{self.url}/lab?reset&token={self.token}")
        self.page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored")
        self._do("() => window.jupyterapp.restored")
        self.page.wait_for_function(THEMED)

    def open(self, *cells: str, name: str = "test.ipynb") -> Page:
        """Write a notebook of these code cells, open it, run it, and return the page."""
        self.write(*cells, name=name)
        self.show(name)
        assert self._do(RUN), self.page.locator(".jp-OutputArea").inner_text()
        return self.page

    def write(self, *cells: str, name: str = "test.ipynb") -> None:
        """Write a notebook of these code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)

    def show(self, name: str = "test.ipynb") -> None:
        """Open a notebook that is there, without running it."""
        self.kernel = self._do(OPEN, [name, self.kernel])

    def run_cell(self, index: int) -> None:
        """Run one cell of the notebook shown."""
        assert self._do(RUN_CELL, index), self.page.locator(".jp-OutputArea").last.inner_text()

    def begin_cell(self, index: int, source: str) -> None:
        """Put this into one cell and run it, without waiting for its end."""
        self._do(BEGIN_CELL, [index, source])

    def reload(self, name: str = "test.ipynb") -> None:
        """Save, load the whole page again, and open the notebook as a person finds it."""
        self._do("() => window.jupyterapp.commands.execute('docmanager:save')")
        self.start()
        self.show(name)

    def restart_kernel(self) -> None:
        self._do(RESTART)

    def theme(self, name: str) -> None:
        """JupyterLab Light or JupyterLab Dark, which is there when this returns."""
        self._do(THEME, name)
        self.page.wait_for_function(THEMED, arg=name)

    def photograph(self, name: str, selector: str, *, both: bool = True) -> None:
        """Keep a picture of an element in light; with `both` in dark, too: of each JupyterLab the first, or IN_DARK."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        both = both and (IN_DARK or not self.dark)
        self.dark = self.dark or both
        for theme in ("Light", "Dark") if both else ("Light",):
            if both:
                self.theme(f"JupyterLab {theme}")
            self.page.locator(selector).first.screenshot(path=SCREENSHOTS / f"{name}-{theme.lower()}.png")
        if both:
            self.theme("JupyterLab Light")

    def close(self) -> None:
        """Close all notebooks and their widgets; fails when anything was asked of another machine."""
        self._do(CLOSE)
        assert self.outside == []


def _environment(home: Path) -> dict[str, str]:
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    folders |= {"IPYTHONDIR": "ipython", "HOME": "", "XDG_CACHE_HOME": "cache", "MPLCONFIGDIR": "matplotlib"}
    return os.environ | {name: str(home / folder) for name, folder in folders.items()}


@contextlib.contextmanager
def _server(home: Path, folder: Path, token: str):
    """A JupyterLab as a process of its own, until the block ends; its address."""
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    options = [
        "--ServerApp.port=0",  # one that is free when it is taken
        "--ServerApp.ip=127.0.0.1",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.expose_app_in_browser=True",
        "--ServerApp.open_browser=False",
        "--allow-root",
    ]
    with open(home / "lab.log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=_environment(home), stdout=log, stderr=log, cwd=folder
        )
        try:
            yield _address(home / "runtime", token, server, home / "lab.log")
        finally:
            server.terminate()
            server.wait(1200)


def _address(runtime: Path, token: str, server: subprocess.Popen, log: Path) -> str:
    """Where the server listens, as it has noted itself, once it answers."""
    until = time.monotonic() + 1200
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError, ValueError, StopIteration):  # not noted yet, or half
            url = f"http://127.0.0.1:{json.loads(next(runtime.glob('jpserver-*.json')).read_text())['port']}"
            with urllib.request.urlopen(f"{url}/api?token={token}", timeout=1200):
                return url
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start: {log.read_text()}")


@pytest.fixture(scope="module", name="running_lab")
def running_lab_fixture(tmp_path_factory):
    """One JupyterLab and one page for a module's tests; playwright's event loop ends with them."""
    with running(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("notebooks")) as lab:
        yield lab


@contextlib.contextmanager
def running(home: Path, folder: Path):
    """A Lab that serves the folder, until the block ends; what is Jupyter's own lies in `home`."""
    program = chromium()
    token = secrets.token_hex(16)
    expect.set_options(timeout=PATIENCE)
    with _server(home, folder, token) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1800})
        page.set_default_timeout(PATIENCE)
        lab = Lab(folder, url, token, page)
        lab.start()
        yield lab
        browser.close()


@pytest.fixture(name="lab")
def lab_fixture(running_lab, request):
    """The running JupyterLab, with an empty folder's worth of notebooks; a failed test leaves a picture."""
    failed = request.session.testsfailed
    yield running_lab
    if request.session.testsfailed > failed:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        running_lab.page.screenshot(path=SCREENSHOTS / f"failed-{request.node.name}.png")
    running_lab.close()
