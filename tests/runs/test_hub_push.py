"""push_to_hub against a stand-in for the hub: what is published, under which name, and what happens when it fails."""

import json
import os
import subprocess
import sys

import pytest
from hub import Hub
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.publishing import published, repository_name
from sdxl_nb.runs.run import Run

pytestmark = pytest.mark.slow

TRAIN = (
    "--preset tiny --max_train_steps 2 --lr_warmup_steps 0 --checkpointing_steps 1 --train_batch_size 2 --push_to_hub"
)
CARD = """---
base_model: "{base}"
---
![](validation/step-0/00-7.png) ![](validation/step-9/00-7.png) ![](validation/step-9/../../config.json.png)
"""


def environment(hub, folder, **more):
    """A process that finds this hub, and no other: without proxies."""
    kept = {name: value for name, value in hub.environment(folder / "home").items() if "proxy" not in name.lower()}
    return kept | {"PYTHONPATH": os.getcwd(), "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | more


@pytest.fixture
def folder(tmp_path):
    """A finished run folder, as far as publishing looks at it."""
    run = tmp_path / "my run!"
    config = TrainConfig.preset("tiny", output_dir=str(run), validation_prompt="a dragon", validation_seed=7)
    for step in (0, 5, 9):
        (run / "validation" / f"step-{step}").mkdir(parents=True)
        Image.new("RGB", (8, 8), (step, 0, 0)).save(run / "validation" / f"step-{step}" / "00-7.png")
    for name in ("pytorch_lora_weights", config.lora_name()):
        (run / f"{name}.safetensors").write_bytes(name.encode())
    config.save(run / "config.json")
    (run / "README.md").write_text(CARD.format(base="o/base"))
    (run / "events.jsonl").write_text("{}\n")
    for name in ("logs", "checkpoint-9", "wandb"):
        (run / name).mkdir()
        (run / name / "private.txt").write_text("mine")
    return run


def publish(hub, folder, *arguments, token=True):
    """python -m sdxl_nb.hub FOLDER in a fresh process."""
    command = [sys.executable, "-m", "sdxl_nb.hub", folder.name, *arguments]
    secret = {"HF_TOKEN": hub.token} if token is True else {"HF_TOKEN": token} if token else {}
    where = environment(hub, folder.parent, **secret)
    return subprocess.run(command, cwd=folder.parent, env=where, capture_output=True, text=True)


def test_what_is_published_is_the_lora_the_card_and_its_pictures(folder):
    with Hub() as hub:
        done = publish(hub, folder)
        assert (done.returncode, done.stdout) == (0, f"Uploaded to {hub.url}/me/my-run\n"), done.stderr
        again = publish(hub, folder, "studio/fish")
        assert again.stdout == f"Uploaded to {hub.url}/studio/fish\n", again.stderr
        once_more = publish(hub, folder, "studio/fish")
        assert once_more.returncode == 0, once_more.stderr
    assert [commit["repo"] for commit in hub.commits] == ["me/my-run", "studio/fish", "studio/fish"]
    assert hub.commits[0]["files"] == hub.commits[1]["files"]
    files = ["pytorch_lora_weights.safetensors", "my run!.safetensors", "README.md"]
    files += ["validation/step-0/00-7.png", "validation/step-9/00-7.png"]
    assert hub.commits[0]["files"] == {name: (folder / name).read_bytes() for name in files}


def test_published_works_without_pictures(folder):
    (folder / "README.md").write_text("no picture")
    config = TrainConfig.load(folder / "config.json")
    assert published(config, folder) == ["pytorch_lora_weights.safetensors", "my run!.safetensors", "README.md"]


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("output", "output"),
        ("My LoRA! (v2)", "My-LoRA-v2"),
        ("a--b..c", "a-b-c"),
        ("-.x.-", "x"),
        ("\u732b", "sdxl-lora"),
        ("y" * 200, "y" * 96),
    ],
)
def test_a_folders_name_becomes_one_that_the_hub_allows(name, cleaned):
    from huggingface_hub.utils import validate_repo_id

    assert repository_name(name) == cleaned
    validate_repo_id(cleaned)


@pytest.mark.parametrize("wrong", ["token", "down", "card", "name"])
def test_a_failed_upload_says_that_the_lora_is_safe_and_what_to_do(folder, wrong):
    arguments = ["not a name"] if wrong == "name" else []
    if wrong == "card":
        (folder / "README.md").write_text(CARD.format(base="embedded:tiny-sdxl"))
    with Hub() as hub:
        if wrong != "down":
            done = publish(hub, folder, *arguments, token="hf_wrong" if wrong == "token" else True)
    if wrong == "down":
        done = publish(hub, folder)
    reasons = {
        "token": "the hub does not accept the token: set HF_TOKEN to one that may write",
        "down": f"the hub at {hub.url} cannot be reached",
        "card": "Invalid metadata in README.md",
    }
    name = arguments[0] if arguments else "my-run"
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"error: The upload to {name} failed ({reasons.get(wrong, '')}")
    assert "the LoRA is safe in my run!: upload it later with python -m sdxl_nb.hub " in done.stderr
    assert hub.commits == [] and hub.token not in done.stderr and "hf_wrong" not in done.stderr


def test_a_folder_without_a_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with Hub() as hub:
        done = publish(hub, tmp_path / "empty")
    assert (done.returncode, done.stderr) == (
        1,
        "error: empty holds no finished run: give the output_dir of one\n",
    )


def test_training_publishes_at_its_end_without_a_prompt_and_keeps_the_token_to_itself(tmp_path):
    """The diffusers script ends with a crash here (no validation prompt); W&B, offline, must not keep it either."""
    with Hub() as hub:
        line = [*TRAIN.split(), "--output_dir", "output", "--report_to", "wandb", "--validation_prompt="]
        where = environment(hub, tmp_path, HF_TOKEN=hub.token, WANDB_MODE="offline")
        done = subprocess.run(
            [sys.executable, "-m", "sdxl_nb.train", *line], cwd=tmp_path, env=where, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert f"Uploaded to {hub.url}/me/output." in done.stdout
    run = Run.open(tmp_path / "output")
    assert run.status == "completed" and not list(run.events("warning"))
    (commit,) = hub.commits
    assert set(commit["files"]) == {"README.md", "output.safetensors", "pytorch_lora_weights.safetensors"}
    assert all((run.folder / name).read_bytes() == content for name, content in commit["files"].items())
    assert json.loads((run.folder / "config.json").read_text())["push_to_hub"] is True
    written = [path for path in run.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any("offline-run" in str(path) for path in written) and len(written) > 10
    assert not [path for path in written if hub.token.encode() in path.read_bytes()]
    assert hub.token not in done.stdout + done.stderr
