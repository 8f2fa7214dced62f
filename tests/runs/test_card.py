"""The model card: front matter that YAML reads, safe text, no secrets and no paths."""

import yaml
from bases import configure_single_files, file

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.card import write_card

NASTY = "a | b <img src=x onerror=alert(1)>\n[link](http://x) `code`"


def card(folder, **changes):
    values = {"seed": 0, "validation_prompt": [NASTY], "trigger_word": 'sks: "x" <b>', "output_name": "style"}
    config = TrainConfig(output_dir=str(folder), **values | changes)
    return write_card(config, folder, steps=5, pictures=3, loss=0.25).read_text("utf-8")


def test_front_matter_and_numbers(tmp_path):
    text = card(tmp_path)
    front = yaml.safe_load(text.split("---")[1])
    assert (
        front["base_model"] == "stabilityai/stable-diffusion-xl-base-1.0" and front["instance_prompt"] == 'sks: "x" <b>'
    )
    assert front["library_name"] == "diffusers" and "lora" in front["tags"]
    assert "<b>" not in text.split("---")[2].split("```json")[0]
    assert "5 steps on 3 pictures" in text and "Final training loss: 0.2500" in text and "`style.safetensors`" in text


def test_first_and_last_pictures_in_a_table(tmp_path):
    for step in (0, 10, 9):
        (tmp_path / "validation" / f"step-{step}").mkdir(parents=True)
    (row,) = (line for line in card(tmp_path).splitlines() if "validation/step-0" in line)
    assert "validation/step-0/00-0.png" in row and "validation/step-10/00-0.png" in row and "step-9" not in row
    assert "<img" not in row and "[link" not in row and row.count("|") == 4


def test_nothing_private(tmp_path):
    (tmp_path / "private" / "pictures").mkdir(parents=True)
    text = card(tmp_path, train_data_dir=str(tmp_path / "private" / "pictures"), hub_model_id="me/x", push_to_hub=True)
    assert str(tmp_path) not in text and "me/x" not in text and '"pictures"' in text


def test_a_local_base_is_named_without_its_path(tmp_path):
    (tmp_path / "base").mkdir()
    text = card(tmp_path, pretrained_model_name_or_path=str(tmp_path / "base"), trigger_word=None)
    assert str(tmp_path) not in text and "instance_prompt" not in text


def test_the_code_loads_a_single_file_and_says_what_it_predicts(tmp_path, monkeypatch):
    configure_single_files(monkeypatch)
    base = file(tmp_path / "noob.safetensors", v_pred=[], ztsnr=[])
    text = card(tmp_path, pretrained_model_name_or_path=str(base), trigger_word=None)
    assert "The base predicts v with zero terminal SNR: its tensors v_pred and ztsnr say so." in text
    code = text.split("```python")[1].split("```")[0]
    assert "from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline" in code
    assert "StableDiffusionXLPipeline.from_single_file(BASE)" in code and "from_pretrained" not in code
    (line,) = (line for line in code.splitlines() if line.startswith("pipe.scheduler = "))
    fields = eval(line.removeprefix("pipe.scheduler = "), {"EulerDiscreteScheduler": Recorder})
    assert fields["prediction_type"] == "v_prediction" and fields["rescale_betas_zero_snr"] is True


class Recorder:
    """Stands for a scheduler's class in the card's code."""

    from_config = staticmethod(dict)


def test_the_code_says_what_settings_made_of_the_base(tmp_path):
    base = {"pretrained_model_name_or_path": "embedded:tiny-sdxl"}
    assert "pipe.scheduler" not in card(tmp_path, **base)
    text = card(tmp_path, prediction_type="v_prediction", **base)
    assert (
        "pipe.scheduler = EulerDiscreteScheduler.from_config(" in text and '"prediction_type": "v_prediction"' in text
    )
