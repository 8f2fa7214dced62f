"""What ends a training: each is one clear sentence, and what was trained before is kept."""

import errno
import json
import re
import types

import pytest
import torch
from safetensors import SafetensorError
from small_runs import assert_same, small, train

from sdxl_nb.cache import latents
from sdxl_nb.config.layout import checkpoints
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import ConfigError, SdxlNbError
from sdxl_nb.training import outcome
from sdxl_nb.training.setup import Studio
from sdxl_nb.training.state import checkpoint
from sdxl_nb.training.state.checkpoint import Progress
from sdxl_nb.training.step import Step
from sdxl_nb.training.trainer import Trainer

pytestmark = pytest.mark.slow


def test_a_picture_too_large_for_memory(tmp_path, monkeypatch):
    def no_memory(studio, noisy, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Studio, "predict", no_memory)
    with pytest.raises(SdxlNbError, match="too little memory for one picture at a time: add --gradient_checkpointing"):
        train(small(tmp_path))
    assert Run.open(tmp_path).status == "failed"


def test_memory_that_ends_while_encoding_has_a_sentence_of_its_own(tmp_path, monkeypatch):
    def no_memory(vae, pixels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(latents, "encode", no_memory)
    with pytest.raises(SdxlNbError, match="memory for the VAE to encode pictures: end other programs") as caught:
        train(small(tmp_path))
    assert "train_batch_size" not in str(caught.value) and Run.open(tmp_path).summary()["error"] == str(caught.value)


def test_a_validation_that_fails_loses_no_work(tmp_path, monkeypatch):
    def fails(studio, step):
        assert step == 0 or f"checkpoint-{step}" in [p.name for p in checkpoints(tmp_path)] or step == 4
        if step == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return []

    prompts = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}
    changes = {"checkpointing_steps": 3, "lora_dropout": 0.2}
    with monkeypatch.context() as patch:
        patch.setattr(Studio, "validate", fails)
        with pytest.raises(SdxlNbError, match=r"memory to draw .* without --validation_prompt.*; checkpoint-4 is"):
            train(small(tmp_path, **changes, **prompts))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-4"]
    run = train(small(tmp_path, resume_from_checkpoint="latest", **changes, **prompts))
    assert list(run.pictures()) == [4, 6]  # the one that failed is drawn now
    assert_same(train(small(tmp_path / "blind", **changes)).folder, tmp_path)


