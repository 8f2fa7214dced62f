"""A sweep: killed, it ends with the table of the one that ran through; Optuna prunes; what it was asked is kept.

Trials train here, in this process; test_sweep_processes.py has them in processes of their own.
"""

import json
from pathlib import Path

import pytest
from small_runs import in_a_process, kill_me, small, train

from sdxl_nb import sweep
from sdxl_nb.runs.run import Run
from sdxl_nb.sweeps.ledger import Ledger, Row
from sdxl_nb.sweeps.samplers import Optuna
from sdxl_nb.sweeps.space import Range, Space
from sdxl_nb.sweeps.table import Sweep
from sdxl_nb.system.errors import ConfigError, SdxlNbError

HELD = {"validation_split": 0.3, "heldout_steps": 1, "max_train_steps": 2, "checkpointing_steps": 1}
RANKS = {"rank": [1, 2], "learning_rate": [1e-2]}


def here(config, told, listener=None):
    """Train in this process, or go on; end where `told` says so."""
    folder = Path(config.output_dir)
    if (folder / "run.json").is_file():
        run = Run.open(folder)
        ended = max(map(told, run.events()))
        if ended or run.status == "completed":
            return run
        config = config.replace(resume_from_checkpoint="latest")

    def listen(event):
        if listener:
            listener(event)
        if told(event):
            (folder / "stop").touch()

    return train(config, listen)


def killed_after(many):
    """Trains here, and is killed when so many steps have been taken since."""
    taken = []

    def listener(event):
        taken.extend([event] if event["event"] == "step" else [])
        if len(taken) == many:
            kill_me()

    return lambda config, told: here(config, told, listener)


def quiet(line):
    """Nothing is said."""


@pytest.mark.slow
def test_a_sweep_that_was_killed_ends_with_the_table_of_one_that_ran_through(tmp_path):
    said = []
    through = sweep(small(tmp_path / "through" / "sweep", **HELD), RANKS, train=here, say=said.append)
    assert said[0] == "Trial 0 of 2: rank = 1, learning_rate = 0.01"
    assert [row.values["rank"] for row in through.rows] == [1, 2]
    losses = dict(zip(*through.run(1).heldout(), strict=True))
    assert set(losses) == {0, 1, 2} and through.rows[1].loss == min(losses[1], losses[2]) != losses[0]
    assert said[-1] == f"Trial 1 completed: held-out loss {through.rows[1].loss:.4f}"
    assert through.best.loss == min(row.loss for row in through.rows)
    assert through.config().rank == through.best.values["rank"]
    assert through.config().output_dir == str(tmp_path / "through" / "sweep")

    config = small(tmp_path / "killed" / "sweep", **HELD)
    within_the_second = killed_after(3)
    assert in_a_process(lambda: sweep(config, RANKS, train=within_the_second, say=quiet)) == -9
    done = json.loads((tmp_path / "killed" / "sweep" / "sweep.json").read_text())["rows"]
    assert [row["number"] for row in done] == [0]
    killed = sweep(config, RANKS, train=here, say=quiet)
    assert killed._repr_html_() == through._repr_html_() and str(killed) == str(through)
    assert sweep(config, RANKS, train=None, say=quiet).rows == killed.rows  # nothing is left to train

    with pytest.raises(ConfigError, match="holds a sweep with another space: choose another output_dir"):
        sweep(config, {"rank": [1, 2, 4]}, say=quiet)
    with pytest.raises(ConfigError, match="holds a sweep with another config, seed"):
        sweep(config.replace(seed=6), RANKS, seed=1, say=quiet)


@pytest.mark.slow
def test_a_budget_that_is_spent_ends_the_sweep(tmp_path):
    config = small(tmp_path / "sweep", **HELD)
    found = sweep(config, RANKS, budget=1e-9, train=here, say=quiet)
    assert found.rows == [] and "is spent after 0 of 2 trials: with more, the same call goes on" in str(found)
    assert Run.open(tmp_path / "sweep" / "trial-000").status == "stopped"
    with pytest.raises(SdxlNbError, match="No trial is completed yet"):
        found.config()


