"""Concept sliders from pairs of pictures: the loss by its formula, a run and its resume, and what is refused."""

import shutil

import pytest
import torch
from PIL import Image
from small_runs import (
    assert_goes_on,
    fit_one_at_a_time,
    home,
    largest_difference,
    put_negatives,
    small,
    studio,
    train,
    whole,
)

from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.layers import lora_modules
from sdxl_nb.system.errors import ConfigError, DataError
from sdxl_nb.training import objective
from sdxl_nb.training.processes import Processes
from sdxl_nb.training.step import Step
from sdxl_nb.training.teachers.pairs import strength

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def negatives(tmp_path_factory):
    return put_negatives(tmp_path_factory.mktemp("opposites"))


def losses_of(config, made, pictures):
    step = Step(config, made, Processes.join(), made.stream(2), 4, print, print)
    for _, layer in lora_modules(made.unet):  # as begun, a LoRA is zero and has no sign
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    return step, [loss.detach() for loss in step._losses(range(len(pictures)), pictures)]


@pytest.mark.parametrize("cached", [True, False])
def test_the_loss_is_the_mean_of_both_pictures_at_opposite_strengths_of_the_same_noise(tmp_path, negatives, cached):
    config = small(tmp_path, slider_negative_dir=str(negatives), slider_strength=2.0, cache_latents=cached)
    made = studio(config)
    step, found = losses_of(config, made, [0, 3])
    expected = []
    for factor, indices in ((2.0, [0, 3]), (-2.0, [7, 10])):
        noised = step._noised(range(2), indices)
        batch = noised.batch
        with strength(made.trained, factor), torch.no_grad():
            noisy = step.noising.noisy(batch.latents, batch.noise, batch.timesteps)
            told = batch._replace(timesteps=step.noising.times(batch.timesteps))
            expected.append(objective.losses(made.predict(noisy, told), batch.noise).sum() / 2)
        if factor > 0:
            first = batch
    assert torch.equal(first.noise, batch.noise) and torch.equal(first.timesteps, batch.timesteps)
    assert torch.equal(first.prompt.hidden, batch.prompt.hidden)
    assert first.time_ids[1].tolist() == [40, 40, 0, 0, 32, 32] and batch.time_ids[1].tolist() == [80, 80, 0, 0, 32, 32]
    assert not torch.equal(first.latents, batch.latents)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))
    assert not torch.isclose(found[0], found[1])


@pytest.mark.parametrize("kind", [{"lora_kind": "loha"}, {"lora_kind": "lokr"}, {"train_text_encoder": True}])
def test_a_strength_turns_the_change_of_every_kind_and_goes_again(tmp_path, negatives, kind):
    made = studio(small(tmp_path, slider_negative_dir=str(negatives), **kind))
    name, layer = next(lora_modules(made.unet))
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.normal_()
        x = torch.randn(2, 5, layer.get_base_layer().in_features)
        base, usual = layer.get_base_layer()(x), layer(x)
        with strength(made.trained, -0.5):
            turned = layer(x)
        assert torch.equal(layer(x), usual)
    torch.testing.assert_close(turned - base, -0.5 * (usual - base), msg=name)


def test_a_run_resumes_bit_for_bit_and_its_header_and_card_say_what_it_is(tmp_path, negatives):
    run = assert_goes_on(tmp_path, slider_negative_dir=str(negatives), slider_strength=1.5)
    stored = LoraFile(run.folder).config()
    assert stored["slider_negative_dir"] == negatives.name and stored["slider_strength"] == 1.5
    said = "A concept slider: strength 1.5 draws as the training pictures are, -1.5 as their opposites"
    assert said in (run.folder / "README.md").read_text()


def test_where_memory_ends_half_as_many_pairs_learn_the_same(tmp_path, negatives, monkeypatch):
    settings = {"slider_negative_dir": str(negatives), "slider_strength": 1.5}
    at_once = whole(**settings)
    sizes = fit_one_at_a_time(monkeypatch)
    one = train(small(tmp_path / "one", **settings))
    assert sizes == [2] + [1] * 22  # half of a pair of two, then both pictures of each of eleven in six steps
    assert largest_difference(at_once.folder, one.folder) < 1e-4


