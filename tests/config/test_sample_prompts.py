"""Sample prompts: kohya's lines, and lists in TOML, YAML and JSON; what is wrong is one sentence with its line."""

import pytest

from sdxl_nb.config.messages import shown
from sdxl_nb.config.prompts import SamplePrompt, read_prompts
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError

CUP = SamplePrompt("a cup, red", "blurry, text", 832, 1216, 42, 6.5, 28, "euler_a")
LINE = "a cup, red --n blurry, text --w 832 --h 1216 --d 42 --l 6.5 --s 28 --ss euler_a"
FILES = {
    "a.txt": f"# what is drawn\n\n{LINE.replace('euler', 'k_euler')}\na tin\n",
    "b.toml": '[prompt]\nwidth = 832\nheight = 1216\nsample_steps = 28\n[[prompt.subset]]\nprompt = "a cup, red"\n'
    'negative_prompt = "blurry, text"\nseed = 42\nscale = 6.5\nsample_sampler = "euler_a"\n'
    '[[prompt.subset]]\nprompt = "a tin"\nwidth = 64\nheight = 64\nsample_steps = 2',
    "c.yaml": "- prompt: a cup, red\n  negative: blurry, text\n  width: 832\n  height: 1216\n  seed: 42\n"
    "  guidance_scale: 6.5\n  steps: 28\n  scheduler: euler_a\n- a tin",
    "d.json": f'{{"prompts": ["{LINE}", "a tin"]}}',
}


@pytest.mark.parametrize("name", FILES)
def test_files_say_the_same(name, tmp_path):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    first, second = read_prompts(str(tmp_path / name))
    assert first == CUP
    assert second == (
        SamplePrompt("a tin", width=64, height=64, steps=2) if name == "b.toml" else SamplePrompt("a tin")
    )


def test_a_configuration_keeps_the_lines_and_needs_no_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(FILES["a.txt"], encoding="utf-8")
    config = TrainConfig(sample_prompts=str(file), validation_prompt="sky", num_validation_images=2, seed=9)
    file.unlink()
    assert config.sample_prompts == [CUP.line(), "a tin"]
    assert TrainConfig(**config.model_dump()) == config
    assert [(each.number, each.width, each.height, each.seed, each.steps) for each in config.drawings()] == [
        (0, 1024, 1024, 9, 25),
        (0, 1024, 1024, 10, 25),
        (1, 832, 1216, 42, 28),
        (2, 1024, 1024, 9, 25),
    ]
    assert config.drawn_prompts() == ["sky", "a cup, red", "a tin"]
    assert config.fingerprint() == TrainConfig(seed=9).fingerprint()


WRONG = [
    ("a\n\n# b\nc --w 100", "line 4 of p.txt: width must be a multiple of 8, not 100: use 96 or 104"),
    ("a --h big", "line 1 of p.txt: height must be a whole number, not 'big'"),
    ("a --s 0", "line 1 of p.txt: steps must be from 1 to 1000, not '0'"),
    ("a --l nan", "line 1 of p.txt: guidance must be from 0 to 100, not 'nan'"),
    ("a --ss eulr", "line 1 of p.txt: there is no sampler 'eulr': did you mean euler?"),
    ("--w 64", "line 1 of p.txt has no prompt: write what to draw before its options"),
    ("a --x 3", "line 1 of p.txt: --x is no option of a prompt: there are --n --w --h --d --l --s --ss"),
    ("a --cn pose.png", "line 1 of p.txt: --cn is for other models than SDXL: take it out"),
    ("# nothing", "p.txt holds no prompt: write one a line"),
    ("a --s 20 --S 30", "line 1 of p.txt says its steps twice: keep one of them"),
    (
        "a --d -1",
        "line 1 of p.txt: seed -1, a new one each time, shows no progress: leave it out, then it is the run's",
    ),
    ("a --ss DPM++ 3M Karras", "line 1 of p.txt: there is no sampler 'DPM++ 3M Karras': did you mean dpm++_2m_karras?"),
    (
        "a\nNegative prompt: b\nSteps: 20, Sampler: Euler a",
        "line 2 of p.txt is what AUTOMATIC1111 writes below its pictures: write one line a prompt, its settings behind "
        "it as --n blurry --s 25 --l 7 --d 42 --w 832 --h 1216",
    ),
    *(
        (
            f"a cat {option}",
            f"line 1 of p.txt: {shown(option)} looks like an option, and those begin with two hyphens: write --",
        )
        for option in ("-s 20", "\u2014s 20", "\u2013-w 832", "\uff0d\uff0dh 64", "-- d 5", "-n bad", "\u2014ss euler")
    ),
]


@pytest.mark.parametrize("text, sentence", WRONG)
def test_what_is_wrong_is_said_with_its_line(text, sentence, tmp_path):
    (tmp_path / "p.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        TrainConfig(sample_prompts=str(tmp_path / "p.txt"))
    assert str(refused.value) == f"sample_prompts: {sentence}"


def test_lines_are_read_as_a_file_is():
    """Remarks and empty lines are none of the prompts, and any blanks end the name of an option."""
    given = "# mine\n\n  \na\t--s\u00a020\nwell-known - and - rare \u2014 a 3-d view"
    assert read_prompts(given) == read_prompts(given.splitlines())
    assert read_prompts(given) == [
        SamplePrompt("a", steps=20),
        SamplePrompt("well-known - and - rare \u2014 a 3-d view"),
    ]


@pytest.mark.parametrize(
    "theirs, ours",
    {
        "Euler a": "euler_a",
        "euler_ancestral": "euler_a",
        "DPM2 a": "dpm_2_a",
        "DPM++ 2M": "dpmsolver++",
        "dpmpp_2m": "dpmsolver++",
        "uni_pc": "unipc",
        "EulerDiscreteScheduler": "euler",
        "DPMSolverMultistepScheduler": "dpmsolver++",
    }.items(),
)
def test_other_programs_names_of_samplers(theirs, ours):
    assert read_prompts(f"a --ss {theirs} --s 20") == [SamplePrompt("a", steps=20, sampler=ours)]


def test_groups_and_files_that_are_wrong(tmp_path):
    for text, sentence in (
        (
            '[{"prompt": "a", "scale": 5, "guidance": 7}]',
            "prompt 1 of p.json says its guidance twice: keep one of them",
        ),
        ('[{"prompt": "a", "widht": 8}]', "prompt 1 of p.json: widht is nothing of a prompt: did you mean width?"),
        ('[{"prompt": "a", "width": 64.5}]', "prompt 1 of p.json: width must be a whole number, not 64.5"),
        ("[3]", "prompt 1 of p.json must be text, not 3: write a prompt"),
        ("3", "p.json holds no list of prompts: write them as a list"),
    ):
        (tmp_path / "p.json").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as refused:
            TrainConfig(sample_prompts=str(tmp_path / "p.json"))
        assert str(refused.value) == f"sample_prompts: {sentence}"
    with pytest.raises(ConfigError, match=r"^sample_prompts: .*none\.txt cannot be read: No such file"):
        TrainConfig(sample_prompts=str(tmp_path / "none.txt"))


@pytest.mark.parametrize("dash", "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d")
def test_no_other_hyphen_becomes_words(dash):
    for option in (f"{dash}s 20", f"{dash}{dash}w 832"):
        with pytest.raises(ValueError, match="begin with two hyphens: write --"):
            read_prompts([f"a cat {option}"])
    assert read_prompts([f"a cat {dash} sunny"])[0].prompt == f"a cat {dash} sunny"