def test_what_cannot_be_compared_or_never_ends_is_refused_before_anything_starts(tmp_path):
    def refused(message, space=RANKS, error=ConfigError, config=None, **asked):
        with pytest.raises(error, match=message):
            sweep(config or small(tmp_path / "sweep", **HELD), space, say=quiet, **asked)
        assert not (tmp_path / "sweep").exists()

    blind = small(tmp_path / "sweep")
    refused(r"no picture is held out: give validation_split=0\.1, or by='train_loss'", config=blind)
    refused("a random search never ends by itself: give trials=12, or a budget", sampler="random")
    refused("trials must be a whole number from 1 on, not 0", trials=0)
    refused("by must be heldout_loss or train_loss", by="loss")
    refused("sampler must be grid, random or optuna, not 'bayes'", sampler="bayes", trials=2)
    refused("a grid needs values for rank", {"rank": {"min": 1, "max": 4}}, sampler="grid")
    together = {"use_ema": [True], "optimizer": ["prodigy_schedulefree"]}
    refused("cannot have use_ema = true, optimizer = prodigy_schedulefree together: optimizer", together)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    with pytest.raises(ConfigError, match="holds something else than a sweep"):
        sweep(small(tmp_path / "other", **HELD), RANKS, say=quiet)


def optuna(folder, space, prune=True):
    return Optuna(space, folder, 7, 12, prune)


def test_optuna_proposes_the_same_whoever_asks_and_however_often(tmp_path):
    space = Space({"rank": Range(1, 8, whole=True), "learning_rate": Range(1e-5, 1e-1, log=True)})

    def proposed(folder, opened_anew):
        sampler, found = optuna(folder, space), []
        for number in range(8):
            sampler = optuna(folder, space) if opened_anew else sampler
            values = sampler.values(number)
            assert optuna(folder, space).values(number) == values  # asked for, and then killed
            found.append(values)
            sampler.tell(Row(number, values, "completed", values["learning_rate"]))
            assert optuna(folder, space).values(number) == values  # told, and then killed
        return found

    once = proposed(tmp_path / "once", False)
    assert proposed(tmp_path / "often", True) == once
    assert len({values["learning_rate"] for values in once}) == 8 and {type(v["rank"]) for v in once} == {int}


def test_optuna_prunes_what_is_worse_than_the_median_and_says_the_same_again(tmp_path):
    sampler = optuna(tmp_path, Space({"rank": Range(1, 8, whole=True)}))
    for number in range(5):
        values = sampler.values(number)
        assert not sampler.prunes(number, 1, float(number))
        sampler.tell(Row(number, values, "completed", float(number)))
    values = sampler.values(5)
    for again in (sampler, optuna(tmp_path, Space({"rank": Range(1, 8, whole=True)}))):
        assert again.prunes(5, 1, 3.0)  # the median of 0 to 4 is 2
    sampler.tell(Row(5, values, "pruned", 3.0, 1))
    sampler.values(6)
    assert not sampler.prunes(6, 1, 1.5)
    assert not optuna(tmp_path / "kept", Space({"rank": Range(1, 8, whole=True)}), prune=False).prunes(0, 1, 99.0)


def test_a_damaged_ledger_is_said(tmp_path):
    ledger = Ledger(tmp_path / "sweep", {"seed": 1})
    ledger.add(Row(0, {"rank": 1}, "completed", 0.5, 2))
    assert Ledger(tmp_path / "sweep", {"seed": 1}).rows == ledger.rows
    ledger.file.write_text('{"rows": [')
    with pytest.raises(SdxlNbError, match=r"sweep\.json is damaged: choose another output_dir, or delete it"):
        Ledger(tmp_path / "sweep", {"seed": 1})


ROWS = [
    Row(0, {"rank": 8, "learning_rate": 1e-4}, "completed", 0.5, 20),
    Row(1, {"rank": 16, "learning_rate": 1e-2}, "pruned", 0.9, 10),
    Row(2, {"rank": 8, "learning_rate": 1e-3}, "failed", error="The loss at step 3 is <not> finite."),
    Row(3, {"rank": 16, "learning_rate": 1e-3}, "completed", 0.25, 30),
]


def test_the_table_stars_the_best_and_escapes_what_it_shows(tmp_path):
    space = Space.of(small(tmp_path), {"rank": [8, 16], "learning_rate": {"min": 1e-5, "max": 1e-1, "log": True}})
    found = Sweep(small(tmp_path), space, tmp_path, "heldout_loss", ROWS)
    assert found.best == ROWS[3] and found.config(0).learning_rate == 1e-4
    assert str(found).splitlines()[4] == "3 ★    16    0.001          0.2500         30       completed"
    assert "The loss at step 3 is &lt;not&gt; finite." in found._repr_html_()
    axes = found.figure().axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert [list(line.get_ydata()) for line in lines] == [
        pytest.approx([0.25, 0.0, 0.3846], abs=1e-4),
        pytest.approx([0.75, 1.0, 1.0]),
        pytest.approx([0.75, 0.5, 0.0]),
    ]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-"]
    assert lines[2].get_linewidth() > lines[0].get_linewidth()
    nothing = Sweep(small(tmp_path), space, tmp_path, "heldout_loss", [])
    assert nothing.best is None and nothing.figure()._repr_png_()[:4] == b"\x89PNG"
