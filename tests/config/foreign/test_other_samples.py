"""What other trainers draw on the way becomes sample prompts: each with its size, seed, steps, guidance and sampler."""

import json
import warnings

import pytest

from sdxl_nb.config.prompts import SAMPLERS, read_prompts
from sdxl_nb.config.train_config import TrainConfig

CUP = {  # one of OneTrainer's samples, with all that its window writes
    **{"__version": 0, "enabled": True, "prompt": "a cup,\nred", "negative_prompt": "blurry", "height": 1240},
    **{"width": 832, "frames": 1, "length": 10.0, "seed": 7, "random_seed": False, "diffusion_steps": 25},
    **{"cfg_scale": 6.5, "noise_scheduler": "DPMPP_KARRAS", "text_encoder_1_layer_skip": 0, "base_image_path": ""},
    **{"transformer_attention_mask": False, "force_last_timestep": False, "sample_inpainting": False},
}
CUP_LINE = "a cup, red --n blurry --w 832 --h 1216 --d 7 --l 6.5 --s 25 --ss dpmsolver++_karras"
ONETRAINER = {"training_method": "LORA", "model_type": "STABLE_DIFFUSION_XL_10_BASE", "lora_rank": 4, "epochs": 2}
SIMPLETUNER = {"model_type": "lora", "model_family": "sdxl", "lr_scheduler": "constant", "lora_rank": 4, "seed": 5}


