"""Option 2 of the seed, from the shell: word for word on a CPU, and training against a stand-in for the hub."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from hub import Hub
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_flags import OPTION_2

from sdxl_nb.models.loading import load_pipeline
from sdxl_nb.models.sources import EMBEDDED
from sdxl_nb.runs.run import Run

SDXL, VAE, NARUTO = (
    "stabilityai/stable-diffusion-xl-base-1.0",
    "madebyollin/sdxl-vae-fp16-fix",
    "lambdalabs/naruto-blip-captions",
)
BASE = EMBEDDED["embedded:tiny-sdxl"]
CHANGES = {"--mixed_precision fp16": "--mixed_precision no", "--resolution 1024": "--resolution 64"}
RUN_FOLDER = {
    "README.md",
    "checkpoint-4",
    "config.json",
    "events.jsonl",
    "log.txt",
    "logs",
    "output.safetensors",
    "pytorch_lora_weights.safetensors",
    "run.json",
    "validation",
}


def command(line):
    return [sys.executable, "-m", "sdxl_nb.train", *shlex.split(line)]


def small(line):
    """The same line, as the stand-in's tiny base wants it."""
    for old, new in CHANGES.items():
        assert old in line
        line = line.replace(old, new)
    return f"{line} --max_train_steps 4"


def write_naruto(folder):
    """Six pictures and captions in one parquet file, as the hub's data set has them."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rows = []
    for number in range(6):
        stream = io.BytesIO()
        Image.new("RGB", (80, 64), (40 * number, 90, 160)).save(stream, "PNG")
        rows.append({"image": {"bytes": stream.getvalue(), "path": None}, "text": f"a colour, number {number}"})
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "train-00000-of-00001.parquet")


def write_base(folder):
    """The embedded base as a crowded repository: other variants, pickles and a checkpoint beside what is needed."""
    shutil.copytree(BASE, folder)
    for name in ("unet/diffusion_pytorch_model", "text_encoder/model", "vae/diffusion_pytorch_model"):
        (folder / f"{name}.fp16.safetensors").write_bytes(b"another variant")
        (folder / f"{name}.bin").write_bytes(b"a pickle")
    (folder / "sd_xl_base_1.0.safetensors").write_bytes(b"a checkpoint")


def test_option_2_on_a_cpu_ends_with_one_sentence(tmp_path):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command(OPTION_2), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: mixed_precision fp16 needs a CUDA GPU or Apple MPS and this machine has neither: "
        "use --mixed_precision no, or --preset tiny, which trains here in minutes\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which the line ran, the finished process and the hub with its log of requests."""
    folder = tmp_path_factory.mktemp("option2")
    write_naruto(folder / "naruto")
    write_base(folder / "base")
    work = folder / "work"
    work.mkdir()
    models = {SDXL: folder / "base", VAE: BASE / "vae"}
    with Hub(models=models, datasets={NARUTO: folder / "naruto"}) as hub:
        environment = {n: v for n, v in hub.environment(folder / "home").items() if "proxy" not in n.lower()}
        # the process connects to this machine only: conftest's hook, put into it as a site customisation
        (folder / "sitecustomize.py").write_text(STAY_HERE)
        environment |= {"PYTHONPATH": f"{folder}{os.pathsep}{os.getcwd()}"}
        done = subprocess.run(command(small(OPTION_2)), cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return work, done, hub


STAY_HERE = """
import sys
def stay_here(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple) and not str(args[1][0]).startswith("127."):
        print("left this machine for", args[1][0], file=sys.stderr)
        raise OSError("tests connect to this machine only")
    if event == "pickle.find_class" and args[0].startswith("torch"):
        print("unpickled", args, file=sys.stderr)
sys.addaudithook(stay_here)
"""


def test_the_line_trains_and_leaves_a_whole_run_folder(trained):
    work, done, _ = trained
    assert [path.name for path in work.iterdir()] == ["output"]
    assert {path.name for path in (work / "output").iterdir()} == RUN_FOLDER
    run = Run.open(work / "output")
    assert run.status == "completed" and run.losses()[0] == [1, 2, 3, 4]
    assert next(run.events("start"))["pictures"] == 6
    assert run.config.columns() == ("image", "text") and run.config.resolution == 64
    assert "left this machine" not in done.stderr and "unpickled" not in done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr


def test_pictures_of_the_prompt_are_drawn_before_and_after(trained):
    pictures = Run.open(trained[0] / "output").pictures()
    assert {step: len(paths) for step, paths in pictures.items() if step in (0, 4)} == {0: 4, 4: 4}


def test_tensorboard_has_loss_rate_and_pictures(trained):
    logs = next((trained[0] / "output" / "logs").rglob("events.out.tfevents*")).parent
    events = EventAccumulator(str(logs)).Reload()
    losses = [event["train_loss"] for event in Run.open(trained[0] / "output").events("step")]
    assert [scalar.value for scalar in events.Scalars("train_loss")] == pytest.approx(losses)
    assert [scalar.value for scalar in events.Scalars("lr")] == pytest.approx([1e-4] * 4)
    assert {image.step for tag in events.Tags()["images"] for image in events.Images(tag)} >= {0, 4}


def test_the_lora_loads_into_diffusers(trained):
    pipeline = load_pipeline("embedded:tiny-sdxl")
    before = pipeline.unet.mid_block.attentions[0].proj_in.weight.clone()
    pipeline.load_lora_weights(str(trained[0] / "output"))
    saved = load_file(trained[0] / "output" / "pytorch_lora_weights.safetensors")
    assert sum(tensor.abs().sum() for name, tensor in saved.items() if "lora_B" in name) > 0
    assert len(pipeline.get_active_adapters()) == 1
    assert torch.equal(before, pipeline.unet.mid_block.attentions[0].proj_in.weight)


def test_only_what_is_needed_came_from_the_hub(trained):
    hub = trained[2]
    files = hub.downloads(SDXL)
    assert sorted(f for f in files if "." + f.rpartition(".")[2] not in (".json", ".txt")) == [
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert sorted(hub.downloads(VAE)) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert hub.downloads(NARUTO) == ["data/train-00000-of-00001.parquet"]
    assert len(files) == len(set(files))
    assert not [line for line in hub.requests if line.startswith(("POST", "PUT")) and "paths-info" not in line]