def test_a_gradient_that_is_no_number(tmp_path, monkeypatch):
    gradients = Step._gradients

    def broken(self, mine, count):
        total = gradients(self, mine, count)
        if self.step == self.wrong:
            self.flat.weights.grad[3] = float("nan")
        return total

    monkeypatch.setattr(Step, "_gradients", broken)
    for wrong, said in [(0, r"or check the VAE\.$"), (3, r"check the VAE; checkpoint-2 is still good\.$")]:
        monkeypatch.setattr(Step, "wrong", wrong, raising=False)
        with pytest.raises(SdxlNbError, match=rf"The gradient at step {wrong + 1} is not a finite number: .*{said}"):
            train(small(tmp_path / str(wrong)))
        assert [path.name for path in checkpoints(tmp_path / str(wrong))] == ["checkpoint-2"][: wrong // 3]


def test_under_fp16_a_gradient_may_overflow_and_a_loss_may_not(tmp_path):
    updates = types.SimpleNamespace(scaler=types.SimpleNamespace(is_enabled=lambda: True))
    scaling = types.SimpleNamespace(updates=updates, overflows=0, _kept=lambda how: "")
    assert Trainer._check_finite(scaling, 1, 0.5, float("inf")) is None
    with pytest.raises(SdxlNbError, match="The loss at step 1"):
        Trainer._check_finite(scaling, 1, float("nan"), 1.0)


def test_fp16_that_overflows_at_every_step_does_not_go_on(tmp_path, monkeypatch):
    """Twenty in a row may be a scale that is too large; with one more the run would end untrained and completed."""
    gradients = Step._gradients

    def overflows(self, mine, count):
        total = gradients(self, mine, count)
        if self.step >= 2 and self.step != 22:
            self.flat.weights.grad[3] = float("inf")
        return total

    monkeypatch.setattr("sdxl_nb.training.trainer.check_machine", lambda config: None)  # which wants a GPU for fp16
    monkeypatch.setattr(Step, "_gradients", overflows)
    changes = {"mixed_precision": "fp16", "max_train_steps": 60, "checkpointing_steps": 16}
    with pytest.raises(SdxlNbError, match=r"The gradient at step 44 is not .*--mixed_precision bf16.*checkpoint-32 is"):
        train(small(tmp_path, **changes))
    run = Run.open(tmp_path)
    assert run.status == "failed" and run.losses()[0] == list(range(1, 44))
    state = json.loads((tmp_path / "checkpoint-32" / "state.json").read_text())["scaler"]
    assert state["scale"] == 65536 / 2**29  # of steps 3 to 22 and 24 to 32
    with pytest.raises(SdxlNbError, match="The gradient at step 53 is not"):  # a resumed run counts anew
        train(small(tmp_path, resume_from_checkpoint="latest", **changes))


def test_a_loss_that_is_no_number(tmp_path, monkeypatch):
    loss = Step._loss
    monkeypatch.setattr(Step, "_loss", lambda self, *at: loss(self, *at) * (float("nan") if self.step == 4 else 1.0))
    with pytest.raises(SdxlNbError, match="loss at step 5 is not a finite number: lower --learning_rate"):
        train(small(tmp_path))
    run = Run.open(tmp_path)
    assert run.status == "failed" and "step 5" in run.summary()["error"] and run.losses()[0] == [1, 2, 3, 4]
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4"]
    monkeypatch.undo()
    resumed = train(small(tmp_path, resume_from_checkpoint="latest"))
    assert resumed.status == "completed" and resumed.losses()[0] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk(tmp_path, monkeypatch, error):
    def full(*arguments):
        raise error

    saved, calls = checkpoint.save_file, []
    monkeypatch.setattr(checkpoint, "save_file", lambda *a: (calls.append(a), (saved if len(calls) == 1 else full)(*a)))
    with pytest.raises(SdxlNbError) as caught:
        train(small(tmp_path))
    assert re.search(r"Cannot write to output_dir .* \(no space left on device\): make room", str(caught.value))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2"] and not list(tmp_path.glob(".check*"))
    assert Run.open(tmp_path).status == "failed" and json.loads((tmp_path / "run.json").read_text())


def test_a_folder_that_disappears(tmp_path):
    def remove(event):
        if (event["event"], event["step"]) == ("step", 1):
            (tmp_path / "run").rename(tmp_path / "moved")
            (tmp_path / "run").touch()

    with pytest.raises(SdxlNbError, match=r"Cannot write to output_dir .*run \(not a directory\)"):
        train(small(tmp_path / "run"), remove)


def test_a_listener_that_fails_fails_the_run(tmp_path):
    def listen(event):
        if event["step"] == 2:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        train(small(tmp_path), listen)
    run = Run.open(tmp_path)
    assert run.status == "failed" and run.summary()["error"] == "RuntimeError: mine"


def test_a_file_missing_elsewhere_is_not_blamed_on_the_run_folder(tmp_path):
    def listen(event):
        if event["step"] == 1:
            (tmp_path / "elsewhere").read_text()

    with pytest.raises(FileNotFoundError):
        train(small(tmp_path / "run"), listen)


def test_a_checkpoint_is_praised_only_where_there_is_one(tmp_path):
    def said():
        with pytest.raises(SdxlNbError) as caught, outcome.explained(tmp_path):
            raise OSError(errno.ENAMETOOLONG, "File name too long", str(tmp_path / "x"))
        return str(caught.value)

    assert said().endswith("(file name too long): make room or choose another folder.")
    progress = Progress(3, {}, 1, "", 1, "float32", {})
    checkpoint.save(tmp_path, progress, {"weights": torch.zeros(1)}, lambda draft: None)
    assert said().endswith("make room or choose another folder; checkpoint-3 is complete.")


def test_a_module_that_no_program_knows_is_refused_before_anything_is_written(tmp_path):
    config = small(tmp_path / "run", target_modules=["to_q", "conv_in"])
    with pytest.raises(ConfigError, match=r"^target_modules: .* does not know the key lora_unet_input_blocks_0_0\."):
        train(config)
    assert not (tmp_path / "run").exists()
