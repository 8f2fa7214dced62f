"""LoRA files that lack a half, hold one twice or do not fit: `check` says what every other command refuses them for."""

import json

import pytest
import torch
from safetensors.torch import load_file
from test_lora_strangers import CROSS, PATHS, SELF, lora, refusal, written

from sdxl_nb.lora.base import SDXL, Base
from sdxl_nb.lora.command import main
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.system.errors import ModelError

UP, DOWN = f"{SELF}.lora_up.weight", f"{SELF}.lora_down.weight"
MODULE = PATHS[SELF]


def without(key):
    return {name: tensor for name, tensor in lora().items() if name != key}


FAULTS = {
    "other width": (
        lora() | {DOWN: torch.ones(2, 5)},
        f"The LoRA's layer for {MODULE} is 640x5, the base model's is 640x640: another architecture.",
    ),
    "no up": (without(UP), f"the up weight of {MODULE} is missing; the file is incomplete."),
    "no down": (without(DOWN), f"the down weight of {MODULE} is missing; the file is incomplete."),
    "other rank": (
        lora() | {UP: torch.ones(640, 3)},
        f"the two weights of {MODULE} do not fit together; the file is da",
    ),
    "two alphas": (lora() | {f"{SELF}.alpha": torch.ones(2)}, f"the alpha of {MODULE} is 2 numbers, not one; the fil"),
    "whole numbers": (
        lora() | {DOWN: torch.ones(2, 640, dtype=torch.int8)},
        f"the weights of {MODULE} are whole numbers (int8) without a scale; get it as fp16.",
    ),
    "twice": (
        lora() | {f"{MODULE}.lora_A.weight": torch.ones(2, 640)},
        f"{MODULE}.lora_A.weight gives weights that the file holds under another name too, and otherwise; one of",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_says_what_others_refuse_it_for(fault, tmp_path, capsys):
    tensors, said = FAULTS[fault]
    path = written(tmp_path, tensors)
    if fault != "other width":  # which only a base can tell
        assert refusal(path).startswith(f"a.safetensors: {said}")
    assert main(["check", str(path)]) == 2
    assert said in capsys.readouterr().out
    assert main(["convert", str(path), str(tmp_path / "b.safetensors")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "b.safetensors").exists()


def test_check_counts_the_layers_that_do_not_fit(tmp_path, capsys):
    path = written(tmp_path, {key: tensor for key, tensor in lora().items() if not key.endswith("lora_up.weight")})
    assert main(["check", str(path)]) == 2
    assert "is missing; the file is incomplete. So with 1 more.\n" in capsys.readouterr().out


def test_the_same_weights_under_two_names_are_no_fault(tmp_path):
    """As from programs that write both namings for readers of either."""
    tensors = lora(CROSS)
    twice = {
        f"{PATHS[CROSS]}.lora_{part}.weight": tensors[f"{CROSS}.lora_{half}.weight"].clone()
        for part, half in (("A", "down"), ("B", "up"))
    }
    path = written(tmp_path, tensors | twice)
    assert main(["convert", str(path), str(tmp_path / "b.safetensors")]) == 0


def test_an_empty_file_is_no_lora(tmp_path, capsys):
    assert main(["check", str(written(tmp_path, {}))]) == 2
    assert "a.safetensors holds no tensors; it is no LoRA.\n" in capsys.readouterr().out


def test_linear_layers_written_as_convolutions_become_linear(tmp_path):
    """As merging tools write them: peft loads none of another shape than its module's."""
    flat = lora()
    square = {key: tensor[..., None, None] if tensor.ndim else tensor for key, tensor in flat.items()}
    goal = tmp_path / "b.safetensors"
    assert main(["convert", str(written(tmp_path, square)), str(goal), "--to", "diffusers"]) == 0
    made = load_file(goal)
    assert {key: tensor.shape for key, tensor in made.items()} == {
        f"{PATHS[module]}.lora_{letter}.weight": flat[f"{module}.lora_{half}.weight"].shape
        for module in (SELF, CROSS)
        for letter, half in (("A", "down"), ("B", "up"))
    }


def test_a_lora_of_ours_for_another_base_loses_no_key_in_silence(tmp_path):
    """Its header explains its keys, but not to a base that lacks their modules."""
    ours = tmp_path / "b.safetensors"
    block = "lora_unet_input_blocks_8_1_transformer_blocks_9_attn1_to_q"
    assert main(["convert", str(written(tmp_path, lora(block))), str(ours)]) == 0
    parts = json.loads(SDXL.description)
    small = Base.from_json(json.dumps(parts | {"unet": parts["unet"] | {"layers_per_block": 1}}))
    with pytest.raises(
        ModelError, match=r"^b\.safetensors was trained on a base of other shapes: this one has no place"
    ):
        read_lora(ours, small)
