"""The benchmarks run: ours alone on a few steps, beside a script that only logs, and the GPU's on the CPU."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import architectures, compare, copies, gpu, growth, standin

SCRIPT = """
import sys
from accelerate import Accelerator
from torchvision import transforms
from torchvision.transforms.functional import crop

accelerator = Accelerator()
steps = int(next(flag for flag in sys.argv if flag.startswith("--max_train_steps=")).partition("=")[2])
for step in range(steps):
    accelerator.log({"train_loss": 1.0}, step=step)
"""


@pytest.mark.soak
def test_ours_alone_prints_its_own_column(capfd):
    lines = compare.main(["--rounds", "1", "--steps", "3", "--work", "t-64-b1"])
    assert lines == [line for line in capfd.readouterr().out.splitlines() if line in lines]
    rows = {cells[1].strip(): cells[4] for cells in (line.split("|") for line in lines if line.startswith("| "))}
    assert float(rows["step, CPU ms"]) > 1 and float(rows["until the first step, warm, CPU s"]) > 0
    assert float(rows["until the first step, warm, CPU s"]) < float(rows["job, warm cache, CPU s"])


@pytest.mark.soak
def test_beside_a_script_there_are_ratios(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    work = compare.Work("t-64-b1", 3, pictures=4)
    compare.prepare(tmp_path, work)
    found = compare.one_round(tmp_path, work, str(tmp_path / "script.py"))
    assert found["script"].losses == (1.0, 1.0, 1.0) and len(found["warm"].losses) == 3
    assert found["cold"].losses == found["warm"].losses
    cells = [line.split("|") for line in compare.table(work, [found], None)[4:-1]]
    assert [each[5].strip().endswith("x") and not each[6].strip() for each in cells] == [True] * 7
    (tmp_path / "script.py").write_text("raise SystemExit('no such flag')")
    with pytest.raises(RuntimeError, match="no such flag"):
        compare.one_round(tmp_path, work, str(tmp_path / "script.py"))


@pytest.mark.soak
def test_beside_a_commit_there_are_ratios_of_each_round():
    lines = compare.main(["--commit", "HEAD", "--rounds", "2", "--steps", "3", "--work", "t-64-b1"])
    cells = [line.split("|") for line in lines[4:-1]]
    assert len(cells) == 7 and all(re.fullmatch(r" [\d.]+x \([\d.]+ to [\d.]+\) ", each[6]) for each in cells)
    assert all(not each[2].strip() and float(each[3]) > 0 for each in cells)


SMALL = ["--device", "cpu", "--small", "--pixels", "64", "--steps", "2", "--rank", "2"]


@pytest.mark.soak
def test_the_gpu_script_measures_whole_programs_too(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    programs = gpu.main([*SMALL, "--script", str(tmp_path / "script.py")])[6:]
    assert [line.split(" | ")[1:3] for line in programs[2:]] == [
        [name, kept] for kept in ("off", "whole") for name in ("diffusers' script", "sdxl_nb.train")
    ]
    assert all(float(line.split(" | ")[3]) > 0 for line in programs[2:])


@pytest.mark.soak
def test_the_gpu_script_runs_small_and_says_what_it_needs():
    lines = gpu.main(SMALL)
    assert len(lines) == 2 + 4 and all(line.startswith("| 64 |") for line in lines[2:])
    with pytest.raises(SystemExit, match="needs a CUDA GPU"):
        gpu.main([])


def test_the_full_base_is_as_large_as_sdxl():
    with torch.device("meta"):
        models = architectures.make_models(architectures.SIZES["full"])
    counts = {name: sum(parameter.numel() for parameter in model.parameters()) for name, model in models.items()}
    assert counts == {
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
        "unet": 2_567_463_684,
    }


def test_growth_changes_one_thing_at_a_time(tmp_path):
    works = growth.works([1000])
    base = works["40 steps"]
    for label, work in works.items():
        changed = [
            field for field in ("name", "steps", "rank", "pictures") if getattr(work, field) != getattr(base, field)
        ]
        assert len(changed) <= 1, label
    growth.many_pictures(tmp_path, growth.DISTINCT + 2, 8)
    lines = (tmp_path / "metadata.jsonl").read_text().splitlines()
    different = {file.read_bytes() for file in tmp_path.glob("*.jpg")}
    assert len(lines) == len(different) == growth.DISTINCT + 2
    assert json.loads(lines[-1])["file_name"] == "001001.jpg"


def test_many_names_of_few_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "PLACE", 10)
    copies.make(tmp_path, 25)
    named = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    files = [tmp_path / each["file_name"] for each in named]
    assert len(set(files)) == 25 and named[24]["file_name"] == "002/0000024.jpg"
    for number, file in enumerate(files):
        with Image.open(file) as picture:
            assert picture.size[::-1] == copies.SIDES[number % len(copies.SIDES)]
    assert len({file.stat().st_ino for file in files}) == 6 + 6 + 5  # of three subfolders


def test_the_stand_in_does_what_torchvision_does():
    picture = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
    resized = standin.Resize(10, standin.InterpolationMode.LANCZOS)(picture)
    assert resized.size == (15, 10)
    assert np.array_equal(np.asarray(standin.CenterCrop(10)(resized)), np.asarray(resized)[:, 2:12])
    flipped = standin.RandomHorizontalFlip(1.0)(picture)
    assert np.array_equal(np.asarray(flipped), np.asarray(picture)[:, ::-1])
    tensor = standin.Compose([standin.ToTensor(), standin.Normalize([0.5], [0.5])])(picture)
    expected = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255 * 2 - 1
    assert tensor.shape == (3, 20, 30)
    torch.testing.assert_close(tensor, expected)
