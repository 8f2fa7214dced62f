#!/bin/bash
# Lifecycle script of a SageMaker Studio JupyterLab space: makes the kernel "sdxl-nb" under the home folder, which is all
# that persists, once, and again where it no longer works: an image with another Python leaves its venv without one.
# SDXL_NB_SOURCE (s3://bucket/key) is the zip that `git archive` made; the deployed script sets it.
# Studio stops a lifecycle script after five minutes, so the installation goes on behind it: tail -f ~/.sdxl-nb/install.log
set -euo pipefail

home="$HOME/.sdxl-nb"
data="${JUPYTER_DATA_DIR:-$HOME/.local/share/jupyter}"
mkdir -p "$home"

# JupyterLab runs from the image's Python, which has no anywidget: its half of the picture and download widgets is put
# where JupyterLab looks too, a folder of the user's own.
show_widgets() {
    local from="$home/venv/share/jupyter/labextensions/anywidget"
    local to="$data/labextensions"
    mkdir -p "$to"
    rm -rf "$to/anywidget"
    cp -R "$from" "$to/anywidget"
}

show_kernel() {
    "$home/venv/bin/python" -m ipykernel install --user --name sdxl-nb --display-name "sdxl_nb"
}

if [[ -e "$home/ready" ]] && "$home/venv/bin/python" -I -c "import ipykernel, sdxl_nb" 2>/dev/null; then
    [[ -d "$data/kernels/sdxl-nb" ]] || show_kernel || true
    show_widgets || true # the space must start, whatever is wrong with it
    exit 0
fi

install() {
    if [[ -e "$home/ready" ]]; then
        echo "The kernel no longer runs with this image's Python: it is made anew."
        rm -f "$home/ready"
    fi
    if ! python3 -c "import sys; sys.exit(sys.version_info < (3, 10))"; then
        echo "This image's Python is older than 3.10, and JupyterLab 3 cannot show the widgets: choose an image of" \
            "SageMaker Distribution 2 or newer for the space."
        return 1
    fi
    aws s3 cp --no-progress "$SDXL_NB_SOURCE" "$home/source.zip"
    rm -rf "$home/source" "$home/venv"
    python3 -m zipfile -e "$home/source.zip" "$home/source"
    python3 -m venv "$home/venv"
    if ! "$home/venv/bin/python" -m pip install --quiet --constraint "$home/source/constraints.txt" \
        "$home/source[sagemaker]"; then
        echo "pip could not install it: a VpcOnly domain needs a NAT gateway, or an index that it reaches as" \
            "index-url in ~/.config/pip/pip.conf; a full disk needs a larger space (20 GB)."
        return 1
    fi
    rm -rf "${XDG_CACHE_HOME:-$HOME/.cache}/pip" "$home/source.zip" # gigabytes of the space's disk that nothing reads
    show_kernel
    show_widgets
    touch "$home/ready"
}
export -f install show_kernel show_widgets
export home data PIP_NO_CACHE_DIR=1

# A shell of its own inside: "a && b" would switch off its stop at the first error.
nohup bash -c 'bash -euo pipefail -c install &&
    echo "The kernel sdxl_nb is ready: reload the page of JupyterLab, so that it knows the widgets." ||
    echo "The kernel sdxl_nb was not installed: see above, put it right and restart the space."' \
    >"$home/install.log" 2>&1 &
