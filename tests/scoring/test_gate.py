"""A gate: what it misses and by how much, what it refuses, and the command's exit status."""

import json
import shutil

import pytest
from small_runs import whole

from sdxl_nb.scoring.command import main
from sdxl_nb.scoring.gate import Gate, Limit, read_gate
from sdxl_nb.scoring.intervals import Score
from sdxl_nb.system.errors import ConfigError

FOUND, BASE = Score(0.5, 0.4, 0.6), Score(0.3, 0.2, 0.4)


@pytest.mark.parametrize(
    ("kind", "value", "confident", "expected"),
    [
        ("min", 0.5, False, None),
        ("min", 0.55, False, "m 0.500 is 0.050 below 0.550"),
        ("min", 0.45, True, "m 0.400 is 0.050 below 0.450"),
        ("max", 0.5, False, None),
        ("max", 0.2, False, "m 0.500 is 0.300 above 0.200"),
        ("max", 0.55, True, "m 0.600 is 0.050 above 0.550"),
        ("above_base", 0.1, False, None),
        ("above_base", 0.25, False, "m 0.500 is 0.050 below the base's 0.300 + 0.250"),
        ("below_base", 0.0, False, "m 0.500 is 0.200 above the base's 0.300 - 0.000"),
    ],
)
def test_a_threshold_says_by_how_much_it_is_missed(kind, value, confident, expected):
    assert Limit("m", kind, value).missed(FOUND, BASE, confident) == expected


def test_a_single_value_has_no_worse_end():
    assert Limit("m", "min", 0.5).missed(Score(0.5), None, True) is None
    assert Limit("m", "above_base", 0.1).missed(FOUND, None, False) == "m was not measured on the bare base"


def test_toml_and_json_say_the_same(tmp_path):
    toml, other = tmp_path / "gate.toml", tmp_path / "gate.json"
    toml.write_text('stage = "last"\nconfident = true\n[drift]\nmax = 20\n[copying]\nmax = 0.1\nbelow_base = 0\n')
    other.write_text(
        json.dumps({"stage": "last", "confident": True, "drift": {"max": 20}, "copying": {"max": 0.1, "below_base": 0}})
    )
    limits = [Limit("drift", "max", 20.0), Limit("copying", "max", 0.1), Limit("copying", "below_base", 0.0)]
    assert read_gate(toml) == read_gate(other) == Gate(limits, "last", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[drift]\nmaxx = 1", "drift has an unknown threshold maxx: did you mean max"),
        ("[drift]\nmax = nan", r"drift\.max must be a finite number, not nan"),
        ("[drift]\nmax = true", r"drift\.max must be a finite number, not True"),
        ("[drift]\nabove_base = -1", r"drift\.above_base must be 0 or more"),
        ("drift = 3", r"drift must hold thresholds such as min = 0\.5"),
        ("stag = 3", "stag must hold thresholds such as min = 0.5: did you mean stage"),
        ('stage = "first"\n[drift]\nmax = 1', "stage must be best, last or a step, not 'first'"),
        ('confident = "yes"\n[drift]\nmax = 1', "confident must be true or false"),
        ("", "holds no threshold"),
        ("[drift", "cannot be read"),
    ],
)
def test_what_no_gate_can_mean_is_refused(tmp_path, text, message):
    file = tmp_path / "gate.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_gate(file)


def test_a_gate_is_a_toml_or_json_that_is_there(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in \.toml or \.json"):
        read_gate(tmp_path / "gate.yaml")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_gate(tmp_path / "gate.toml")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match="must hold metrics with their thresholds, not a list"):
        read_gate(tmp_path / "list.json")


@pytest.mark.slow
def test_the_command_ends_with_1_where_the_lora_falls_short(tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole(validation_inference_steps=2).folder, run)
    gate, out = tmp_path / "gate.json", tmp_path / "scores.json"
    asked = ["--prompt", "card 1", "--plain", "a tree", "--seeds", "2", "--image_encoder", "pixels"]
    asked += ["--metric", "drift", "copying", "--by", "drift", "--gate", str(gate)]

    def ended(**thresholds):
        gate.write_text(json.dumps(thresholds))
        status = main([str(run), *asked, "--json", str(out)])
        return status, *capsys.readouterr()

    capsys.readouterr()
    status, _, error = ended(drifd={"max": 1})
    assert (status, error) == (2, "error: the gate names an unknown metric drifd: did you mean drift?\n")
    status, _, error = ended(stage=5, drift={"max": 1})
    assert (status, error) == (
        2, "error: the gate asks for step 5, which has no LoRA: there are those of 2, 4, 6\n"
    )  # fmt: skip
    assert not (run / "scores").exists()  # nothing was drawn for it
    status, table, _ = ended(stage=6, drift={"max": 0})
    drift = json.loads(out.read_text())["scores"]["6"]["drift"]["mean"]
    assert status == 1 and f"The gate is missed: drift {drift:.2f} is {drift:.2f} above 0.000, at step 6." in table
    status, table, _ = ended(stage="best", drift={"max": 255, "above_base": 0}, copying={"max": 1})
    assert status == 0 and "gate" not in table and "★ step" in table
    assert main([str(tmp_path / "none")]) == 2 and "There is no run in" in capsys.readouterr().err
