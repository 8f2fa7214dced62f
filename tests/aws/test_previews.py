"""The pictures of the LoRA that a job delivers: which they are, where they go, and what is said where they may not."""

import json

import pytest
from small_runs import small
from started_jobs import aws_fixture  # noqa: F401 - a fixture

from sdxl_nb.aws.identity import previews


def drawn(folder, losses, steps=(0, 2, 4, 6), **changes):
    """A configuration whose run drew at these steps and has these held-out losses by step."""
    config = small(folder, validation_split=0.3, **changes)
    for step in steps:
        (folder / "validation" / f"step-{step}").mkdir(parents=True)
        for name in ("00-6.png", "00-5.png"):
            (folder / "validation" / f"step-{step}" / name).write_bytes(f"{step} {name}".encode())
    folder.mkdir(exist_ok=True)
    events = [{"event": "heldout", "time": 0, "step": step, "loss": loss} for step, loss in losses.items()]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    return config


LOSSES = {0: 0.1, 2: 0.5, 3: 0.2, 4: 0.4, 6: None}


@pytest.mark.parametrize(
    ("changes", "losses", "steps", "step"),
    [
        ({}, LOSSES, (0, 2, 4, 6), 6),
        ({"load_best_model_at_end": True}, LOSSES, (0, 2, 4, 6), 2),  # the best is 3, where nothing was drawn
        ({"load_best_model_at_end": True}, LOSSES | {4: 0.2}, (0, 2, 4, 6), 2),  # the first of two that are equal
        ({"load_best_model_at_end": True}, LOSSES | {4: 0.1}, (0, 2, 4, 6), 4),
        ({"load_best_model_at_end": True}, {6: None}, (0, 6), 6),
        ({}, {}, (), None),
    ],
)
def test_they_are_those_of_the_step_that_is_delivered(tmp_path, changes, losses, steps, step):
    found = previews.pictures(drawn(tmp_path, losses, steps, **changes))
    names = [] if step is None else [f"step-{step}/00-5.png", f"step-{step}/00-6.png"]
    assert [path.relative_to(tmp_path / "validation").as_posix() for path in found] == names


def test_without_a_job_or_without_pictures_nobody_is_asked(tmp_path, nobody, capsys, monkeypatch):
    monkeypatch.delenv("TRAINING_JOB_NAME", raising=False)
    previews.lay_open(drawn(tmp_path / "a", LOSSES))
    monkeypatch.setenv("TRAINING_JOB_NAME", "sdxl-nb-1")
    previews.lay_open(drawn(tmp_path / "b", LOSSES, ()))
    assert capsys.readouterr().out == ""


def test_a_role_that_may_not_ends_no_job(aws, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TRAINING_JOB_NAME", "sdxl-nb-1")
    aws.fail("DescribeTrainingJob", "AccessDeniedException", "User is not authorized", times=1)
    previews.lay_open(drawn(tmp_path, LOSSES))
    assert capsys.readouterr().out == (
        "Note: The pictures are in model.tar.gz alone, and not beside it: These AWS credentials may not "
        "DescribeTrainingJob: ask whoever manages the account to allow it.\n"
    )
