"""The widgets that show pictures, in process: what they send, what they do when something is pressed."""

import io
import json
import shutil
import threading

import numpy as np
import pytest
import traitlets
from ipywidgets import HTML
from PIL import Image
from small_runs import small, train

from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.widgets.parts.downloads import DownloadButton
from sdxl_nb.widgets.parts.pictures import BeforeAfter, thumbnail
from sdxl_nb.widgets.parts.watching import Notice, Worker
from sdxl_nb.widgets.playground.playground import NOTHING, LoraPlayground
from sdxl_nb.widgets.playground.sliders import Slider

pytestmark = pytest.mark.slow

VIEW = "application/vnd.jupyter.widget-view+json"


def opened(data):
    return Image.open(io.BytesIO(bytes(data)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"validation_prompt": ["a <card>"], "num_validation_images": 1, "validation_inference_steps": 2}
    return train(small(tmp_path_factory.mktemp("grid") / "run", checkpointing_steps=4, **settings))


def inside(widget, kind):
    """All widgets of a kind below this one."""
    found = [widget] if isinstance(widget, kind) else []
    return found + [w for child in getattr(widget, "children", ()) for w in inside(child, kind)]


def button(widget, words):
    from ipywidgets import Button

    (one,) = (b for b in inside(widget, Button) if b.description == words or b.tooltip == words)
    return one


# Small parts.


def test_thumbnails_are_small_and_enlarge_whole_pixels():
    large = thumbnail(Image.effect_noise((1024, 768), 80).convert("RGB"))
    assert opened(large).format == "WEBP" and opened(large).size == (256, 192) and len(large) < 30_000
    tiny = Image.new("RGB", (2, 1), "red")
    tiny.putpixel((1, 0), (0, 0, 255))
    enlarged = np.asarray(opened(thumbnail(tiny)).convert("RGB"))
    assert enlarged.shape == (128, 256, 3)
    assert (enlarged[:, :128] == (255, 0, 0)).all() and (enlarged[:, 128:] == (0, 0, 255)).all()


def test_a_notice_says_errors_escaped_and_a_worker_takes_the_newest_job():
    notice, worker, done = Notice(), Worker(), []
    assert notice.guard(lambda: 1 / 0)() is None and "ZeroDivisionError: division by zero" in notice.value
    notice.fail(SdxlNbError("<b> is wrong"))
    assert "&lt;b&gt; is wrong" in notice.value and "SdxlNbError" not in notice.value
    begun, others_wait = threading.Event(), threading.Event()
    worker.start(lambda: (begun.set(), others_wait.wait(600), done.append(0)))
    assert begun.wait(600)
    for number in (1, 2, 3):
        worker.start(lambda number=number: done.append(number))
    others_wait.set()
    worker.wait(600)
    assert done == [0, 3] and not worker.busy


def test_a_download_sends_the_bytes_and_says_what_went_wrong():
    sent, failed = [], []
    good = DownloadButton("Save", "a.bin", lambda: b"abc", failed.append)
    good.send = lambda content, buffers: sent.append((content, buffers))
    good._asked(good, {"view": 0.5}, [])
    assert sent == [({"view": 0.5, "filename": "a.bin"}, [b"abc"])] and failed == []
    bad = DownloadButton("Save", "a.bin", lambda: 1 / 0, failed.append)
    bad._asked(bad, {"view": 0.5}, [])
    assert [type(error) for error in failed] == [ZeroDivisionError]


def test_a_large_download_goes_in_parts_of_which_the_last_names_the_file(monkeypatch):
    sent = []
    monkeypatch.setattr("sdxl_nb.widgets.parts.downloads.PART", 4)
    for data in (b"", b"abcd", b"abcdefghij"):
        save = DownloadButton("Save", "a.bin", lambda data=data: data, sent.append)
        save.send = lambda content, buffers: sent.append((content, bytes(buffers[0])))
        save._asked(save, {"view": 0.5}, [])
    part = {"view": 0.5}  # a button may be shown twice, and is pressed once
    named = part | {"filename": "a.bin"}
    assert sent == [(named, b""), (named, b"abcd"), (part, b"abcd"), (part, b"efgh"), (named, b"ij")]


# The playground.


def test_the_playground_draws_both_and_keeps_the_plain_one(run, tmp_path):
    playground = LoraPlayground(run, prompt="a <card>", steps=2)
    assert playground._repr_mimebundle_().keys() == {VIEW, "text/plain"}  # nothing drawn for it
    assert [b.disabled for b in inside(playground, DownloadButton)] == [True, True]
    first = playground.draw()
    assert first.labels == ["without LoRA", "with LoRA"] and playground._repr_mimebundle_()["image/png"]
    plain, strong = (np.asarray(first.at(0, label)) for label in (0, 1))
    playground.scale = 2.0
    playground._work.wait(600)
    again = playground.pictures
    assert np.array_equal(np.asarray(again.at(0, 0)), plain)
    assert not np.array_equal(np.asarray(again.at(0, 1)), strong)
    (pair,) = inside(playground, BeforeAfter)
    assert pair.before != pair.after
    playground.scale = 0.0
    playground._work.wait(600)
    assert np.array_equal(np.asarray(playground.pictures.at(0, 1)), plain)
    path = playground.save(tmp_path)
    settings = {"prompt": "a <card>", "seed": 0, "steps": 2, "guidance": 5.0, "scale": 0.0, "loras": {"run": 1.0}}
    with Image.open(path) as picture:
        assert json.loads(path.with_suffix(".json").read_text()) == settings == json.loads(picture.text["sdxl_nb"])


def test_several_loras_have_weights_and_wrong_settings_are_said(run):
    both = LoraPlayground([run.folder, run.folder / "checkpoint-4"], prompt="x", steps=1)
    assert list(both.settings()["loras"]) == ["run", "checkpoint-4"] and len(both._weights) == 2
    both._weights[1].value = -0.5
    both._work.wait(600)
    assert both.weights == (1.0, -0.5) and both.settings()["loras"]["checkpoint-4"] == -0.5
    both.prompt = "  "
    button(both, "Draw").click()
    both._work.wait(600)
    assert "There is no prompt: say what to draw." in both._notice.value
    with pytest.raises(TypeError, match=r"LoraPlayground has no setting promt: did you mean prompt\?"):
        LoraPlayground(run, promt="x")


def told(playground):
    """What the two downloads would save: the settings in the PNG, and those in the JSON."""
    sent = []
    for download in inside(playground, DownloadButton):
        download.send = lambda content, buffers: sent.append(buffers[0])
        download._asked(download, {"view": 0.5}, [])
    return [json.loads(opened(sent[0]).text["sdxl_nb"]), json.loads(sent[1])]


def test_draw_always_draws_and_a_slider_only_when_it_may(run):
    playground = LoraPlayground(run, prompt="x", steps=1)
    playground._auto.value = False
    playground.scale = 0.5
    assert not playground._work.busy and playground.pictures is None
    for seed in (0, 7):
        playground.seed = seed
        button(playground, "Draw").click()
        playground._work.wait(600)
        assert playground.pictures.seeds == [seed] and f"Seed {seed}, scale 0.5." in playground._notice.value


def test_what_is_saved_and_shown_is_what_was_drawn_whatever_is_typed_meanwhile_and_later(run, monkeypatch, tmp_path):
    from sdxl_nb.widgets.playground import drawing

    playground, generate, asked = LoraPlayground(run, prompt="first", steps=1), drawing.generate, []

    def typed_meanwhile(base, loras, prompts, **numbers):
        asked.append((prompts, numbers["seeds"]))
        playground.prompt, playground.seed = "second", 9
        return generate(base, loras, prompts, **numbers)

    monkeypatch.setattr(drawing, "generate", typed_meanwhile)
    drawn = playground.draw()
    assert asked == [(["first"], (0,))] * 2 and drawn.prompts == ["first"] and drawn.seeds == [0]
    settings = {"prompt": "first", "seed": 0, "steps": 1, "guidance": 5.0, "scale": 1.0, "loras": {"run": 1.0}}
    assert told(playground) == [settings, settings] and playground.settings() == settings
    assert playground.save(tmp_path).name == "run-0-1.png"
    assert "first (seed 0, scale 1)" in [text.get_text() for text in playground.figure().texts]


def test_a_number_that_cannot_be_is_taken_back_and_said_beside_it(run):
    from ipywidgets import FloatText, IntText

    playground = LoraPlayground(run, prompt="x", steps=3)
    (guidance,) = inside(playground, FloatText)
    seed, steps = inside(playground, IntText)
    for control, value, said in (
        (steps, 0, "Steps must be from 1 to 1000: 0 was not taken."),
        (steps, 2000, "Steps must be from 1 to 1000: 2000 was not taken."),
        (guidance, 200.0, "Guidance must be from 0 to 100: 200 was not taken."),
        (seed, -1, "Seed must be from 0 to 4294967295: -1 was not taken."),
        (seed, 10**20 - 1, "Seed must be from 0 to 4294967295: 99999999999999999999 was not taken."),
    ):
        control.value = value
        assert said in playground._refused.value and 'role="alert"' in playground._refused.value
        assert (playground.steps, steps.value, playground.guidance, guidance.value) == (3, 3, 5.0, 5.0)
        assert (playground.seed, seed.value) == (0, 0)
    steps.value = 4
    assert playground.steps == 4 and playground._refused.value == ""
    playground.scale = 3.5  # code may go where the slider ends
    assert playground.scale == 3.5 == inside(playground, Slider)[0].value


def test_what_was_refused_is_said_until_something_is_taken(run):
    from ipywidgets import FloatText, IntText, Text

    playground = LoraPlayground([run, run], prompt="x")
    playground._auto.value = False
    (guidance,), (prompt,), numbers = (inside(playground, kind) for kind in (FloatText, Text, IntText))
    taken = [(guidance, 6.0), (prompt, "y"), *((number, 7) for number in numbers)]
    for control, value in [*taken, *((slider, 0.5) for slider in inside(playground, Slider))]:
        guidance.value = -1.0
        assert "-1 was not taken" in playground._refused.value
        control.value = value
        assert playground._refused.value == ""
    assert playground.weights == (0.5, 0.5)


def test_weights_set_by_code_are_shown_and_stay(run):
    playground = LoraPlayground([run, run], prompt="x", weights=[1, 0.5])
    playground._auto.value = False
    sliders = playground._weights
    assert [slider.value for slider in sliders] == [1.0, 0.5]
    playground.weights = (0.3, 2.5)
    assert [slider.value for slider in sliders] == [0.3, 2.5] and sliders[1].max == 2.5
    sliders[0].value = 0.4
    assert playground.weights == (0.4, 2.5) == tuple(playground.settings()["loras"].values())


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (1, "x"), (1, float("nan"))])
def test_weights_are_one_number_for_each_lora(run, weights):
    playground, said = LoraPlayground([run, run], prompt="x"), r"weights must be one number for each LoRA, 2 in all"
    with pytest.raises(traitlets.TraitError, match=said):
        playground.weights = weights
    assert playground.weights == (1.0, 1.0)
    with pytest.raises(traitlets.TraitError, match=said):
        LoraPlayground([run, run], weights=weights)