def read(tmp_path, said, name="old.json", keep=("sample", "seed", "valid", "num_v", "user_p", "adapter", "--")):
    """The configuration of a file, and its remarks about what is drawn."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(said), encoding="utf-8")
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        config = TrainConfig.load(tmp_path / name)
    return config, [text for each in remarks if (text := str(each.message)).startswith(keep)]


def test_onetrainers_file_of_samples_is_found_above_its_configuration(tmp_path):
    samples = [CUP, {"prompt": "sky", "enabled": False}, {"prompt": "a tin", "random_seed": True}, {"prompt": ""}]
    (tmp_path / "training_samples").mkdir()
    (tmp_path / "training_samples" / "s.json").write_text(json.dumps(samples), encoding="utf-8")
    said = {"sample_definition_file_name": "training_samples\\s.json", "sample_after": 3, "sample_after_unit": "EPOCH"}
    config, remarks = read(tmp_path, ONETRAINER | said, "presets/old.json")
    assert config.sample_prompts == [CUP_LINE, "a tin --w 1024 --h 1024 --l 7.5 --s 30 --ss euler_a"]
    assert (config.validation_prompt, config.validation_epochs, config.validation_steps) == (None, 3, None)
    assert remarks == [
        "sample_definition_file_name in old.json: sample 3 has no prompt: write what to draw before its options; it is "
        "not drawn."
    ]


@pytest.mark.parametrize(
    "when, epochs, steps, remark",
    [
        ({"sample_after": 50, "sample_after_unit": "STEP", "gradient_accumulation_steps": 4}, 1, 12, None),
        ({"sample_after": 2, "sample_after_unit": "HOUR"}, 1, None, "sample_after 2 in old.json has no effect: it is "
         "in HOUR: samples are drawn after each epoch, or give --validation_steps."),
        ({"sample_after_unit": "NEVER"}, 1, None, "sample_after 10 NEVER in old.json is meant otherwise here: its "
         "samples are not drawn."),
    ],
)  # fmt: skip
def test_onetrainers_samples_in_the_configuration_are_drawn_when_it_says(tmp_path, when, epochs, steps, remark):
    config, remarks = read(tmp_path, ONETRAINER | {"samples": [CUP]} | when)
    assert config.sample_prompts == (None if "NEVER" in when.values() else [CUP_LINE])
    assert (config.validation_epochs, config.validation_steps) == (epochs, steps)
    assert remarks == ([remark] if remark else [])


def ai_toolkit(sample):
    process = {"type": "sd_trainer", "trigger_word": "c4p", "model": {"is_xl": True, "name_or_path": "b"}}
    return {"config": {"name": "x", "process": [process | {"network": {"linear": 4}, "sample": sample}]}}


def test_ai_toolkits_prompts_have_the_flags_that_it_reads(tmp_path):
    sample = {"width": 1024, "height": 768, "neg": "blurry", "seed": 42, "walk_seed": True, "sampler": "k_euler"}
    prompts = ["a [trigger] --w 832 --h 1210 --seed 3 --m 0.5", "[name]--cfg 2 --steps 9 --n text, low --gr 0.7", "sky"]
    config, remarks = read(tmp_path, ai_toolkit(sample | {"prompts": prompts, "sample_every": 20}))
    assert config.sample_prompts == [
        "a c4p --n blurry --w 832 --h 1208 --d 3 --l 7 --s 20 --ss euler_karras",
        "c4p --n text, low --w 1024 --h 768 --d 43 --l 2 --s 9 --ss euler_karras",
        "sky --n blurry --w 1024 --h 768 --d 44 --l 7 --s 20 --ss euler_karras",
    ]
    assert (config.validation_epochs, config.validation_steps) == (None, 20)
    assert remarks == [
        "--m of sample.prompts '0.5' in old.json has no effect: the LoRA draws at its full strength.",
        "--gr of sample.prompts '0.7' in old.json has no effect: no picture is drawn so.",
    ]


def test_ai_toolkits_samples_say_what_they_are_and_a_seed_holds_on(tmp_path):
    samples = [{"prompt": "a"}, {"prompt": "b", "seed": 9, "neg": "x", "network_multiplier": "0.6"}]
    samples += [{"prompt": "c", "width": 64, "height": 64, "sample_steps": 4, "guidance_scale": 3, "ctrl_img": "p.png"}]
    sample = {"samples": [*samples, {"prompt": "d", "seed": -1, "fps": 8}], "sampler": "lcm", "seed": 1}
    config, remarks = read(tmp_path, ai_toolkit(sample))
    assert config.sample_prompts == [
        "a --w 512 --h 512 --d 1 --l 7 --s 20",
        "b --n x --w 512 --h 512 --d 9 --l 7 --s 20",
        "c --w 64 --h 64 --d 9 --l 3 --s 4",
        "d --w 512 --h 512 --l 7 --s 20",
    ]
    assert remarks == [
        "sample.sampler 'lcm' in old.json has no effect: the base's own kind of scheduler draws.",
        "seed -1 of samples in old.json is meant otherwise here: seeds are fixed, so that pictures can be compared.",
    ]
    assert config.drawings()[3].seed == config.seed
    said = read(tmp_path, ai_toolkit(sample), keep=("network", "ctrl"))[1]
    assert said == [
        "network_multiplier of sample.samples '0.6' in old.json has no effect: the LoRA draws at its full strength.",
        "ctrl_img of sample.samples 'p.png' in old.json has no effect: no picture is drawn so.",
    ]


def test_simpletuners_library_is_drawn_at_every_size_from_every_seed(tmp_path):
    library = {"cup": "a cup", "tin": {"caption": "a tin", "adapter_strength": 0.5}}
    (tmp_path / "prompts.json").write_text(json.dumps(library), encoding="utf-8")
    said = {"user_prompt_library": "prompts.json", "validation_prompt": "sky", "validation_resolution": "1,640x1000"}
    said |= {"num_validation_images": 2, "validation_noise_scheduler": "dpm++", "validation_negative_prompt": "None"}
    config, remarks = read(tmp_path, SIMPLETUNER | said | {"validation_step_interval": 30}, keep=("num", "tin", "vali"))
    end = "--l 7.5 --s 30 --ss dpmsolver++"
    assert config.sample_prompts == [
        f"{prompt} --w {width} --h {height} --d {seed} {end}"
        for prompt in ("a cup", "a tin", "sky")
        for width, height in ((1024, 1024), (640, 992))
        for seed in (5, 6)
    ]
    assert (config.validation_epochs, config.validation_steps) == (None, 30)
    assert remarks == [
        "tin.adapter_strength of user_prompt_library 0.5 in old.json has no effect: the LoRA draws at its full "
        "strength.",
        "num_validation_images in old.json is meant otherwise here: each further picture of a prompt has the next "
        "seed.",
    ]


def test_simpletuner_that_draws_nothing_or_says_little(tmp_path):
    config, _ = read(tmp_path, SIMPLETUNER | {"validation_disable": True, "validation_prompt": "sky"})
    assert config.sample_prompts is None
    said = {"validation_prompt": "sky", "validation_noise_scheduler": "perflow"}
    config, remarks = read(tmp_path, SIMPLETUNER | said)
    assert config.sample_prompts == ["sky --n blurry, cropped, ugly --d 5 --l 7.5 --s 30"]
    assert remarks == [
        "validation_noise_scheduler 'perflow' in old.json has no effect: the base's own kind of scheduler draws."
    ]


@pytest.mark.parametrize(
    "text, why",
    [(None, "there is no such file"), ("[1,", "cannot be read"), ("\x00", "cannot be read"), ("[" * 4000, "")],
)
def test_file_of_samples_that_cannot_be_read_is_said(tmp_path, text, why):
    if text is not None:
        (tmp_path / "s.json").write_text(text, encoding="utf-8")
    config, remarks = read(tmp_path, ONETRAINER | {"sample_definition_file_name": "s.json"})
    assert config.sample_prompts is None
    assert len(remarks) == 1
    assert remarks[0].startswith("sample_definition_file_name 's.json' in old.json has no effect: it cannot be read (")
    assert remarks[0].endswith("), give --sample_prompts.") and why in remarks[0]


@pytest.mark.parametrize(
    "text, lines",
    [
        (json.dumps([CUP | {"height": 1216}, {"prompt": "sky", "enabled": False}]), [CUP_LINE]),
        (json.dumps([{"prompt": "a", "seed": 3, "random_seed": True}]), ["a"]),
        (json.dumps({"one": "a cup --s 3", "two": {"prompt": "a tin", "seed": 1}}), ["a cup --s 3", "a tin --d 1"]),
        (json.dumps({"samples": [{"prompt": "b", "neg": "x", "sample_steps": 4}]}), ["b --n x --s 4"]),
    ],
)
def test_their_files_are_sample_prompts_as_they_are(tmp_path, text, lines):
    (tmp_path / "s.json").write_text(text, encoding="utf-8")
    assert TrainConfig(sample_prompts=str(tmp_path / "s.json")).sample_prompts == lines


@pytest.mark.parametrize(
    "group, sentence",
    [
        ({"prompt": "a cup --ar 3"}, "prompt 1: --ar would begin an option: take its dashes away"),
        ({"prompt": "a", "neg": "--w 8"}, "prompt 1: --w would begin an option: take its dashes away"),
        ({"prompt": "a", "sample_inpainting": True}, "prompt 1 draws into another picture (sample_inpainting), which "
         "is not done here: take it out"),
    ],
)  # fmt: skip
def test_what_would_be_read_otherwise_as_a_line_is_refused(group, sentence):
    with pytest.raises(ValueError) as refused:
        read_prompts([group])
    assert str(refused.value) == sentence


def test_every_sampler_of_theirs_has_its_name_here():
    for name in ("DDIM", "EULER", "EULER_A", "DPMPP", "DPMPP_SDE", "UNIPC", "EULER_KARRAS", "DPMPP_KARRAS",
                 "DPMPP_SDE_KARRAS", "UNIPC_KARRAS", "ddpm", "euler-a", "dpm++"):  # fmt: skip
        assert read_prompts([{"prompt": "a", "sampler": name}])[0].sampler in SAMPLERS
