"""Bad input on the command line: the exact sentence, exit code 2, no traceback, nothing written."""

# ruff: noqa: E501  (a table row is one line)

import shlex
import sys
import types
from pathlib import Path

import pytest
from test_flags import OPTION_2

from sdxl_nb import train
from sdxl_nb.config.machine import Machine, check_machine
from sdxl_nb.system.errors import DataError

FILES = {
    "typo.json": '{"rnk": 8}',
    "broken.json": '{"rank": 8,}',
    "broken.yaml": "rank: [8",
    "list.yaml": "- rank",
    "token.yaml": "hub_token: hf_secret",
    "boolean.yaml": "rank: true",
    "date.yaml": "output_name: 2024-01-01",
    "sources.yaml": "dataset_name: a/b\ntrain_data_dir: pictures",
    "latin.json": b'{"trigger_word": "\xfc"}',
    "columns.json": '{"a/b": ["image"]}',
    "run.ini": "rank = 8",
    "null.json": '{"rank": null}',
}
BAD = [
    # names
    ("--rnk 8", "unknown flag --rnk: did you mean --rank?"),
    ("--train-batch-size 8", "unknown flag --train-batch-size: did you mean --train_batch_size?"),
    ("--qqq 8", "unknown flag --qqq: python -m sdxl_nb.train --help lists them all"),
    ("--hub_token hf_secret", "hub_token is not taken, because it would end up in logs and files: set HF_TOKEN in the environment instead"),
    ("--hub_token=hf_secret", "hub_token is not taken, because it would end up in logs and files: set HF_TOKEN in the environment instead"),
    ("pictures", "a value stands alone, without a flag before it: put quotes around values with spaces"),
    ("--preset tinny", "unknown preset tinny: did you mean tiny?"),
    ("--preset mine", "unknown preset mine: choose from tiny, sdxl-6gb, sdxl-8gb, sdxl-12gb, sdxl-16gb, sdxl-24gb, sdxl-80gb"),
    # values
    ("--rank", "--rank needs a value; one that starts with a dash is written --rank=-VALUE"),
    ("--validation_prompt -x", "--validation_prompt needs a value; one that starts with a dash is written --validation_prompt=-VALUE"),
    ("--no_random_flip=1", "--no_random_flip takes no value: write --no_random_flip alone"),
    ("--rank 0", "rank must be at least 1, not 0"),
    ("--rank four", "rank must be a whole number, not 'four'"),
    ("--rank 4.5", "rank must be a whole number, not '4.5'"),
    ("--max_train_steps 0", "max_train_steps must be at least 1, not 0"),
    ("--learning_rate fast", "learning_rate must be a number, not 'fast'"),
    ("--learning_rate=-1", "learning_rate must be greater than 0, not -1"),
    ("--snr_gamma nan", "snr_gamma must be a finite number, not 'nan'"),
    ("--lora_dropout 1", "lora_dropout must be less than 1, not 1"),
    ("--lora_kind lohr", "lora_kind must be lora, loha or lokr, not 'lohr'"),
    ("--lokr_factor 0", "lokr_factor must be at least 1, not 0"),
    ("--rank_dropout 1", "rank_dropout must be less than 1, not 1"),
    ("--module_dropout=-1", "module_dropout must be at least 0, not -1"),
    ("--scale_weight_norms 0", "scale_weight_norms must be greater than 0, not 0"),
    ("--tlora_min_rank 0", "tlora_min_rank must be at least 1, not 0"),
    ("--tlora_alpha 0", "tlora_alpha must be greater than 0, not 0"),
    ("--slider_strength 0", "slider_strength must be greater than 0, not 0"),
    ("--slider_guidance 0", "slider_guidance must be greater than 0, not 0"),
    ("--lora_kind lokr --torch_compile", "torch_compile is for lora_kind lora alone, and this one is lokr: drop torch_compile"),
    ("--cuda_graphs --debug_loss", "cuda_graphs repeats what was recorded once, which debug_loss forbids: drop one of them"),
    ("--seed 4294967296", "seed must be at most 4294967295, not 4294967296"),
    ("--random_flip maybe", "random_flip must be true or false, not 'maybe'"),
    ("--mixed_precision fp8", "mixed_precision must be no, fp16 or bf16, not 'fp8'"),
    ("--output_dir ''", "output_dir must not be empty"),
    ("--output_dir s3://bucket/run", "output_dir must be a local folder, not 's3://bucket/run': upload it after the run"),
    ("--output_name a/b", "output_name must be a plain file name, not 'a/b': folders go in output_dir"),
    ("--resolution 1000 --resolution 100", "resolution must be a multiple of 8, not 100: use 96 or 104"),
    ("--target_modules atention", "target_modules has no preset atention: did you mean attention?"),
    ("--target_modules attention+f", "target_modules has no preset attention+f: did you mean attention+ff?"),
    ("--target_modules all to_q", "target_modules takes the preset all alone: drop it or the other names"),
    ("--target_modules to_q,to_k", "target_modules has 'to_q,to_k', which is no module name: separate by spaces"),
    ("--target_modules '.*('", "target_modules is not a valid pattern, '.*(': missing ), unterminated subpattern at position 2"),
    ("--pretrained_model_name_or_path embedded:sdxl", "pretrained_model_name_or_path 'embedded:sdxl' does not exist: use embedded:tiny-sdxl"),
    ("--dataset_name embedded:fish", "dataset_name 'embedded:fish' does not exist: use embedded:blueprint or embedded:emblem"),
    ("--dataset_name_mapping columns.txt", "dataset_name_mapping is neither JSON text nor a file, 'columns.txt': No such file or directory"),
    ("--dataset_name_mapping {a", "dataset_name_mapping is not valid JSON, '{a': Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ("--dataset_name_mapping columns.json", """dataset_name_mapping must give a/b its columns as ["IMAGE COLUMN", "CAPTION COLUMN"], not ['image']"""),
    ("--output_name 'a\nb'", r"output_name holds a control character, 'a\nb': remove it"),
    ("--output_name .safetensors", "output_name '.safetensors' is nothing but an ending: give a name before it"),
    ("--output_name pytorch_lora_weights.safetensors", "output_name pytorch_lora_weights is the diffusers file's own name: choose another"),
    (f"--output_name {'é' * 101}", "output_name must have at most 200 bytes: shorten it"),
    (f"--output_dir a/{'b' * 256}/c", f"output_dir has a part of more than 255 bytes, '{'b' * 56}...: shorten it"),
    (f"--output_dir a/{'b' * 201}", "output_name is null, and the run folder's name has more than 200 bytes: give a shorter one"),
    ("--logging_dir /tmp", "logging_dir must lie inside output_dir, not '/tmp': give a name such as logs"),
    ("--logging_dir a/../..", "logging_dir must lie inside output_dir, not 'a/../..': give a name such as logs"),
    (f"--logging_dir {'b' * 256}", f"logging_dir has a part of more than 255 bytes, '{'b' * 56}...: shorten it"),
    ("--max_train_steps 1000000001", "max_train_steps must be at most 1000000000, not 1000000001"),
    ("--num_train_epochs 1000000001", "num_train_epochs must be at most 1000000000, not 1000000001"),
    ("--config null.json", "rank must not be null: leave it out for the default, or give a value"),
    # combinations
    ("--dataset_name a/b --train_data_dir c", "dataset_name and train_data_dir are both given: keep one of them"),
    ("--dataset_name=", "there are no training pictures: give dataset_name or train_data_dir"),
    ("--train_data_dir c --dataset_config_name d", "dataset_config_name needs dataset_name: drop it, a folder has no such thing"),
    ("--snr_gamma 5 --rescale_betas_zero_snr", "snr_gamma divides by zero with rescale_betas_zero_snr and epsilon prediction: drop one of them, or use prediction_type v_prediction"),
    ("--num_validation_images 2", "num_validation_images needs validation_prompt: say what to draw"),
    ("--hub_model_id me/fish", "hub_model_id needs push_to_hub: add it, or drop hub_model_id"),
    ("--output_dir pytorch_lora_weights", "output_name pytorch_lora_weights is the diffusers file's own name: choose another"),
    ("--enable_xformers_memory_efficient_attention --enable_npu_flash_attention", "enable_xformers_memory_efficient_attention and enable_npu_flash_attention exclude each other: drop one"),
    # files
    ("--config none.json", "config file none.json cannot be read: No such file or directory"),
    ("--config .", "config file . must end in .json, .yaml, .yml or .toml (or .sh or .txt, for a command line)"),
    ("--config run.ini", "config file run.ini must end in .json, .yaml, .yml or .toml (or .sh or .txt, for a command line)"),
    ("--config typo.json", "unknown setting rnk in typo.json: did you mean rank?"),
    ("--config broken.yaml", "config file broken.yaml is not valid YAML: expected ',' or ']', but got '<stream end>', line 1"),
    ("--config list.yaml", "config file list.yaml must hold settings as NAME: VALUE, not a list"),
    ("--config token.yaml", "hub_token is not taken, because it would end up in logs and files: set HF_TOKEN in the environment instead"),
    ("--config boolean.yaml", "rank must be a number, not true"),
    ("--config date.yaml", "output_name must be text (in a YAML file, put it in quotes), not datetime.date(2024, 1, 1)"),
    ("--config sources.yaml", "dataset_name and train_data_dir are both given: keep one of them"),
]  # fmt: skip
UNPARSED = ["broken.json", "latin.json"]  # the parser's own words follow our beginning


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the files above, and a trainer that must not be reached."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    stand_in(monkeypatch, lambda config: pytest.fail("training started"))
    return tmp_path


def stand_in(monkeypatch, fine_tune):
    """Put fine_tune where train.main imports it from."""
    module = types.ModuleType("sdxl_nb.training.trainer")
    module.fine_tune = fine_tune
    monkeypatch.setitem(sys.modules, "sdxl_nb.training.trainer", module)


@pytest.mark.parametrize(("line", "sentence"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_gets_one_sentence(folder, capsys, line, sentence):
    assert train.main(shlex.split(line)) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {sentence}\n")
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", UNPARSED)
def test_a_file_that_does_not_parse_is_named_in_one_line(folder, capsys, name):
    assert train.main(["--config", name]) == 2
    printed = capsys.readouterr()
    kind = name.split(".")[1].upper()
    assert printed.err.startswith(f"error: config file {name} is not valid {kind}: ")
    assert printed.err.count("\n") == 1 and "Traceback" not in printed.err


def test_a_good_line_reaches_the_trainer(monkeypatch):
    reached = []
    stand_in(monkeypatch, reached.append)
    assert train.main(["--preset", "tiny", "--rank", "16"]) == 0
    assert [config.rank for config in reached] == [16]


def test_another_error_of_ours_exits_with_1(monkeypatch, capsys):
    def fine_tune(config):
        raise DataError("the folder holds no picture")

    stand_in(monkeypatch, fine_tune)
    assert train.main([]) == 1
    assert capsys.readouterr().err == "error: the folder holds no picture\n"


def test_option_2_on_a_cpu_says_what_is_missing(monkeypatch, capsys):
    cpu = Machine("cpu", True, frozenset({"tensorboard"}), False)
    stand_in(monkeypatch, lambda config: check_machine(config, cpu))
    assert train.main(shlex.split(OPTION_2)) == 2
    assert capsys.readouterr().err == (
        "error: mixed_precision fp16 needs a CUDA GPU or Apple MPS and this machine has neither: "
        "use --mixed_precision no, or --preset tiny, which trains here in minutes\n"
    )