def test_other_opposites_are_other_data(tmp_path, negatives):
    changed = shutil.copytree(negatives, tmp_path / "opposites")
    run = train(small(tmp_path / "run", slider_negative_dir=str(changed), max_train_steps=2))
    Image.open(changed / "0.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed / "0.png")
    with pytest.raises(ConfigError, match="was trained on other pictures"):
        train(small(run.folder, slider_negative_dir=str(changed), resume_from_checkpoint="latest"))


def test_pairs_that_cannot_be_are_one_sentence_and_what_is_not_used_is_said(tmp_path, negatives):
    folder = shutil.copytree(negatives, tmp_path / "opposites")
    (folder / "extra.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "4.png").write_bytes(b"no picture")
    made = studio(small(tmp_path / "run", slider_negative_dir=str(folder)))
    assert list(made.pictures.names) == ["0.png", "1.png", "2.png", "3.png", "5.png", "6.png"]
    assert made.opposites([3, 4]) == [9, 10] and made.encoded.names[9] == "3.webp"
    one, two = made.remarks[-2:]
    assert one.startswith("1 picture left out: 4.png ") and one.endswith("Their training pictures are not used either.")
    assert two.startswith("1 pictures of slider_negative_dir ") and two.endswith("are not used: extra.png.")

    (folder / "6.png").unlink()
    with pytest.raises(
        DataError, match=r"^6\.png has no opposite in slider_negative_dir .*: put a picture of the same"
    ):
        studio(small(tmp_path / "run", slider_negative_dir=str(folder)))
    Image.new("RGB", (36, 36)).save(folder / "6.png")
    with pytest.raises(DataError, match=r"^6\.png in .* is 36x36, another shape than its training .* of 36x32: crop"):
        studio(small(tmp_path / "run", slider_negative_dir=str(folder)))
    Image.new("RGB", (40, 40)).save(folder / "3.jpg")
    with pytest.raises(DataError, match=r"has 3\.jpg and 3\.webp for 3\.png: keep one of them\.$"):
        studio(small(tmp_path / "run", slider_negative_dir=str(folder)))
    with pytest.raises(DataError, match=r"There is no folder .*none: check --slider_negative_dir"):
        studio(small(tmp_path / "run", slider_negative_dir=str(tmp_path / "none")))


def test_opposites_inside_the_folder_are_not_trained_on(tmp_path, negatives):
    pictures = shutil.copytree(home()[0] / "pictures", tmp_path / "pictures")
    shutil.copytree(negatives, pictures / "other")
    config = small(tmp_path, train_data_dir=str(pictures), slider_negative_dir=str(pictures / "other"))
    opened = open_dataset(config)
    assert list(opened.names) == [f"{number}.png" for number in range(7)]
    assert [note for note in opened.notes if "7 pictures in the folder not trained on: a slider's opposites 7" in note]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"slider_positive": "a"}, "slider_positive trains a slider from prompts, slider_negative_dir one from"),
        ({"validation_split": 0.2}, "validation_split knows single pictures, and a slider from pairs learns two"),
        ({"masked_loss": True}, "masked_loss knows single pictures"),
        ({"cached_variants": 2, "center_crop": False}, "cached_variants is another thing for each picture of a"),
        ({"alpha_background": "random"}, "alpha_background random tells a slider's pictures apart"),
        ({"use_dora": True}, "use_dora has magnitudes, which no negative strength turns"),
        ({"torch_compile": True}, "torch_compile keeps one strength"),
        ({"train_data_dir": "n"}, "slider_negative_dir and train_data_dir are the same: give two folders"),
        ({"train_data_dir": "list.yaml"}, "slider_negative_dir pairs the pictures of one folder, not of a data file"),
        ({"slider_negative_dir": None, "slider_strength": 2.0}, "slider_strength needs slider_negative_dir: give it"),
    ],
)
def test_what_goes_not_together_is_refused(tmp_path, changes, sentence):
    with pytest.raises(ConfigError) as error:
        small(tmp_path, **{"slider_negative_dir": "n"} | changes)
    assert sentence in str(error.value)
