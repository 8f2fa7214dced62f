"""T-LoRA: how many ranks count at a timestep, what a step computes and learns of it, a resume, and what is refused."""

import pytest
import torch
from small_runs import assert_goes_on, small, studio

from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.layers import lora_modules
from sdxl_nb.lora.timestep_ranks import REMARK, TimestepRanks, ranks_at
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.processes import Processes
from sdxl_nb.training.step import Step


def test_ranks_are_those_of_the_paper():
    assert [ranks_at(t, 1000, 64, 1, 1.0) for t in (0, 250, 500, 750, 999)] == [64, 48, 32, 16, 1]
    assert [ranks_at(t, 1000, 64, 32, 2.0) for t in (0, 500, 999)] == [64, 40, 32]
    assert [ranks_at(t, 1000, 4, 8, 1.0) for t in (0, 999)] == [4, 4]


@pytest.mark.slow
def test_a_step_computes_and_moves_the_ranks_of_its_timesteps_alone(tmp_path):
    config = small(tmp_path, rank=4, tlora_min_rank=1, target_modules="all", min_timestep=600, max_timestep=700)
    made = studio(config)  # two ranks of four count at these: floor(0.3 to 0.4 times 3) + 1
    assert REMARK in made.remarks
    step = Step(config, made, Processes.join(), made.stream(2), 4, print, print)
    layers = [layer for _, layer in lora_modules(made.unet)]
    for layer in layers:
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)

    def loss():
        with torch.no_grad():
            return step._loss([0, 1], step._noised(range(2), [0, 1]))

    before = loss()
    step._gradients(range(2), 2)
    for layer in layers:
        down, up = (part["default"].weight.grad.flatten(1) for part in (layer.lora_A, layer.lora_B))
        assert down[2:].abs().max() == 0 and up[:, 2:].abs().max() == 0
        assert (down[:2].abs().amax(1) > 0).all() and (up[:, :2].abs().amax(0) > 0).all()
        with torch.no_grad():
            layer.lora_A["default"].weight[2:] += 1
    assert torch.equal(loss(), before)
    made.unet.eval()
    assert not torch.isclose(loss(), before)  # all ranks


def test_each_picture_of_a_batch_has_its_own_ranks(tmp_path):
    class Lora(torch.nn.Module):
        def __init__(self, down):
            super().__init__()
            self.lora_A = torch.nn.ModuleDict({"default": down})

    config = small(tmp_path, rank=4, tlora_min_rank=1)
    downs = torch.nn.Linear(3, 4, bias=False), torch.nn.Conv2d(3, 2, 1, bias=False)
    model = torch.nn.ModuleList([Lora(down) for down in downs])
    ranks = TimestepRanks(model, config, 1000)
    ranks = TimestepRanks(model, config, 1000)  # again, as a second Step makes it
    ranks.set([0, 500, 999], torch.device("cpu"))
    for down, x, counts in zip(
        downs, (torch.ones(3, 5, 3), torch.ones(3, 3, 2, 2)), ([4, 2, 1], [2, 1, 1]), strict=True
    ):
        torch.nn.init.ones_(down.weight)
        kept = (down(x).flatten(2).amax(2) if x.ndim == 4 else down(x).amax(1)) > 0
        assert kept.sum(1).tolist() == counts and kept[:, 0].all()
        assert (down.eval()(x) > 0).all()


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_and_its_header_and_card_say_what_it_is(tmp_path):
    run = assert_goes_on(tmp_path, rank=4, tlora_min_rank=2, tlora_alpha=0.5)
    stored = LoraFile(run.folder).config()
    assert stored["tlora_min_rank"] == 2 and stored["tlora_alpha"] == 0.5
    assert "Trained as T-LoRA (arXiv 2507.05964): 2 ranks at the noisiest" in (run.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tlora_min_rank": 2}, "tlora_min_rank 2 masks none of 2 ranks: lower it, or drop it"),
        ({"tlora_min_rank": 1, "lora_kind": "loha"}, "tlora_min_rank masks ranks of LoRA, not of loha: drop it"),
        ({"tlora_min_rank": 1, "use_dora": True}, "use_dora has magnitudes of whole layers, which tlora_min_rank"),
        ({"tlora_alpha": 2.0}, "tlora_alpha needs tlora_min_rank: give it, or drop tlora_alpha"),
    ],
)
def test_what_goes_not_together_is_refused(tmp_path, changes, sentence):
    with pytest.raises(ConfigError) as error:
        small(tmp_path, **changes)
    assert sentence in str(error.value)
