"""A run folder that was renamed: its LoRA file is called as it is, and what a person named stays."""

import torch
from safetensors.torch import save_file

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.folder import RunFolder

HEADER = {"sdxl_nb_config": "{}"}


def begin(path, resumed=True, **changes):
    """A run that starts, or goes on, in this folder; returns what it says of its files."""
    config = TrainConfig(output_dir=str(path), seed=0, overwrite_output_dir=True, **changes)
    folder = RunFolder(config)
    told = folder.begin(config, resumed_from=path / "checkpoint-2" if resumed else None)
    folder.release()
    return told


def lora(path, name, **header):
    save_file({"a": torch.ones(1)}, path / f"{name}.safetensors", {**HEADER, "ss_output_name": name, **header})


def files(path):
    return sorted(file.stem for file in path.glob("*.safetensors"))


def test_the_file_follows_its_folder(tmp_path):
    assert begin(tmp_path / "old", resumed=False) == []
    lora(tmp_path / "old", "old")
    lora(tmp_path / "old", "pytorch_lora_weights")
    lora(tmp_path / "old", "backup", ss_output_name="old")  # a copy that someone made
    assert begin(tmp_path / "old") == []
    new = (tmp_path / "old").rename(tmp_path / "new")
    assert begin(new) == ["The LoRA file old.safetensors is called new.safetensors now, as its folder is."]
    assert files(new) == ["backup", "new", "pytorch_lora_weights"]
    assert begin(new) == [] and len(files(new)) == 3


def test_what_a_person_named_or_made_stays_and_is_said(tmp_path):
    begin(tmp_path / "old", resumed=False, output_name="first")
    lora(tmp_path / "old", "first")
    said = "first.safetensors stays as it is: this run's LoRA file is"
    assert begin(tmp_path / "old", output_name="second.safetensors") == [f"{said} second.safetensors now."]
    begin(tmp_path / "old", output_name="first")
    assert begin(tmp_path / "old") == [f"{said} old.safetensors now."]
    lora(tmp_path / "old", "old", ss_output_name="of another")
    new = (tmp_path / "old").rename(tmp_path / "new")
    assert begin(new)[0].startswith("old.safetensors, called as the folder was, stays as it is")
    lora(new, "new")
    (new / "new2").mkdir()
    newer = new.rename(tmp_path / "newer")
    lora(newer, "newer", ss_output_name="a person's")
    assert "this run's LoRA file is newer.safetensors now" in begin(newer)[0]
    assert files(newer) == ["first", "new", "newer", "old"]


def test_an_ending_is_not_doubled(tmp_path):
    for given in ("v2", "v2.safetensors", "v2.SafeTensors", "v2.safetensors.safetensors"):
        config = TrainConfig(output_dir=str(tmp_path), output_name=given)
        assert (config.output_name, config.lora_name()) == ("v2", "v2")
    assert TrainConfig(output_dir=str(tmp_path / "v3.safetensors")).lora_name() == "v3"
    assert TrainConfig(output_dir=str(tmp_path), output_name="v2.5").lora_name() == "v2.5"
