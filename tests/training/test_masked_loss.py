"""Masked loss in whole runs: half a picture, white masks, caches, resume."""

import io

import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from small_runs import SIZES, assert_same, home, largest_difference, small, tensors, train

from sdxl_nb.system.errors import DataError
from sdxl_nb.training import objective
from sdxl_nb.training.setup import Studio

pytestmark = pytest.mark.slow


def encoded(picture):
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def left_half(size):
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def with_masks(folder, paint):
    """The small runs' pictures as a saved data set, the mask of each painted by `paint(size)`; where it lies."""
    masks = [paint(size) for size in SIZES]
    rows = {
        "image": [{"bytes": (home()[0] / "pictures" / f"{number}.png").read_bytes()} for number in range(len(SIZES))],
        "text": [f"card {number}" for number in range(len(SIZES))],
        "mask": [mask and {"bytes": encoded(mask)} for mask in masks],
    }
    table = Dataset.from_dict(rows).cast_column("image", ImageFeature()).cast_column("mask", ImageFeature())
    table.save_to_disk(str(folder))
    return str(folder)


@pytest.fixture
def seen(monkeypatch):
    """The masks of every micro-batch of later runs, (N, 1, h, w) each."""
    made, mask = [], Studio.mask

    def recorded(self, indices, choices):
        made.append(mask(self, indices, choices))
        return made[-1]

    monkeypatch.setattr(Studio, "mask", recorded)
    return made


@pytest.mark.parametrize("cached", [True, False])
def test_white_masks_change_nothing(tmp_path, seen, cached):
    data = with_masks(tmp_path / "data", lambda size: Image.new("L", size, 255))
    changes = {"train_data_dir": data, "center_crop": False, "bucket_reso_steps": 8, "random_flip": True}
    changes |= {"max_train_steps": 3, "cache_latents": cached}
    train(small(tmp_path / "plain", **changes))
    assert set(seen) == {None}
    train(small(tmp_path / "masked", masked_loss=True, **changes))
    assert_same(tmp_path / "plain", tmp_path / "masked")
    assert all((mask == 1).all() for mask in seen[-3:])
    assert "7 of 7 pictures have a mask." in (tmp_path / "masked" / "log.txt").read_text()


def test_the_loss_of_a_place_outside_moves_no_prediction():
    """Half a mask: outside it no gradient, inside it that of the unmasked loss, bit for bit; half of the loss."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(2, 4, 8, 8, generator=generator)
    predicted = torch.randn(2, 4, 8, 8, generator=generator).requires_grad_()
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., :4] = 1
    (whole,) = torch.autograd.grad(objective.losses(predicted, wanted).sum(), predicted)
    losses = objective.losses(predicted, wanted, mask=mask)
    (masked,) = torch.autograd.grad(losses.sum(), predicted)
    assert torch.equal(masked[..., :4], whole[..., :4]) and not masked[..., 4:].any()
    halves = (predicted - wanted).square()[..., :4].mean(dim=(1, 2, 3)) / 2
    torch.testing.assert_close(losses, halves)


def test_on_the_tiny_base_nothing_is_learned_of_the_black_half(tmp_path, monkeypatch):
    """Whatever is wanted of the right half, the LoRA is the same bit for bit; without the mask it is another."""
    data = with_masks(tmp_path / "data", left_half)
    changes = {"train_data_dir": data, "pretrained_model_name_or_path": "embedded:tiny-sdxl"}
    changes |= {"max_train_samples": 2, "max_train_steps": 2, "resolution": 64}
    train(small(tmp_path / "masked", masked_loss=True, **changes))
    train(small(tmp_path / "whole", **changes))
    target = objective.target

    def garbage(*arguments):
        wanted = target(*arguments).clone()
        wanted[..., wanted.shape[3] // 2 :] += 7
        return wanted

    monkeypatch.setattr(objective, "target", garbage)
    train(small(tmp_path / "masked-too", masked_loss=True, **changes))
    train(small(tmp_path / "whole-too", **changes))
    assert_same(tmp_path / "masked", tmp_path / "masked-too")
    assert largest_difference(tmp_path / "whole", tmp_path / "whole-too") > 1e-4
    assert largest_difference(tmp_path / "whole", tmp_path / "masked") > 1e-4


@pytest.mark.parametrize("cached", [True, False])
def test_masks_are_flipped_and_cropped_with_their_pictures(tmp_path, seen, cached):
    data = with_masks(tmp_path / "data", left_half)
    changes = {"train_data_dir": data, "random_flip": True, "cache_latents": cached, "latents_cache_dir": None}
    train(small(tmp_path / "run", masked_loss=True, unmasked_weight=0.25, max_train_steps=4, **changes))
    rows = {tuple(row) for mask in seen for row in mask[:, 0].reshape(-1, 8).tolist()}
    left, right = (1.0,) * 4 + (0.25,) * 4, (0.25,) * 4 + (1.0,) * 4
    assert rows == {left, right}


def test_masks_are_cut_once_and_a_resumed_run_has_them_again(tmp_path, monkeypatch):
    data = with_masks(tmp_path / "data", lambda size: left_half(size) if size[0] == 32 else None)
    changes = {"train_data_dir": data, "masked_loss": True, "unmasked_probability": 0.3}
    train(small(tmp_path / "whole", **changes))
    assert "3 of 7 pictures have a mask; the others are trained wholly." in (tmp_path / "whole/log.txt").read_text()
    events = []
    train(
        small(tmp_path / "parts", **changes), lambda event: event.get("step") == 3 and (tmp_path / "parts/stop").touch()
    )
    monkeypatch.setattr("sdxl_nb.data.masks.cut", None)  # what is cached is not cut again
    train(small(tmp_path / "parts", resume_from_checkpoint="latest", **changes), events.append)
    assert events[0]["resumed_from"] in (3, 4)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_chance_of_no_mask_changes_no_other_draw(tmp_path, seen):
    data = with_masks(tmp_path / "data", left_half)
    changes = {"train_data_dir": data, "masked_loss": True, "max_train_steps": 4}
    train(small(tmp_path / "never", **changes))
    train(small(tmp_path / "often", unmasked_probability=0.5, **changes))
    never, often = torch.cat(seen[:4]), torch.cat(seen[4:])
    whole = (often == 1).all(dim=3).all(dim=2)[:, 0]
    assert 0 < whole.sum() < len(whole) == 7 and torch.equal(never[~whole], often[~whole])


def test_a_background_is_part_of_what_is_cached(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    picture = Image.new("RGBA", (32, 32), (200, 30, 30, 0))
    picture.save(folder / "a.png")
    (folder / "a.txt").write_text("red")
    changes = {"train_data_dir": str(folder), "max_train_steps": 1}
    for name, colour in (("one", "white"), ("two", "black"), ("three", "white")):
        train(small(tmp_path / name, alpha_background=colour, **changes))
    assert_same(tmp_path / "one", tmp_path / "three")
    ours, theirs = tensors(tmp_path / "one"), tensors(tmp_path / "two")
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)


def test_masks_of_another_shape_end_a_run_before_it_begins(tmp_path):
    data = with_masks(tmp_path / "data", lambda size: Image.new("L", (10, 90)))
    with pytest.raises(DataError, match=r"^the mask of row 0 is 10x90, another shape than its picture row 0 of 32x32"):
        train(small(tmp_path / "run", train_data_dir=data, masked_loss=True))
    assert not (tmp_path / "run" / "run.json").exists()
