"""What a configuration needs of its machine, on machines made by hand, and on this one."""

# ruff: noqa: E501  (a table row is one line)

import pytest

from sdxl_nb.config.machine import Machine, check_machine
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError

EVERYTHING = frozenset({"xformers", "bitsandbytes", "prodigyopt", "tensorboard", "wandb", "mlflow", "comet_ml"})
CPU = Machine("cpu", True, frozenset({"tensorboard"}), False)
MPS = Machine("mps", False, frozenset({"tensorboard"}), False)
TURING = Machine("cuda", False, EVERYTHING, False)
AMPERE = Machine("cuda", True, EVERYTHING, True)
BARE_GPU = Machine("cuda", True, frozenset(), False)
XFORMERS = "enable_xformers_memory_efficient_attention"

REFUSED = [
    (CPU, {"mixed_precision": "fp16"}, "mixed_precision fp16 needs a CUDA GPU or Apple MPS and this machine has neither: use --mixed_precision no, or --preset tiny, which trains here in minutes"),
    (MPS, {"mixed_precision": "bf16"}, "mixed_precision bf16 does not work on Apple MPS: use --mixed_precision fp16"),
    (TURING, {"mixed_precision": "bf16"}, "mixed_precision bf16 needs an Ampere or later GPU: use --mixed_precision fp16 on this one"),
    (CPU, {XFORMERS: True}, f"{XFORMERS} needs a CUDA GPU and this machine has none: drop it, PyTorch's SDPA is used by default"),
    (BARE_GPU, {XFORMERS: True}, f"{XFORMERS} needs xformers: pip install xformers, or drop it, PyTorch's SDPA is used by default"),
    (BARE_GPU, {"use_8bit_adam": True}, "use_8bit_adam needs bitsandbytes: pip install bitsandbytes, or drop it, AdamW in fp32 is the default"),
    (CPU, {"optimizer": "prodigy"}, "optimizer prodigy needs prodigyopt: pip install prodigyopt, or use --optimizer adamw"),
    (CPU, {"optimizer": "prodigy_schedulefree"}, "optimizer prodigy_schedulefree needs prodigy-plus-schedule-free: pip install prodigy-plus-schedule-free, or use --optimizer adamw"),
    (CPU, {"optimizer": "lion"}, "optimizer lion needs lion-pytorch: pip install lion-pytorch, or use --optimizer adamw"),
    (CPU, {"optimizer": "paged_adamw8bit"}, "optimizer paged_adamw8bit needs a CUDA GPU and this machine has none: drop it, AdamW in fp32 is the default"),
    (CPU, {"optimizer": "adamw8bit"}, "optimizer adamw8bit needs a CUDA GPU and this machine has none: drop it, AdamW in fp32 is the default"),
    (AMPERE, {"enable_npu_flash_attention": True}, "enable_npu_flash_attention needs an Ascend NPU with torch_npu: drop it, PyTorch's SDPA is used by default"),
    (CPU, {"report_to": "mlflow"}, "report_to mlflow needs the package mlflow: pip install mlflow, or --report_to none"),
    (CPU, {"report_to": "wandb"}, "report_to wandb needs the package wandb: pip install wandb, or --report_to none"),
    (BARE_GPU, {}, "report_to tensorboard needs the package tensorboard: pip install tensorboard, or --report_to none"),
    (CPU, {"push_to_hub": True}, "push_to_hub needs a login: set HF_TOKEN, or run hf auth login once"),
    (CPU, {"train_data_dir": "no/such"}, "train_data_dir no/such is not a folder: give the folder that holds the pictures"),
    (CPU, {"train_data_dir": "no/data.yaml"}, "train_data_dir no/data.yaml is not there: give a folder, or a file that lists folders"),
    (CPU, {"pretrained_model_name_or_path": "./no"}, "pretrained_model_name_or_path ./no does not exist: give a hub id, a diffusers folder or a .safetensors file"),
    (CPU, {"pretrained_vae_model_name_or_path": "v.safetensors"}, "pretrained_vae_model_name_or_path v.safetensors does not exist: give a hub id, a diffusers folder or a .safetensors file"),
    (CPU, {"resume_from_checkpoint": "checkpoint-7"}, "resume_from_checkpoint checkpoint-7 is not a checkpoint folder: give one, or latest"),
    (CPU, {"train_data_dir": "d" * 300}, f"train_data_dir {'d' * 300} is not a folder: give the folder that holds the pictures"),
    (CPU, {"pretrained_model_name_or_path": "/" + "m" * 300}, f"pretrained_model_name_or_path /{'m' * 300} does not exist: give a hub id, a diffusers folder or a .safetensors file"),
    (CPU, {"resume_from_checkpoint": "c" * 300}, f"resume_from_checkpoint {'c' * 300} is not a checkpoint folder: give one, or latest"),
    (CPU, {"train_data_dir": "~no-such-user/a"}, "train_data_dir ~no-such-user/a is not a folder: give the folder that holds the pictures"),
    (CPU, {"output_dir": "a_file"}, "output_dir a_file is a file: choose another folder"),
]  # fmt: skip


@pytest.mark.parametrize(("machine", "settings", "sentence"), REFUSED)
def test_what_the_machine_lacks_is_one_sentence_with_the_remedy(tmp_path, monkeypatch, machine, settings, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("")
    with pytest.raises(ConfigError) as refused:
        check_machine(TrainConfig(**settings), machine)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("machine", "settings"),
    [
        (CPU, {}),
        (CPU, {"mixed_precision": "bf16", "resume_from_checkpoint": "latest", "train_data_dir": "s3://bucket/fish"}),
        (MPS, {"mixed_precision": "fp16"}),
        (AMPERE, {"mixed_precision": "bf16", XFORMERS: True, "use_8bit_adam": True, "push_to_hub": True}),
        (TURING, {"mixed_precision": "fp16", "optimizer": "prodigy"}),
    ],
)
def test_what_the_machine_has_passes(machine, settings):
    assert check_machine(TrainConfig(**settings), machine) is None


@pytest.mark.parametrize("name", ["pictures.zip", "pictures.tar", "data.yaml", "concepts.json"])
def test_pictures_may_be_in_an_archive_or_listed_in_a_file(tmp_path, name):
    (tmp_path / name).write_text("")
    assert check_machine(TrainConfig(train_data_dir=str(tmp_path / name)), CPU) is None


def test_the_precision_that_accelerate_launch_sets_counts(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ConfigError, match="fp16 needs a CUDA GPU"):
        check_machine(TrainConfig(), CPU)
    assert check_machine(TrainConfig(mixed_precision="no"), CPU) is None


def test_a_checkpoint_may_be_named_inside_the_run_folder(tmp_path):
    (tmp_path / "checkpoint-7").mkdir()
    inside = TrainConfig(output_dir=str(tmp_path), resume_from_checkpoint="checkpoint-7")
    assert check_machine(inside, CPU) is None
    assert check_machine(inside.replace(resume_from_checkpoint=str(tmp_path / "checkpoint-7")), CPU) is None


def test_a_forced_cpu_is_a_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    here = Machine.here()
    assert (here.device, here.bf16) == ("cpu", True)
    assert "tensorboard" in here.packages


def test_a_precision_of_accelerates_that_is_not_ours(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    for settings in ({}, {"mixed_precision": "bf16"}):
        with pytest.raises(
            ConfigError, match=r"^accelerate is configured for fp8, in which no LoRA is trained here: set"
        ):
            check_machine(TrainConfig(**settings), AMPERE)