def test_a_slider_says_what_it_is_and_has_room(run):
    one, several = LoraPlayground(run), LoraPlayground([run, run.folder / "checkpoint-4"])
    assert [slider.description for slider in inside(one, Slider)] == ["LoRA scale"]
    assert [slider.description for slider in inside(several, Slider)] == ["LoRA scale", "run", "checkpoint-4"]
    assert len({slider.room for slider in inside(several, Slider)}) == 1  # one below the other
    assert 'range.setAttribute("aria-label", name)' in Slider._esm
    for widget in (Slider, BeforeAfter):  # JupyterLab would take the arrow keys of a range for its own
        assert widget._esm.count('type="range"') == widget._esm.count("data-lm-suppress-shortcuts") == 1
    assert all(slider.layout.width is None for slider in inside(several, Slider))  # as wide as there is room


def test_before_anything_is_drawn_the_playground_says_so(run):
    playground = LoraPlayground(run, prompt="a <card>", steps=1)
    words = [text.value for text in inside(playground, HTML)]
    assert inside(playground, BeforeAfter) == [] and any(NOTHING in text for text in words)
    playground.draw()
    (pair,) = inside(playground, BeforeAfter)
    assert pair.alt == "a <card>" and pair.before and pair.after
    assert not any(NOTHING in text.value for text in inside(playground, HTML))


def test_a_run_that_was_killed_is_drawn_with_its_newest_checkpoint(run, tmp_path):
    for name in ("run.json", "config.json", "checkpoint-4"):
        copy = shutil.copytree if (run.folder / name).is_dir() else shutil.copy
        copy(run.folder / name, tmp_path / name)
    for given in (Run(tmp_path), str(tmp_path), [tmp_path]):
        playground = LoraPlayground(given)
        assert [lora.path.parent.name for lora in playground.loras] == ["checkpoint-4"]
        assert list(playground.settings()["loras"]) == ["checkpoint-4"]
    assert list(LoraPlayground([run, run]).settings()["loras"]) == ["run", "run 2"]
