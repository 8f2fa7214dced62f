"""Settings files as other trainers write them, rebuilt from their examples: what each becomes, and what is said."""

import json
import re

import pytest
from settings_files import EXPECTED, FILES, HERE, found

from sdxl_nb.config.flags import read_flags, train_parser
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError

KNOWN = json.loads(EXPECTED.read_text("utf-8"))


def test_every_file_is_expected():
    assert sorted(KNOWN) == FILES


@pytest.mark.parametrize("name", FILES)
def test_file_becomes_what_it_means(name, monkeypatch):
    monkeypatch.chdir(HERE / "files")
    assert found(name) == KNOWN[name]


def test_remarks_are_one_sentence_that_names_the_file():
    for name in FILES:
        for remark in [*KNOWN[name].get("remarks", []), *filter(None, [KNOWN[name].get("error")])]:
            assert name in remark
            assert "\n" not in remark and ".." not in remark.replace("...", "")


def test_no_remark_repeats_a_secret():
    assert not re.search(r"hf_[a-z]{10}", json.dumps(KNOWN))


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_file_of_no_known_kind_is_refused_with_the_kinds(tmp_path):
    with pytest.raises(ConfigError) as refused:
        TrainConfig.load(write(tmp_path, "door.json", '{"doors": 4, "colour": "red"}'))
    assert str(refused.value) == (
        "door.json holds settings of no kind that is known: there are our own (JSON, YAML), kohya's sd-scripts (TOML, "
        "JSON), kohya_ss (JSON), OneTrainer (JSON), SimpleTuner (JSON, TOML), ai-toolkit (YAML, JSON), command lines "
        "of diffusers' scripts (.sh, .txt)"
    )


def test_files_of_ours_are_read_as_ever(tmp_path):
    TrainConfig(rank=8, seed=3).save(tmp_path / "run.json")
    assert TrainConfig.load(tmp_path / "run.json") == TrainConfig(rank=8, seed=3)
    assert TrainConfig.load(write(tmp_path, "run.toml", "rank = 8\nseed = 3")) == TrainConfig(rank=8, seed=3)


def test_command_line_says_each_remark_in_a_line(tmp_path, capsys):
    file = write(tmp_path, "old.toml", 'network_dim = 8\nnetwork_dims = 4\ncolor_aug = true\nlog_prefix = "x"')
    config, _ = read_flags(train_parser("train", ""), [f"--config={file}", "--rank=4", "--train_data_dir=img"])
    assert config.rank == 4
    assert capsys.readouterr().err.splitlines()[:3] == [
        "warning: network_dims in old.toml is no setting of kohya's script that is known, and has no effect: "
        "did you mean network_dim?",
        "warning: color_aug True in old.toml has no effect: pictures are mirrored and cropped, and not changed "
        "otherwise.",
        "warning: log_prefix 'x' in old.toml has no effect: the tracker is given the run folder's name.",
    ]


@pytest.mark.filterwarnings("ignore:old.toml names", "ignore:What old.toml")
def test_warning_is_raised_where_the_file_was_loaded(tmp_path):
    with pytest.warns(UserWarning, match="color_aug") as said:
        TrainConfig.load(write(tmp_path, "old.toml", "network_dim = 8\ncolor_aug = true"))
    assert said[0].filename == __file__


@pytest.mark.filterwarnings("ignore:old.toml names", "ignore:What old.toml", "ignore:optimizer_args")
def test_optimizer_that_there_is_not_may_be_given_over_the_file(tmp_path):
    file = write(tmp_path, "old.toml", 'network_dim = 8\noptimizer_type = "DAdaptAdam"\noptimizer_args = ["d0=1e-5"]')
    with pytest.warns(UserWarning, match="optimizer_type 'DAdaptAdam' in old.toml has no effect: optimizer is given"):
        config = TrainConfig.build(flags={"optimizer": "prodigy", "train_data_dir": "img"}, file=file)
    assert (config.optimizer, config.optimizer_args) == ("prodigy", None)


def test_wrong_value_names_the_file_their_key_and_ours(tmp_path):
    file = write(tmp_path, "old.toml", 'network_dim = "many"')
    with pytest.raises(ConfigError) as refused:
        TrainConfig.load(file)
    assert str(refused.value) == (
        "old.toml: network_dim, which is rank here, cannot be so: rank must be a whole number, not 'many'"
    )
    with pytest.raises(ConfigError, match=r"^lr_warmup_steps in old\.toml, which is .* must be a number, not 'long'"):
        TrainConfig.load(write(tmp_path, "old.toml", 'network_dim = 4\nlr_warmup_steps = "long"'))
    with pytest.raises(ConfigError, match=r"^rank must be at least 1, not 0"):  # it is the flag's
        TrainConfig.build(flags={"rank": 0}, file=write(tmp_path, "old.toml", "network_dim = 4"))
