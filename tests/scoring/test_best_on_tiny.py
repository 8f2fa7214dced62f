"""The tiny base: the starred checkpoint against the last one, judged by the pixel checker; overfitting found.

The checker is one more metric here, registered from outside. Prompts and seeds of the judgement are not those of the
scores. Minutes each: soak.
"""

import json
import shutil

import pytest

from sdxl_nb import TrainConfig, fine_tune, generate, score_run
from sdxl_nb.tiny.concepts import PICTURES
from sdxl_nb.tiny.evaluate import blueprint_prompts
from sdxl_nb.tiny.scorer import checker, shows, wanted

UNSEEN = [prompt for prompt, _ in blueprint_prompts(24)]
ASKED = {"seeds": (0, 1), "progress": False}


def judged(run, step):
    """The checker's share at a step over the unseen prompts, from seeds that no score has seen."""
    folder = run.folder / f"checkpoint-{step}"
    grid = generate("embedded:tiny-sdxl", folder, UNSEEN, seeds=(7, 8), num_inference_steps=20, progress=False)
    return sum(shows(picture, *wanted(cell.prompt)) for cell, picture in grid.pictures.items()) / len(grid.pictures)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_the_starred_checkpoint_is_never_worse_than_the_last(tmp_path, seed):
    config = TrainConfig.preset("tiny", output_dir=str(tmp_path / "run"), seed=seed, validation_prompt=None)
    run = fine_tune(config, progress=False)
    scores = score_run(run, prompts=UNSEEN[:12], scorers=[checker], **ASKED)
    print(scores)
    assert scores.best is not None and scores.copying == []
    last = scores.steps[-1]
    assert scores[scores.best]["checker"].mean >= scores[last]["checker"].mean > scores[0]["checker"].mean


@pytest.mark.soak
def test_an_overfitted_run_stars_an_earlier_checkpoint_and_flags_copying(tmp_path):
    """200 epochs of four pictures, one step each."""
    pictures = tmp_path / "four"
    pictures.mkdir()
    lines = (PICTURES / "blueprint" / "metadata.jsonl").read_text().splitlines()[:4]
    (pictures / "metadata.jsonl").write_text("\n".join(lines))
    for line in lines:
        name = json.loads(line)["file_name"]
        shutil.copyfile(PICTURES / "blueprint" / name, pictures / name)
    changes = {"train_data_dir": str(pictures), "train_batch_size": 4, "max_train_steps": 200}
    changes |= {"checkpointing_steps": 20, "lr_scheduler": "constant", "validation_prompt": None}
    run = fine_tune(TrainConfig.preset("tiny", output_dir=str(tmp_path / "run"), **changes), progress=False)
    scores = score_run(run, prompts=UNSEEN[:12], scorers=[checker], **ASKED)
    print(scores)
    last = scores.steps[-1]
    assert last in scores.copying
    assert scores.best < last and scores[scores.best]["checker"].mean > scores[last]["checker"].mean
    print(judged(run, scores.best), judged(run, last))
    assert judged(run, scores.best) > judged(run, last)  # by other pictures too
