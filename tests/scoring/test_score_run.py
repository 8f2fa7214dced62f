"""A run scored: what is drawn, measured, kept, read back, gone on with; encoders made here, with random weights."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_encoders import clip, dino
from small_runs import small, train

from sdxl_nb import score_run
from sdxl_nb.runs.run import Run
from sdxl_nb.scoring import drawings
from sdxl_nb.scoring.encoders import open_encoder
from sdxl_nb.scoring.scorer import Scorer
from sdxl_nb.system.errors import ConfigError, SdxlNbError

pytestmark = pytest.mark.slow

PROMPTS, SEEDS = ["card 1", "card 2"], (3, 4)
SETTINGS = {"prompts": PROMPTS, "plain": ["a tree"], "seeds": SEEDS, "progress": False, "say": lambda line: None}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    settings = {"validation_split": 0.3, "heldout_steps": 2, "validation_inference_steps": 2}
    return train(small(tmp_path_factory.mktemp("scores") / "run", checkpointing_steps=4, **settings))


@pytest.fixture
def run(trained, tmp_path):
    """The run in a folder of its own, not scored yet."""
    shutil.copytree(trained.folder, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {"image_encoder": dino(folder / "dino"), "text_encoder": clip(folder / "clip")}


def redness(evidence):
    """Mean of the red channel."""
    return [[np.asarray(picture)[..., 0].mean() for picture in row] for row in evidence.pictures]


def cosines(encoder, one, other):
    return encoder.pictures(one) @ encoder.pictures(other).T


def test_every_stage_has_every_metric_as_computed_by_hand(run, encoders):
    scores = score_run(run, **SETTINGS, **encoders, scorers=[redness])
    assert scores.steps == [0, 4, 6]
    assert scores.metrics == ["likeness", "prompt", "diversity", "copying", "drift", "heldout_loss", "redness"]
    assert scores.lacking == {"aesthetic": "no head was given, give aesthetic=FILE.safetensors"}
    drawn = {step: sorted((run.folder / "scores" / f"step-{step}").glob("*.png")) for step in scores.steps}
    assert {step: len(files) for step, files in drawn.items()} == {0: 6, 4: 6, 6: 6}

    grid = drawings.generate(
        run.config.pretrained_model_name_or_path, run.folder / "checkpoint-4", PROMPTS, seeds=SEEDS,
        num_inference_steps=2, guidance_scale=5.0, height=32, width=32, progress=False,
    )  # fmt: skip
    pictures = [[grid.at(prompt, 0, seed) for seed in SEEDS] for prompt in PROMPTS]
    flat = [picture for row in pictures for picture in row]
    learnt = scores.kept[4]["likeness"].values
    image, text = (open_encoder(encoders[name]) for name in ("image_encoder", "text_encoder"))
    held, trained_on = split(run)
    assert len(held) == 2 and len(trained_on) == 5
    expected = cosines(image, flat, trained_on).mean(1).reshape(2, 2)
    np.testing.assert_allclose(learnt, expected, atol=1e-5)
    between = cosines(image, flat, flat)
    np.testing.assert_allclose(
        scores.kept[4]["diversity"].values, [[1 - between[0, 1]] * 2, [1 - between[2, 3]] * 2], atol=1e-5
    )
    texts, cut = text.texts(PROMPTS)
    agreement = 100 * np.clip((text.pictures(flat).reshape(2, 2, -1) * texts[:, None]).sum(-1), 0, None)
    assert cut == 0
    np.testing.assert_allclose(scores.kept[4]["prompt"].values, agreement, atol=1e-4)
    assert scores[4]["redness"].mean == pytest.approx(np.mean([np.asarray(p)[..., 0].mean() for p in flat]))
    assert scores[0]["drift"].mean == 0 < scores[4]["drift"].mean
    losses = {event["step"]: event["loss"] for event in run.events("heldout")}
    assert {step: scores[step]["heldout_loss"].mean for step in (0, 4, 6)} == pytest.approx(
        {step: losses[step] for step in (0, 4, 6)}
    )
    assert len(scores.kept[4]["heldout_loss"].values) == 2 and scores[4]["heldout_loss"].low is not None
    assert scores.best == max((4, 6), key=lambda step: scores[step]["redness"].mean)
    html = scores._repr_html_()
    assert "★" in html and "held out" not in html and html.count("<tr>") == 4


def split(run):
    """The pictures that the run held out, and those that it trained on."""
    from sdxl_nb.data.dataset import open_dataset
    from sdxl_nb.data.split import divide

    kept, held = divide(run.config, open_dataset(run.config))
    return [sample.picture for sample in held], [sample.picture for sample in kept]


def test_what_did_not_change_is_read_and_what_changed_is_measured(run, monkeypatch):
    drawn, measured = [], []
    real = drawings.generate

    def counted(base, lora, prompts, *, seeds, **settings):
        drawn.append((len(prompts), len(seeds)))
        return real(base, lora, prompts, seeds=seeds, **settings)

    def bright(evidence):
        measured.append(evidence.step)
        return redness(evidence)

    monkeypatch.setattr(drawings, "generate", counted)
    settings = SETTINGS | {"image_encoder": "pixels", "scorers": [bright], "metrics": ["bright", "drift"]}
    first = score_run(run, **settings)
    assert sum(p * s for p, s in drawn) == 3 * (4 + 2) and measured == [0, 4, 6]
    again = score_run(Run.open(run.folder), **settings)
    assert again.as_json() == first.as_json() and len(measured) == 3 and sum(p * s for p, s in drawn) == 18
    more = score_run(run, **settings | {"prompts": [*PROMPTS, "card 3"]})  # the plain pictures and drift stay
    assert sum(p * s for p, s in drawn) == 18 + 3 * 2 and measured == [0, 4, 6] * 2
    assert more[4]["drift"] == first[4]["drift"]
    (run.folder / "scores" / "scores.json").write_text("{torn")
    said = []
    after = score_run(run, **settings | {"say": said.append})
    assert after.as_json() == first.as_json() and sum(p * s for p, s in drawn) == 24
    assert said == [f"{run.folder}/scores/scores.json was damaged: all is measured anew, pictures are not drawn again."]


def test_an_interrupted_scoring_goes_on_where_it_stopped(run, monkeypatch):
    whole = run.folder.with_name("whole")
    shutil.copytree(run.folder, whole)
    settings = SETTINGS | {"scorers": [redness], "metrics": ["redness", "drift"]}
    expected = score_run(whole, **settings)
    real, calls = drawings.generate, []

    def stops(*arguments, **named):
        calls.append(arguments[2])
        if len(calls) in (2, 4):
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(drawings, "generate", stops)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            score_run(run, **settings)
    found = score_run(run, **settings)
    assert found.as_json() == expected.as_json() | {"run": str(run.folder)}
    assert sum(map(len, calls)) - len(calls[1]) - len(calls[3]) == 3 * 3  # each prompt of each stage drawn once
    one, other = (sorted(p.name for p in (f / "scores").rglob("*.png")) for f in (run.folder, whole))
    assert one == other and len(one) == 18


def test_what_is_misspelt_or_lacking_is_refused_before_anything_is_drawn(run, encoders):
    def refused(message, error=ConfigError, **changes):
        with pytest.raises(error, match=message):
            score_run(run, **SETTINGS | {"image_encoder": "pixels"} | changes)
        assert not (run.folder / "scores").exists()

    refused("metrics names an unknown metric likenes: did you mean likeness", metrics=["likenes"])
    refused("by names an unknown metric drft: did you mean drift", by="drft", metrics=["drift"])
    refused("by names aesthetic, which cannot be measured: no head was given", by="aesthetic")
    refused("seeds must be different whole numbers", seeds=(1, 1))
    refused("prompts must be different texts", prompts=["a", "a"])
    refused("diversity cannot be measured: it takes two seeds", seeds=(1,), metrics=["diversity"])
    refused("unknown scorer rednes: give MODULE:FUNCTION", scorers=["rednes"])
    refused("scorer no.such:thing cannot be imported", scorers=["no.such:thing"])
    refused("drift is a metric already", scorers=[Scorer("drift", redness)])


def test_a_scorer_that_gives_no_numbers_is_named(run):
    wrong = {
        "lists": (lambda evidence: 5, "must return lists of numbers"),
        "empty": (lambda evidence: [[]], "returned no value for a prompt"),
        "nan": (lambda evidence: [[float("nan")]], "returned a value that is no finite number at step 0"),
    }
    for name, (function, message) in wrong.items():
        with pytest.raises(SdxlNbError, match=f"Scorer {name} {message}"):
            score_run(run, **SETTINGS, scorers=[Scorer(name, function)], metrics=[name])


def test_the_kept_file_is_json_without_anything_else(run):
    score_run(run, **SETTINGS, metrics=["drift"])
    kept = json.loads((run.folder / "scores" / "scores.json").read_text())
    assert kept["version"] == 1 and list(kept["scores"]) == ["0", "4", "6"]
    assert kept["scores"]["0"]["drift"]["values"] == [[0.0, 0.0]]
    with Image.open(next((run.folder / "scores" / "step-0").glob("*.png"))) as picture:
        assert picture.size == (32, 32)
