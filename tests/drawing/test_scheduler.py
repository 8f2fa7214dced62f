"""What LoRAs are drawn with: their base's own scheduler, or one that is told what they were trained for."""

import json
import warnings

import numpy as np
import pytest
from random_sdxl import make_pipeline
from test_lora import add_lora, make_models

from sdxl_nb.config.header import Objective, objective_flags
from sdxl_nb.drawing.generation import generate
from sdxl_nb.drawing.scheduler import redrawn, scheduler_for
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.writer import save_lora, save_one
from sdxl_nb.lora.layers import collect
from sdxl_nb.models.objective.base_objective import made
from sdxl_nb.system.errors import ConfigError

pytestmark = pytest.mark.slow

V_ZERO = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
FAST = {"num_inference_steps": 2, "progress": False, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    models = make_models()
    add_lora(models, "attention", lora_alpha=8)
    return save_lora(collect(**models), tmp_path_factory.mktemp("run"), "style", {})[1]


def headed(lora, name, settings=None, **header):
    """The same LoRA with another header."""
    found = header | ({"sdxl_nb_config": json.dumps(settings)} if settings else {})
    return save_one(read_lora(lora), lora.with_name(f"{name}.safetensors"), "kohya", found)


def picture(pipeline, lora, **options):
    return np.asarray(generate(pipeline, lora, "a card", **FAST | options).at()).astype(int)


def test_a_lora_is_drawn_for_what_its_settings_trained(lora):
    pipeline, own = make_pipeline(), make_pipeline()
    trained = headed(lora, "v", V_ZERO)
    scheduler = pipeline.scheduler
    ours, plain = picture(pipeline, trained), picture(pipeline, lora)
    assert pipeline.scheduler is scheduler
    own.scheduler = redrawn(own.scheduler, Objective("v_prediction", True))
    assert own.scheduler.config.timestep_spacing == "trailing" and own.scheduler.config.rescale_betas_zero_snr
    assert np.array_equal(ours, picture(own, lora)) and np.abs(ours - plain).max() > 5
    assert np.array_equal(picture(pipeline, trained, scales=(0.0,)), picture(pipeline, None))
    assert "predicts       v_prediction with zero terminal SNR, by its settings" in str(LoraFile(trained).info())


def test_the_class_of_the_pipelines_scheduler_stays():
    for name in ("DDIMScheduler", "DPMSolverMultistepScheduler", "EulerAncestralDiscreteScheduler"):
        found = redrawn(made({"_class_name": name}), Objective("v_prediction"))
        assert (type(found).__name__, found.config.prediction_type) == (name, "v_prediction")
    flow = redrawn(made({"_class_name": "DDIMScheduler"}), Objective("flow", False, 3.0))
    assert (type(flow).__name__, flow.config.shift) == ("FlowMatchEulerDiscreteScheduler", 3.0)
    edm = made({"_class_name": "EDMEulerScheduler"})
    assert redrawn(edm, Objective("v_prediction")).config.prediction_type == "epsilon"


def test_loras_that_exclude_each_other_are_refused(lora):
    both = [headed(lora, "v", V_ZERO), headed(lora, "e", {"prediction_type": "epsilon"})]
    with pytest.raises(ConfigError, match="trained to predict different things"):
        picture(make_pipeline(), both)


def test_a_lora_of_another_kind_of_base_is_said(lora):
    own = make_pipeline().scheduler
    with pytest.warns(UserWarning, match="on a base that predicts v_prediction, and this one predicts epsilon"):
        assert scheduler_for([{"modelspec.prediction_type": "v"}], own) is own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for said in ("epsilon", "", "unknown"):
            assert scheduler_for([{"modelspec.prediction_type": said}], own) is own
        flow = made(
            {
                "_class_name": "DPMSolverMultistepScheduler",
                "prediction_type": "flow_prediction",
                "use_flow_sigmas": True,
            }
        )
        assert scheduler_for([{"modelspec.prediction_type": "flow"}], flow) is flow


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"prediction_type": "v_prediction"}, Objective("v_prediction")),
        (V_ZERO, Objective("v_prediction", True)),
        ({"prediction_type": "flow", "flow_shift": 2}, Objective("flow", False, 2.0)),
        ({"prediction_type": None, "rescale_betas_zero_snr": False}, None),
        ({"prediction_type": "x0", "rescale_betas_zero_snr": "yes", "flow_shift": -1}, None),
        ({"flow_shift": True}, None),
    ],
)
def test_only_what_a_setting_can_be_is_believed(settings, flags):
    assert objective_flags({"sdxl_nb_config": json.dumps(settings)}) == flags


def test_a_header_that_cannot_be_read_says_nothing():
    assert objective_flags({}) is objective_flags({"sdxl_nb_config": "{"}) is None
