"""Do LoRAs on EDM, flow and inpainting bases learn? The quick start's measure, on the embedded base adapted."""

import pytest

from sdxl_nb import TrainConfig, fine_tune
from sdxl_nb.tiny.adapt import adapt
from sdxl_nb.tiny.evaluate import concept_report

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("kind", ["edm", "flow", "inpainting"])
def test_it_learns_the_blueprint(tmp_path, kind):
    """At least half of the unseen prompts become blueprints, nearly none before; drawn by diffusers' own scheduler."""
    base = str(adapt(tmp_path / "base", kind))
    changes = {} if kind == "inpainting" else {"snr_gamma": None}
    config = TrainConfig.preset(
        "tiny",
        pretrained_model_name_or_path=base,
        output_dir=str(tmp_path / "run"),
        validation_prompt=None,
        **changes,
    )
    report = concept_report(fine_tune(config, progress=False).folder, prompts=24, seeds=(0,), base=base)
    print(kind, report)
    assert report["unchanged"] and report["score"][0.0] <= 0.1
    assert report["score"][1.0] >= 0.5
    assert report["drift"] <= 25
