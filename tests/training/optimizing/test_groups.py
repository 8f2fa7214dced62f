"""What is learned at which rate: groups of layers, LoRA+ as peft has it, and text encoders that stop."""

import pytest
import torch
from small_runs import assert_goes_on, tensors
from torch import nn

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.optimizing.groups import Group, groups, idle, rates, told
from sdxl_nb.training.optimizing.optimizers import make_optimizer
from sdxl_nb.training.optimizing.schedules import learning_rates
from sdxl_nb.training.state.parameters import FlatParameters

PLACES = ("up_blocks.0.attentions.0.attn1.to_q", "up_blocks.0.attentions.1.attn2.to_k", "mid_block.attn2.to_k")


class Layer(nn.Module):
    """A layer with LoRA as peft names its weights: down 2 x 3, up 3 x 2."""

    def __init__(self):
        super().__init__()
        for name, shape in (("lora_A", (2, 3)), ("lora_B", (3, 2))):
            setattr(self, name, nn.ModuleDict({"default": nn.Module()}))
            getattr(self, name)["default"].weight = nn.Parameter(torch.ones(shape))


def model(*places):
    made = nn.Module()
    for place in places:
        *way, last = place.split(".")
        inside = made
        for part in way:
            if not hasattr(inside, part):
                inside.add_module(part, nn.Module())
            inside = getattr(inside, part)
        inside.add_module(last, Layer())
    return made


def flat(*, encoders=False):
    models = {"unet": model(*PLACES)}
    if encoders:
        models |= {"text_encoder": model("layers.0.q_proj"), "text_encoder_2": model("layers.0.q_proj")}
    return FlatParameters(models)


def config(**changes):
    return TrainConfig(seed=0, **{"learning_rate": 1e-4} | changes)


def told_rates(weights, **changes):
    return {group.name: pytest.approx(group.rate) for group in groups(config(**changes), weights)}


def test_one_rate_is_one_vector():
    weights = flat(encoders=True)
    (group,) = groups(config(train_text_encoder=True), weights)
    assert (group.name, group.rate, group.decay) == ("unet, text_encoder, text_encoder_2", 1e-4, 1e-2)
    assert weights.vectors(group.members) == [weights.weights] and told([group], None) is None
    assert make_optimizer(config(), weights).param_groups[0]["params"] == [weights.weights]


def test_models_patterns_and_blocks_have_rates_of_their_own():
    two = {"train_text_encoder": True, "text_encoder_lr": [1e-5, 2e-5], "unet_lr": 3e-4}
    assert told_rates(flat(encoders=True), **two) == {"unet": 3e-4, "text_encoder": 1e-5, "text_encoder_2": 2e-5}
    one = {"train_text_encoder": True, "text_encoder_lr": 1e-5}
    assert told_rates(flat(encoders=True), **one) == {"unet": 1e-4, "text_encoder, text_encoder_2": 1e-5}
    assert told_rates(flat(), lr_pattern={"style": 2e-4, "content": 0}) == {"unet": 1e-4, "style": 2e-4}
    first = {"lr_pattern": {"attn2.to_k": 5e-5, "style": 2e-4, "unet.up_blocks.*": 3e-4}}
    with pytest.raises(ConfigError, match="lr_pattern: 'style' matches no layer that gets LoRA"):
        groups(config(**first), flat())  # the pattern before it takes its only layer
    del first["lr_pattern"]["style"]
    assert told_rates(flat(), **first) == {"unet.up_blocks.*": 3e-4, "attn2.to_k": 5e-5}
    plus = {"loraplus_lr_ratio": 16, "lr_pattern": {"style": 2e-4}}
    assert told_rates(flat(), **plus) == {"unet": 1e-4, "style": 2e-4, "unet up": 16e-4, "style up": 32e-4}
    with pytest.raises(ConfigError, match="Every learning rate is 0, so nothing learns"):
        groups(config(lr_pattern={".*": 0}), flat())


def test_models_that_learn_nothing_are_named():
    weights = flat(encoders=True)
    none = {"train_text_encoder": True, "text_encoder_lr": [0.0]}
    assert idle(weights.names, groups(config(**none), weights), None) == ["text_encoder", "text_encoder_2"]
    second = none | {"text_encoder_lr": [0.0, 1e-5]}
    assert idle(weights.names, groups(config(**second), weights), None) == ["text_encoder"]
    at_once = groups(config(train_text_encoder=True, train_text_encoder_frac=0.1), weights)
    assert idle(weights.names, at_once, 0) == ["text_encoder", "text_encoder_2"]
    assert idle(weights.names, at_once, 1) == []
    assert idle(flat().names, groups(config(lr_pattern={"style": 0}), flat()), None) == []


def test_decay_apart():
    settings = config(train_text_encoder=True, adam_weight_decay_text_encoder=0.5)
    weights = flat(encoders=True)
    assert [(g.name, g.decay) for g in groups(settings, weights)] == [
        ("unet", 1e-2),
        ("text_encoder, text_encoder_2", 0.5),
    ]
    made = make_optimizer(settings, weights)
    assert [group["weight_decay"] for group in made.param_groups] == [1e-2, 0.5]


def test_vectors_are_few_and_views():
    weights = flat(encoders=True)  # five downs of 6, then five ups of 6
    up = weights.vectors([5, 6, 7, 8, 9])
    assert len(up) == 1 and up[0].shape == (30,)
    vectors = weights.vectors([0, 1, 4, 5, 7])
    assert [len(vector) for vector in vectors] == [12, 12, 6]
    with torch.no_grad():
        vectors[1].fill_(7.0)
        vectors[1].grad.fill_(2.0)
    assert weights.weights[24:36].tolist() == [7.0] * 12 and weights.weights.grad.sum() == 24
    assert (weights.parameters[4] == 7).all() and (weights.parameters[5] == 7).all()


