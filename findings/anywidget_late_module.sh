#!/usr/bin/env bash
# anywidget never hears the kernel again where a widget's module took longer than two seconds to load.
#
# anywidget 0.11.0 in JupyterLab 4.6.6. A model waits with every message of the kernel until its module has come, and gives
# the waiting up after 2000 ms; the view is drawn all the same when the module comes, from the state of its beginning, but
# each message before and after that is dropped: the page shows old values, and pressing its buttons still reaches the
# kernel. Two seconds pass easily: a module that imports from a CDN, or a page with hundreds of models on a busy machine.
# The one trace, and not of every time, is "[anywidget] Failed to initialize model." in the browser's console. Here the module
# waits for three seconds. Needs a Chromium (apt-get install chromium). Fails when that changes.
set -euo pipefail
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
folder=$(mktemp -d)
trap 'kill "${server:-0}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  anywidget==0.11.0 ipywidgets==8.1.9 jupyterlab-widgets==3.0.17 jupyterlab==4.6.6 ipykernel==7.3.0 playwright==1.65.2
export HOME="$folder/home" JUPYTER_CONFIG_DIR="$folder/config" JUPYTER_RUNTIME_DIR="$folder/runtime" IPYTHONDIR="$folder/ipython"
mkdir -p "$HOME" "$folder/notebooks"
cat > "$folder/notebooks/widgets.py" <<'PYTHON'
import anywidget
import traitlets

MODULE = """
await new Promise((loaded) => setTimeout(loaded, SECONDS * 1000));
export default { render({ model, el }) {
  const show = () => { el.textContent = "NAME shows " + model.get("value"); };
  model.on("change:value", show);
  show();
} };
"""


class Prompt(anywidget.AnyWidget):
    value = traitlets.Int(0).tag(sync=True)
    _esm = MODULE.replace("SECONDS", "0").replace("NAME", "prompt")


class Late(anywidget.AnyWidget):
    value = traitlets.Int(0).tag(sync=True)
    _esm = MODULE.replace("SECONDS", "3").replace("NAME", "late")
PYTHON
cat > "$folder/drive.py" <<'PYTHON'
import importlib.metadata
import json
import sys

from playwright.sync_api import sync_playwright

place, port, browser = sys.argv[1:]
MAKE = "from widgets import Late, Prompt\nfrom ipywidgets import VBox\nboth = [Prompt(), Late()]\nVBox(both)"
CELLS = (MAKE, "for each in both: each.value = 1", "for each in both: each.value = 2")
kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
cells = [
    {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": c, "id": f"c{i}"}
    for i, c in enumerate(CELLS)
]
with open(f"{place}/notebooks/test.ipynb", "w") as file:
    json.dump({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, file)
RUN = """async (index) => {
  const app = window.jupyterapp;
  await app.restored;
  const panel = app.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  panel.content.activeCellIndex = index;
  return app.commands.execute("notebook:run-cell");
}"""
with sync_playwright() as play:
    page = play.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
    page.set_default_timeout(120_000)
    said = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"http://127.0.0.1:{port}/lab/tree/test.ipynb?reset&token=t")
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel")
    output = page.locator(".jp-OutputArea-output", has_text="prompt shows")
    assert page.evaluate(RUN, 0)
    output.wait_for()
    assert page.evaluate(RUN, 1)
    output.filter(has_text="late shows").wait_for()  # its module has come
    early = output.inner_text().split("\n")
    assert page.evaluate(RUN, 2)
    output.filter(has_text="prompt shows 2").wait_for()
    page.wait_for_timeout(3000)
    after = output.inner_text().split("\n")
print(f"anywidget {importlib.metadata.version('anywidget')}; the kernel set 1 while the module came, and 2 after that")
print("when it had come:", early)
print("three seconds after the kernel set 2:", after)
print("errors of the page:", said)
assert early == ["prompt shows 1", "late shows 0"] and after == ["prompt shows 2", "late shows 0"]
assert {*said} <= {"[anywidget] Failed to initialize model."}
print("as described: the late one shows what it began with, for good")
PYTHON
port=$("$folder/venv/bin/python" -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")
(cd "$folder/notebooks" && exec "$folder/venv/bin/python" -m jupyterlab --no-browser --allow-root --ServerApp.port="$port" \
  --ServerApp.port_retries=0 --IdentityProvider.token=t --LabApp.expose_app_in_browser=True) > "$folder/lab.log" 2>&1 &
server=$!
"$folder/venv/bin/python" - "$port" <<'PYTHON'
import sys
import time
import urllib.request

for _ in range(600):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/api?token=t")
        break
    except OSError:
        time.sleep(0.5)
PYTHON
"$folder/venv/bin/python" "$folder/drive.py" "$folder" "$port" "$browser"
