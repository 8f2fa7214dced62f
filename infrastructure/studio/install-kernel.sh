#!/bin/bash
# Lifecycle script of a SageMaker Studio JupyterLab space: makes the kernel "sdxl-nb" once, under the home folder, which
# is all that persists. SDXL_NB_SOURCE (s3://bucket/key) is the zip that `git archive` made; the deployed script sets it.
# Studio stops a lifecycle script after five minutes, so the installation goes on behind it: tail -f ~/.sdxl-nb/install.log
set -euo pipefail

home="$HOME/.sdxl-nb"
mkdir -p "$home"

# JupyterLab runs from the image's Python, which has no anywidget: its half of the picture and download widgets is put
# where JupyterLab looks too, a folder of the user's own.
show_widgets() {
    local from="$home/venv/share/jupyter/labextensions/anywidget"
    local to="${JUPYTER_DATA_DIR:-$HOME/.local/share/jupyter}/labextensions"
    mkdir -p "$to"
    rm -rf "$to/anywidget"
    cp -R "$from" "$to/anywidget"
}

if [[ -e "$home/ready" ]]; then
    show_widgets || true # the space must start, whatever is wrong with it
    exit 0
fi

install() {
    aws s3 cp --no-progress "$SDXL_NB_SOURCE" "$home/source.zip"
    rm -rf "$home/source" "$home/venv"
    python3 -m zipfile -e "$home/source.zip" "$home/source"
    python3 -m venv "$home/venv"
    "$home/venv/bin/python" -m pip install --quiet --constraint "$home/source/constraints.txt" "$home/source[sagemaker]"
    "$home/venv/bin/python" -m ipykernel install --user --name sdxl-nb --display-name "sdxl_nb"
    show_widgets
    touch "$home/ready"
}
export -f install show_widgets
export home

# A shell of its own inside: "a && b" would switch off its stop at the first error.
nohup bash -c 'bash -euo pipefail -c install &&
    echo "The kernel sdxl_nb is ready: reload the page of JupyterLab, so that it knows the widgets." ||
    echo "The kernel sdxl_nb was not installed: see above, put it right and restart the space."' \
    >"$home/install.log" 2>&1 &
