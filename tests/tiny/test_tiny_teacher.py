"""The embedded base as a teacher: its pictures in another objective's words, read back by diffusers' own schedulers."""

import pytest
import torch
from bases import EDM, folder

from sdxl_nb.models.loading import load
from sdxl_nb.models.objective.base_objective import made, of
from sdxl_nb.models.sources import Source
from sdxl_nb.tiny.teacher import CLEAREST, NOISIEST, Teacher
from sdxl_nb.training.noise.noising import Noising

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
TEXT = torch.zeros(3, 32, 160)
ADDED = {"text_embeds": torch.zeros(3, 96), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 3)}


def teacher(tmp_path, config):
    base = of(Source(str(folder(tmp_path / "base", only_scheduler=config))))
    return base, Teacher(base, Noising.of(base), base.scheduler.get("sigma_data", 1.0))


def at(found, *ratios):
    """The taught timesteps with most nearly these ratios."""
    return torch.stack([(found.ratios - ratio).abs().argmin() for ratio in ratios])


def drawn():
    torch.manual_seed(0)
    return [torch.randn(3, 4, 8, 8) for _ in range(3)]


def test_what_an_edm_base_is_taught_is_the_teachers_picture(tmp_path):
    base, found = teacher(tmp_path, EDM)
    theirs, (x0, first, more) = made(base.scheduler), drawn()
    when = at(found, 0.2, 2.0, 40.0)
    seen, wanted = found.lesson(x0, (first, more), when, TEXT, ADDED)
    picture = found._picture(x0, first, found.ratios[when].clamp(max=NOISIEST), TEXT, ADDED)
    for place in range(3):
        sigma = theirs.sigmas[:1000].flip(0)[when[place]].double()
        noisy = seen[place].double() * (sigma**2 + 0.25).sqrt()
        denoised = theirs.precondition_outputs(noisy, wanted[place].double(), sigma)
        assert torch.allclose(denoised, picture[place].double(), atol=1e-4)


def test_noise_beyond_the_teachers_comes_on_top_and_counts_as_much(tmp_path):
    _, found = teacher(tmp_path, EDM)
    x0, first, more = drawn()
    when = at(found, 1.0, NOISIEST * 2, NOISIEST * 4)
    seen, _ = found.lesson(x0, (first, more), when, TEXT, ADDED)
    for place, share in enumerate((1.0, 0.5, 0.25)):
        noise = share * first + (1 - share**2) ** 0.5 * more
        wanted = found.noising.noisy(x0, noise, when)[place]
        assert torch.allclose(seen[place], wanted, atol=0.02 * wanted.abs().max())


@pytest.mark.parametrize("config", [EDM, FLOW])
def test_where_there_is_nearly_no_noise_the_picture_itself_is_the_target(tmp_path, config):
    _, found = teacher(tmp_path, config)
    x0, first, more = drawn()
    when = at(found, CLEAREST / 2, CLEAREST / 2, 1.0)
    _, wanted = found.lesson(x0, (first, more), when, TEXT, ADDED)
    assert torch.equal(wanted[:2], found.noising.target(x0, first, when)[:2])
    assert not torch.equal(wanted[2], found.noising.target(x0, first, when)[2])


def test_flow_is_taught_the_velocity_to_the_teachers_picture(tmp_path):
    _, found = teacher(tmp_path, FLOW)
    x0, first, more = drawn()
    when = torch.tensor([99, 499, 999])
    seen, wanted = found.lesson(x0, (first, more), when, TEXT, ADDED)
    picture = found._picture(x0, first, found.ratios[when].clamp(CLEAREST, NOISIEST), TEXT, ADDED)
    t = torch.tensor([0.1, 0.5, 1.0]).view(3, 1, 1, 1)
    assert torch.allclose(seen - t * wanted, picture, atol=1e-4)  # one step of the flow to its end


def test_a_copy_begins_with_the_teachers_noise_and_its_sense_of_time(tmp_path):
    _, found = teacher(tmp_path, EDM)
    unet = load(Source("embedded:tiny-sdxl"), "unet").float().requires_grad_()
    assert found.prepare(unet, steps=200) < 0.3
    when, (x, *_) = at(found, 0.5, 1.0, 2.0), drawn()
    with torch.no_grad():
        own = found.unet(x, found.timesteps(found.ratios[when]), TEXT, added_cond_kwargs=ADDED).sample
        copied = unet(x, found.noising.times(when), TEXT, added_cond_kwargs=ADDED).sample
    assert (copied + own).square().mean() < 0.2 * own.square().mean()  # EDM's F is the noise with a minus


def test_most_lessons_are_where_pictures_take_shape(tmp_path):
    _, found = teacher(tmp_path, EDM)
    ratios = found.ratios[found.table]
    assert (found.table.diff() >= 0).all() and found.table[0] < 20 and found.table[-1] > 990
    assert ((ratios > 0.3) & (ratios < 10)).float().mean() > 0.6
    assert 0.05 < (ratios > 15).float().mean() < 0.2
