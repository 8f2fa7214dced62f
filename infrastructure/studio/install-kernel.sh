#!/bin/bash
# Lifecycle script of a SageMaker Studio JupyterLab space: makes the kernel "sdxl-nb" once, under the home folder, which
# is all that persists. SDXL_NB_SOURCE (s3://bucket/key) is the zip that `git archive` made; the deployed script sets it.
# Studio stops a lifecycle script after five minutes, so the installation goes on behind it: tail -f ~/.sdxl-nb/install.log
set -euo pipefail

home="$HOME/.sdxl-nb"
mkdir -p "$home"
if [[ -e "$home/ready" ]]; then
    exit 0
fi

install() {
    aws s3 cp --no-progress "$SDXL_NB_SOURCE" "$home/source.zip"
    rm -rf "$home/source" "$home/venv"
    python3 -m zipfile -e "$home/source.zip" "$home/source"
    python3 -m venv "$home/venv"
    "$home/venv/bin/python" -m pip install --quiet --constraint "$home/source/constraints.txt" "$home/source[sagemaker]"
    "$home/venv/bin/python" -m ipykernel install --user --name sdxl-nb --display-name "sdxl_nb"
    touch "$home/ready"
}
export -f install
export home

# A shell of its own inside: "a && b" would switch off its stop at the first error.
nohup bash -c 'bash -euo pipefail -c install && echo "The kernel sdxl_nb is ready." ||
    echo "The kernel sdxl_nb was not installed: see above, put it right and restart the space."' \
    >"$home/install.log" 2>&1 &
