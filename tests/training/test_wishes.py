"""Asked to draw or to save now, by files in the run folder: done after the step, and the weights are what they were."""

import pytest
import small_runs
from small_runs import assert_same, small, train

from sdxl_nb.config.layout import checkpoints
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.training.signals import taken

PROMPTS = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}


@pytest.mark.slow
def test_pictures_and_a_checkpoint_come_when_they_are_asked_for(tmp_path):
    def listen(event):
        if (event["event"], event["step"]) == ("step", 2):  # seen at the next one
            run = Run.open(tmp_path)
            run.draw_now()
            run.save_now()

    run = train(small(tmp_path, **PROMPTS, checkpointing_steps=6), listen)
    assert list(run.pictures()) == [0, 3, 4, 6] and all(run.pictures().values())
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-6"]
    assert not (tmp_path / "draw_now").exists() and not (tmp_path / "save_now").exists()
    assert_same(tmp_path, small_runs.whole().folder)
    with pytest.raises(SdxlNbError, match="is completed: only one that is running draws or saves now"):
        run.save_now()


def test_only_a_run_with_prompts_draws(tmp_path):
    folder = RunFolder(config := small(tmp_path))
    folder.begin(config, resumed_from=None)
    with pytest.raises(SdxlNbError, match="has no validation_prompt: there is nothing for it to draw"):
        Run.open(tmp_path).draw_now()
    Run.open(tmp_path).save_now()
    assert taken(tmp_path) == {"save_now"} and taken(tmp_path) == set()
    Run.open(tmp_path).save_now()
    folder.release()
    assert not (tmp_path / "save_now").exists()  # nobody would hear it
