"""What only generation programs read in a prompt is said, in its place and once; ordinary text is not."""

import pytest
from small_runs import small

from sdxl_nb.data.words.syntax import said_syntax
from sdxl_nb.training.reports.reporting import _remarks

READ = [
    "(a cat:1.2), dog",
    "a cat <lora:mine:0.8>",
    "a red cat BREAK a dog, tree, sky",
    "a {red|blue} cat",
    "a __colour__ cat",
]
PLAIN = ["a cat (16:9)", "a well-known cat, [dog]", "BREAK", "an __init method, {brackets}", "", None]


@pytest.mark.parametrize("prompt", READ)
def test_weights_loras_and_wildcards_are_said(prompt):
    assert said_syntax([*PLAIN, prompt], "here").startswith("here: '")
    assert said_syntax([prompt, prompt], "here").count(" and 1 more is read as the letters that it is: ") == 1


def test_ordinary_text_is_not():
    assert said_syntax(PLAIN, "here") is None


@pytest.mark.parametrize(
    "setting",
    [
        {"validation_prompt": READ[0]},
        {"sample_prompts": [f"{READ[1]} --s 3"]},
        {"sample_prompts": [f"a cat --n {READ[0]}"]},
        {"prior_without_pictures": True, "prior_prompts": [READ[3]]},
        {"slider_positive": READ[4]},
    ],
)
def test_a_run_says_so_of_every_prompt_of_its_settings(tmp_path, setting):
    config = small(tmp_path, **setting)
    assert len([line for line in _remarks(config, 6) if line.startswith("prompts: '")]) == 1
    assert not [line for line in _remarks(small(tmp_path, validation_prompt="a cat"), 6) if "prompts:" in line]
