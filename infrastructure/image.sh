#!/bin/bash
# Builds the training image and trains the tiny SDXL in it for a few steps, as SageMaker would: `make image`.
# With docker where there is an engine, else with podman and runc (Debian: apt-get install podman buildah runc).
#   IMAGE        its name, default sdxl-nb:local
#   BASE_IMAGE   the Dockerfile's; where no container registry can be reached, "debian" makes one with mmdebstrap, and
#                "debian-venv" one whose own PyTorch lies in /opt/venv, as in AWS Deep Learning Containers since 2.11
#   ENGINE_FLAGS more for build and run, such as --volume=/etc/ssl/certs:/etc/ssl/certs:ro behind a proxy
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
image="${IMAGE:-sdxl-nb:local}"
read -r -a flags <<<"${ENGINE_FLAGS:-}"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

if docker info >/dev/null 2>&1; then
    engine=(docker)
elif command -v podman >/dev/null && command -v runc >/dev/null; then
    # What also works inside a container: the host's network and cgroups, modest limits.
    printf '[containers]\ncgroupns = "host"\nnetns = "host"\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n' >"$scratch/containers.conf"
    export CONTAINERS_CONF="$scratch/containers.conf"
    engine=(podman)
else
    echo "There is no docker engine and no podman with runc: start docker, or apt-get install podman buildah runc." >&2
    exit 1
fi

own=/opt/sdxl-nb # where the PyTorch lies that is trained with
if [[ "${BASE_IMAGE:-}" == debian || "${BASE_IMAGE:-}" == debian-venv ]]; then
    layout="$BASE_IMAGE" BASE_IMAGE=localhost/sdxl-nb-debian
    "${engine[@]}" image inspect "$BASE_IMAGE" >/dev/null 2>&1 ||
        mmdebstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm - |
        "${engine[@]}" import - "$BASE_IMAGE" >/dev/null
fi
if [[ "${layout:-}" == debian-venv ]]; then # another version than constraints.txt has, to see that it is kept
    own=/opt/venv
    "${engine[@]}" build "${flags[@]}" --tag "$BASE_IMAGE-venv" - <<'EOF'
FROM localhost/sdxl-nb-debian
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir torch==2.12.0 numpy
ENV PATH=/opt/venv/bin:$PATH
EOF
    BASE_IMAGE="$BASE_IMAGE-venv"
fi

"${engine[@]}" build "${flags[@]}" ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} --tag "$image" .

ml="$scratch/ml"
mkdir -p "$ml"/input/config "$ml"/input/data "$ml"/model "$ml"/output/data "$ml"/checkpoints
echo '{"pretrained_model_name_or_path": "embedded:tiny-sdxl", "dataset_name": "embedded:blueprint", "resolution": "64", "train_batch_size": "2", "max_train_steps": "4", "seed": "0"}' >"$ml/input/config/hyperparameters.json"
echo '{"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}' >"$ml/input/config/resourceconfig.json"
echo '{}' >"$ml/input/config/inputdataconfig.json"
"${engine[@]}" run --rm "${flags[@]}" --volume "$ml:/opt/ml" "$image" train | tee "$scratch/log" || {
    cat "$ml/output/failure" 2>/dev/null
    exit 1
}
[[ -z "${layout:-}" ]] || grep -q "^PyTorch .* in $own/" "$scratch/log" || {
    echo "error: it trains with another PyTorch than the one in $own" >&2
    exit 1
}
ls -l "$ml/model/pytorch_lora_weights.safetensors"
