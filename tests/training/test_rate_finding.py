"""The search for a learning rate: its steps are a run's, its curve that of the same noise, nothing stays on disk."""

import json

import pytest
import torch
from small_runs import small

from sdxl_nb import lr_find, train
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training import rate_finding
from sdxl_nb.training.rate_finding import RateSearch, proposed
from sdxl_nb.training.step import Step

pytestmark = pytest.mark.slow


def test_a_search_ends_with_a_curve_and_leaves_no_run(tmp_path, monkeypatch):
    """Its rates are those the optimizer was told; the loss is of the same pictures, and measuring moves nothing."""
    told, losses = [], []
    take, probed = Step.take, Step.probed

    def watched_take(self, step):
        numbers = take(self, step)
        told.append(self.optimizer.param_groups[0]["lr"])
        return numbers

    def watched_probe(self, steps):
        before = [weights.clone() for weights in (self.flat.weights, self.flat.gradient)]
        found = [probed(self, steps) for _ in range(2)]
        assert found[0] == found[1] and torch.equal(before[0], self.flat.weights)
        losses.append(found[0])
        return found[0]

    monkeypatch.setattr(Step, "take", watched_take)
    monkeypatch.setattr(Step, "probed", watched_probe)
    config = small(tmp_path / "run")
    found = lr_find(config, lowest=1e-5, highest=100.0, steps=15, folder=tmp_path / "kept", progress=False)
    assert (found.base_loss, found.losses) == (losses[0], losses[1:]) and told == found.rates
    assert found.rates[:3] == [1e-5, 3.162e-5, 1e-4] and len(found.rates) == 15
    assert found.losses[0] == pytest.approx(found.base_loss, rel=1e-3)  # a rate far too low
    assert max(abs(loss - found.base_loss) for loss in found.losses) > 0.01
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    kept = json.loads((tmp_path / "kept" / "lr_find.json").read_text())
    assert RateSearch(**kept) == found and (tmp_path / "kept" / "lr_find.png").read_bytes().startswith(b"\x89PNG")


class Scripted:
    """What a Step is to a search, with losses written down."""

    def __init__(self, losses):
        self.losses, self.taken = iter(losses), []

    def take(self, step):
        self.taken.append(step)

    def probed(self, steps):
        assert list(steps) == [5, 6, 7, 8]  # steps of 4 pictures that are never taken
        return next(self.losses)

    def positions(self, step):
        return range(4 * step, 4 * step + 4)


@pytest.mark.parametrize(
    ("losses", "kept", "taken"),
    [([1.0, 0.9, 2.1, 9.0], 3, 2), ([1.0, 0.9, float("nan")], 2, 2), ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], 6, 5)],
)
def test_a_search_ends_where_the_loss_is_beyond_hope(losses, kept, taken):
    scripted = Scripted(losses)
    found = rate_finding._losses(scripted, scripted, [1e-4] * 5, progress=False)
    assert found == losses[:kept] and scripted.taken == list(range(taken))


RATES = [1e-4, 1e-3, 1e-2, 1e-1]


@pytest.mark.parametrize(
    ("losses", "rate", "reason"),
    [
        ([1.0, 0.9, 0.5, 1.6], 3e-3, "falls until the rate is 0.01"),
        ([1.0, 0.9, 0.8, 0.7], 3e-2, "still falls at 0.1"),
        ([1.0, 1.0, 1.1, 2.5], None, "never fell below 1.0000"),
        ([], None, "is no number"),
    ],
)
def test_a_proposal_has_its_reason(monkeypatch, losses, rate, reason):
    monkeypatch.setattr(rate_finding, "SPAN", 1)
    found = proposed(RATES[: len(losses)], losses, 1.0)
    assert found[0] == rate and reason in found[1]
    shown = str(RateSearch(RATES, losses, 1.0, *found))
    assert shown.startswith(f"--learning_rate {rate:g}: " if rate else "The loss ")


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({"optimizer": "prodigy", "learning_rate": 1.0}, {}, "finds its rate itself"),
        ({"unet_lr": 1e-4}, {}, "drop unet_lr"),
        ({"scale_lr": True}, {}, "drop scale_lr"),
        ({}, {"lowest": 0}, "0 < lowest < highest"),
        ({}, {"steps": 5}, "10 steps or more"),
    ],
)
def test_what_has_no_one_rate_is_one_sentence(tmp_path, changes, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        lr_find(small(tmp_path / "run", **changes), progress=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_flag_prints_the_proposal_and_trains_nothing(tmp_path, monkeypatch, capsys):
    asked = []

    def found(config, folder=None):
        asked.append((config.rank, folder))
        return RateSearch(RATES, [1.0] * 4, 1.0, 1e-3, "because.")

    monkeypatch.setattr(rate_finding, "lr_find", found)
    for more, folder in (([], None), ([str(tmp_path / "kept")], str(tmp_path / "kept"))):
        assert train.main(["--preset", "tiny", "--rank", "3", "--lr_find", *more]) == 0
        assert asked.pop() == (3, folder)
    assert capsys.readouterr().out == "--learning_rate 0.001: because.\n" * 2