def test_lora_plus_is_pefts():
    from peft import LoraConfig, get_peft_model
    from peft.optimizers import create_loraplus_optimizer

    def layers():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
        return get_peft_model(net, LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights="gaussian"))

    ours, theirs = layers(), layers()
    weights = FlatParameters({"unet": ours})
    settings = config(learning_rate=1e-2, loraplus_lr_ratio=4, adam_weight_decay=0.1)
    made = make_optimizer(settings, weights)
    options = {"lr": 1e-2, "loraplus_lr_ratio": 4, "loraplus_weight_decay": 0.1, "weight_decay": 0.1}
    reference = create_loraplus_optimizer(theirs, torch.optim.AdamW, **options)
    x = torch.randn(8, 6)
    for _ in range(5):
        weights.zero_grad()
        reference.zero_grad()
        for net, optimizer in ((ours, made), (theirs, reference)):
            net(x).square().sum().backward()
            optimizer.step()
    ends = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        assert torch.allclose(value, ends[name], atol=1e-7, rtol=1e-6), name
    assert not torch.allclose(weights.weights.data, FlatParameters({"unet": layers()}).weights, atol=1e-3)


def test_a_vector_cut_into_pieces_learns_the_same():
    whole, cut = flat(), flat()
    parts = [Group("a", 1e-2, 0.1, members=(0, 2, 3)), Group("b", 1e-2, 0.1, members=(1, 4, 5))]
    settings = config(learning_rate=1e-2)
    for weights, optimizer in ((whole, make_optimizer(settings, whole)), (cut, make_optimizer(settings, cut, parts))):
        for number in range(3):
            torch.manual_seed(number)
            weights.weights.grad.copy_(torch.randn(36))
            optimizer.step()
    assert torch.equal(whole.weights, cut.weights) and not torch.equal(whole.weights, flat().weights)


def test_rates_at_a_step_follow_the_schedule():
    settings = config(lr_scheduler="linear", lr_warmup_steps=0, scale_lr=True, train_batch_size=2)
    parts = [Group("a", 1e-4, 0.0), Group("b", 3e-4, 0.0)]
    assert rates(parts, settings, learning_rates(settings, 4, 1), 1) == pytest.approx([1.5e-4, 4.5e-4])


def test_settings_that_do_not_fit_are_refused():
    for changes, said in (
        ({"text_encoder_lr": 1e-5}, "text_encoder_lr needs train_text_encoder"),
        ({"train_text_encoder_frac": 0.5}, "train_text_encoder_frac needs train_text_encoder"),
        ({"adam_weight_decay_text_encoder": 0.1}, "adam_weight_decay_text_encoder needs train_text_encoder"),
        ({"train_text_encoder": True, "text_encoder_lr": [1, 2, 3]}, "text_encoder_lr takes one or two numbers, not 3"),
        ({"train_text_encoder": True, "text_encoder_lr": "fast"}, "text_encoder_lr must be a number, not 'fast'"),
        ({"lr_pattern": '{"style": -1}'}, "lr_pattern must be at least 0, not -1"),
        ({"lr_pattern": "style"}, 'lr_pattern must be JSON such as {"style": 1e-4'),
        ({"unet_lr": 0}, "unet_lr 0 leaves nothing to learn"),
        ({"unet_lr": 0, "train_text_encoder": True, "train_text_encoder_frac": 0.5}, "nothing else learns"),
        ({"loraplus_lr_ratio": 0}, "loraplus_lr_ratio must be greater than 0, not 0"),
    ):
        with pytest.raises(ConfigError) as error:
            config(**changes)
        assert said in str(error.value)
    with pytest.raises(ConfigError, match="optimizer prodigy finds one step size for all layers"):
        make_optimizer(config(optimizer="prodigy", loraplus_lr_ratio=4, learning_rate=1), flat())


ALL = {
    "train_text_encoder": True,
    "text_encoder_lr": [1e-3, 2e-3],
    "train_text_encoder_frac": 0.5,
    "lr_pattern": {"style": 3e-2, "content": 0},
    "loraplus_lr_ratio": 4,
    "adam_weight_decay_text_encoder": 0.1,
}


def test_all_at_once_goes_on_exactly(tmp_path):
    run = assert_goes_on(tmp_path, **ALL)
    steps = list(run.events("step"))
    assert [round(e["rates"]["text_encoder_2 up"], 6) for e in steps] == [8e-3] * 3 + [0.0] * 3
    assert {round(e["rates"]["style"], 9) for e in steps} == {3e-2} and {e["lr"] for e in steps} == {1e-2}
    assert "text_encoder 0.001, until step 3" in (run.folder / "log.txt").read_text()
    third, last = (tensors_of_encoders(run.folder / f"checkpoint-{step}") for step in (4, 6))
    assert third and all(torch.equal(third[name], last[name]) for name in third)
    second = tensors_of_encoders(run.folder / "checkpoint-2")
    assert any(not torch.equal(second[name], last[name]) for name in second)
    content = [v for k, v in tensors(run.folder).items() if "up_blocks.0.attentions.0" in k and "lora_B" in k]
    assert content and not any(value.any() for value in content)  # rate 0: up matrices stay zero


def tensors_of_encoders(folder):
    return {name: value for name, value in tensors(folder).items() if "text_encoder" in name or "lora_te" in name}


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name in ALL if name not in ("train_text_encoder",)])
def test_each_goes_on_exactly(tmp_path, name):
    changes = {name: ALL[name]} | ({"train_text_encoder": True} if "text_encoder" in name else {})
    assert_goes_on(tmp_path, **changes)
