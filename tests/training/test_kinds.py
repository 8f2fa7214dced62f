"""Runs of LoHa and LoKr: resumed bit for bit, gone on from, with what leaves layers out; and what is refused."""

import pytest
import torch
from small_runs import assert_same, gone_on, small, studio, train

from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.system.errors import ConfigError

pytestmark = pytest.mark.slow

SETTINGS = {
    "loha": {
        "lora_kind": "loha",
        "target_modules": ["to_q", "conv1"],
        "rank_dropout": 0.3,
        "gradient_checkpointing": True,
    },
    "lokr": {"lora_kind": "lokr", "lokr_factor": 4, "module_dropout": 0.4, "train_text_encoder": True},
    "lora": {"rank_dropout": 0.4, "module_dropout": 0.3, "scale_weight_norms": 0.01},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_stopped_and_resumed_it_is_the_run_that_never_stopped(tmp_path, kind):
    settings = SETTINGS[kind] | {"max_train_steps": 4, "center_crop": True}
    whole = train(small(tmp_path / "whole", **settings))
    again = gone_on(whole, tmp_path / "run", **settings)
    assert_same(whole.folder, again.folder)
    assert again.losses()[1][-2:] == whole.losses()[1][-2:]
    info = LoraFile(whole.folder).info()
    assert info.kind == {"loha": "LoHa", "lokr": "LoKr", "lora": "LoRA"}[kind] and info.config["lora_kind"] == kind
    if kind == "lora":
        assert all(event["scaled"] > 0 for event in list(whole.events("step"))[1:])


def test_a_micro_batch_and_recomputation_change_no_mask(tmp_path):
    settings = {"rank_dropout": 0.4, "module_dropout": 0.3, "train_batch_size": 4, "max_train_steps": 2}
    first = train(small(tmp_path / "a", **settings))
    other = train(small(tmp_path / "b", **settings, gradient_checkpointing=True))
    one, two = (read_lora(run.folder).layers for run in (first, other))
    for name, layer in one.items():
        torch.testing.assert_close(layer.up, two[name].up, atol=1e-6, rtol=1e-4)


def test_lora_weights_goes_on_from_a_lokr(tmp_path):
    before = train(small(tmp_path / "a", lora_kind="lokr", max_train_steps=2))
    made = studio(small(tmp_path / "b", lora_weights=str(before.folder), lora_kind="lokr"))
    mine, theirs = made.lora().layers, read_lora(before.folder).layers
    assert mine.keys() == theirs.keys()
    for name, layer in theirs.items():
        assert all(torch.equal(layer.parts[part], mine[name].parts[part]) for part in layer.parts)
    run = train(small(tmp_path / "c", lora_weights=str(before.folder), max_train_steps=1))
    assert LoraFile(run.folder).info().kind == "LoKr" and run.config.lora_kind == "lokr"
    assert any(not torch.equal(a.change(), theirs[name].change()) for name, a in read_lora(run.folder).layers.items())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lora_kind": "lokr", "use_dora": True}, "use_dora is of lora_kind lora, and this one is lokr: drop use_dora"),
        ({"lora_kind": "loha", "lora_dropout": 0.1}, "lora_dropout is of lora_kind lora, and this one is loha"),
        ({"lora_kind": "loha", "loraplus_lr_ratio": 4}, "loraplus_lr_ratio is of lora_kind lora"),
        ({"lora_kind": "loha", "lokr_factor": 4}, "lokr_factor needs lora_kind lokr: give it, or drop lokr_factor"),
        ({"use_dora": True, "rank_dropout": 0.1}, "rank_dropout leaves DoRA's magnitudes without their layer"),
        ({"use_dora": True, "scale_weight_norms": 1}, "scale_weight_norms knows no magnitudes: drop it"),
        (
            {"optimizer": "adamw_schedulefree", "scale_weight_norms": 1},
            "moves weights that optimizer adamw_schedulefree",
        ),
    ],
)
def test_what_goes_not_together_is_refused(tmp_path, changes, sentence):
    with pytest.raises(ConfigError) as error:
        small(tmp_path, **changes)
    assert sentence in str(error.value)
