"""Optimizers by name and by path: each is its library's own class, and goes on exactly from tensors and JSON."""

import json

import pytest
import torch
from small_runs import assert_goes_on
from torch import nn

from sdxl_nb.config.checks import OPTIMIZERS
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.preflight.counting import STATE_BYTES
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.disk import STATES
from sdxl_nb.training.optimizing.optimizers import KINDS, evaluates_apart, evaluating, found_sizes, make_optimizer
from sdxl_nb.training.optimizing.stored_state import optimizer_state, restore_optimizer
from sdxl_nb.training.state.parameters import FlatParameters

SHAPES = ((40, 36), (4, 36), (36, 3))
NAMES = [name for name in OPTIMIZERS if not name.endswith("8bit")]
BY_PATH = ["torch.optim.RAdam", "torch.optim.NAdam", "torch.optim.SGD", "torch.optim.Adagrad"]


def layers(seed=0):
    torch.manual_seed(seed)
    net = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in SHAPES)
    return FlatParameters({"net": net})


def config(name, **changes):
    return TrainConfig(seed=0, optimizer=name, **{"learning_rate": 0.01} | changes)


def steps(parameters, optimizer, numbers):
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for parameter in parameters:
            parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))
        optimizer.step()


def theirs(module, name, lr, **options):
    """The library's own class on matrices of its own."""
    flat = layers()
    own = [nn.Parameter(parameter.detach().clone()) for parameter in flat.parameters]
    for parameter in own:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = getattr(__import__(module, fromlist=[name]), name)(own, lr=lr, **options)
    if hasattr(optimizer, "train"):
        optimizer.train()
    steps(own, optimizer, range(12))
    return own, optimizer


CLASSES = [
    ("adamw", "torch.optim", "AdamW", {"weight_decay": 0.01}),
    ("lion", "lion_pytorch", "Lion", {}),
    ("came", "came_pytorch", "CAME", {}),
    ("muon", "torch.optim", "Muon", {"weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}),
    ("prodigy", "prodigyopt", "Prodigy", {"weight_decay": 0.01, "use_bias_correction": True, "safeguard_warmup": True}),
    ("adamw_schedulefree", "schedulefree", "AdamWScheduleFree", {}),
    ("radam_schedulefree", "schedulefree", "RAdamScheduleFree", {}),
    ("prodigy_schedulefree", "prodigyplus", "ProdigyPlusScheduleFree", {}),
    ("torch.optim.RAdam", "torch.optim", "RAdam", {}),
]


@pytest.mark.parametrize("name, module, kind, options", CLASSES)
def test_it_is_the_librarys_own(name, module, kind, options):
    flat = layers()
    lr = 1.0 if "prodigy" in name else 0.01
    optimizer = make_optimizer(config(name, learning_rate=lr), flat)
    steps(flat.parameters, optimizer, range(12))
    wanted, reference = theirs(module, kind, lr=lr, **options)
    for ours, other in zip(flat.parameters, wanted, strict=True):
        assert torch.allclose(ours, other, rtol=1e-5, atol=1e-7)  # one long vector sums in another order
    assert not torch.equal(flat.weights, layers().weights)
    if evaluates_apart(optimizer):
        reference.eval()
        own = flat.weights.detach().clone()
        with evaluating(optimizer, flat):
            for ours, other in zip(flat.parameters, wanted, strict=True):
                assert torch.allclose(ours, other, rtol=1e-5, atol=1e-7)
            assert not torch.equal(flat.weights, own)
        assert torch.equal(flat.weights, own)


@pytest.mark.parametrize("name", [*NAMES, *BY_PATH])
def test_it_goes_on_exactly(name):
    settings = config(name)
    straight = layers()
    steps(straight.parameters, make_optimizer(settings, straight), range(6))

    first = layers()
    optimizer = make_optimizer(settings, first)
    steps(first.parameters, optimizer, range(3))
    if evaluates_apart(optimizer):
        with evaluating(optimizer, first):  # looking changes nothing
            pass
    kept, rest = optimizer_state(optimizer)
    kept, text = {name: value.clone() for name, value in kept.items()}, json.dumps(rest, allow_nan=False)

    second = layers(seed=1)
    second.weights.data.copy_(first.weights.data)
    going_on = make_optimizer(settings, second)
    restore_optimizer(going_on, kept, json.loads(text))
    steps(second.parameters, going_on, range(3, 6))
    assert torch.equal(second.weights, straight.weights) and not torch.equal(first.weights, straight.weights)


def test_muon_takes_a_convolution_as_a_matrix_of_its_rows():
    def trained(shape):
        torch.manual_seed(2)
        flat = FlatParameters({"net": nn.ParameterList([nn.Parameter(torch.randn(4, 18).view(shape))])})
        optimizer = make_optimizer(config("muon"), flat)
        for number in range(5):
            flat.gradient.copy_(torch.randn(72, generator=torch.Generator().manual_seed(number)))
            optimizer.step()
        return flat.weights

    assert torch.equal(trained((4, 2, 3, 3)), trained((4, 18)))
    with pytest.raises(ConfigError, match="optimizer muon learns matrices alone, and DoRA has magnitudes too: drop"):
        config("muon", use_dora=True)
    with pytest.raises(ConfigError, match=r"optimizer muon cannot be made \(it learns matrices alone\)"):
        make_optimizer(config("muon"), FlatParameters({"net": nn.ParameterList([nn.Parameter(torch.ones(4))])}))


def test_arguments_reach_the_optimizer_and_its_step_size_is_told():
    flat = layers()
    given = ["d_coef=2", "d0=1e-4", "betas=(0.9, 0.98)", "slice_p=11"]
    optimizer = make_optimizer(config("prodigy", learning_rate=1, optimizer_args=given), flat)
    group = optimizer.param_groups[0]
    assert (group["d_coef"], group["d0"], group["betas"], group["slice_p"]) == (2, 1e-4, (0.9, 0.98), 11)
    assert found_sizes(optimizer) == [1e-4] and found_sizes(make_optimizer(config("adamw"), layers())) == []
    form = config("came", optimizer_args="betas=(0.9, 0.95, 0.99) weight_decay=0.1")
    assert form.optimizer_arguments() == {"betas": (0.9, 0.95, 0.99), "weight_decay": 0.1}
    words = config("adamw", optimizer_args={"amsgrad": True, "foreach": None, "note": "text"})
    assert words.optimizer_arguments() == {"amsgrad": True, "foreach": None, "note": "text"}
    said = []
    make_optimizer(config("torch.optim.SGD", adam_beta1=0.8), layers(), remarks=said)
    make_optimizer(config("lion", adam_epsilon=1e-6), layers(), remarks=said)
    assert [line.split(" does not")[0] for line in said] == ["adam_beta1", "adam_epsilon"]


def test_every_name_has_its_maker_and_its_size():
    assert set(KINDS) == set(OPTIMIZERS) == set(STATES) == set(STATE_BYTES)


def test_wrong_names_and_arguments_are_one_sentence():
    for name, changes, said in (
        ("lioN", {}, "optimizer has no 'lioN': did you mean lion?"),
        ("os.system('x')", {}, "optimizer has no"),
        ("adamw", {"optimizer_args": ["d_coef"]}, "optimizer_args must be NAME=VALUE, such as d_coef=2, not 'd_coef'"),
        ("adamw", {"optimizer_args": ["lr=1"]}, "optimizer_args must not hold lr"),
        ("prodigy_schedulefree", {"use_ema": True}, "averages the weights by itself: drop use_ema"),
        ("adamw", {"optimizer_args": ["warp=9"]}, "optimizer adamw with optimizer_args warp=9 cannot be made"),
        (
            "lion",
            {"optimizer_args": ["betas=(2, 2)"]},
            "with optimizer_args betas=(2, 2) cannot be made",
        ),
        ("no_such_module.Optimizer", {}, "optimizer no_such_module.Optimizer cannot be imported (No module named"),
        ("torch.nn.Linear", {}, "optimizer torch.nn.Linear is no class of torch.optim.Optimizer"),
        ("torch.optim.LBFGS", {}, "optimizer torch.optim.LBFGS cannot train a LoRA here"),
        ("torch.optim.SparseAdam", {}, "optimizer torch.optim.SparseAdam cannot train a LoRA here"),
        ("test_named.Replacing", {}, "optimizer test_named.Replacing puts new tensors in the weights' place"),
        ("test_named.Unstorable", {}, "optimizer test_named.Unstorable cannot train a LoRA here (Object of type set"),
    ):
        with pytest.raises(ConfigError) as error:
            make_optimizer(config(name, **changes), layers())
        assert said in str(error.value)


class Replacing(torch.optim.SGD):
    """Puts new tensors where the weights were."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data - group["lr"] * parameter.grad


class Unstorable(torch.optim.SGD):
    """Keeps in its state what is neither a tensor nor JSON."""

    def step(self, closure=None):
        super().step()
        self.state[self.param_groups[0]["params"][0]]["seen"] = {1, 2}


class Forgetful(torch.optim.SGD):
    """Counts its steps where no state is kept."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        self.param_groups[0]["lr"] = 0.1 * self.count
        super().step()


def test_one_that_forgets_is_said():
    said = []
    make_optimizer(config("test_named.Forgetful"), layers(), remarks=said)
    assert said == [
        "Optimizer test_named.Forgetful does not go on exactly from what its state says: a run that is resumed will "
        "not end bit for bit as one that was not interrupted."
    ]


PICTURES = {"validation_split": 0.3, "heldout_steps": 2}


def test_schedule_free_keeps_and_measures_the_average(tmp_path):
    """The files hold the average, the state what goes on; a resumed run ends the same, held-out losses too."""
    run = assert_goes_on(
        tmp_path, optimizer="prodigy_schedulefree", learning_rate=1.0, optimizer_args=["d0=1e-3"], **PICTURES
    )
    sizes = [event["d"] for event in run.events("step")]
    assert sizes == sorted(sizes) and sizes[0] == 1e-3
    notes = [event["message"] for event in run.events("warning")]
    assert any("--max_grad_norm 0 is what its author recommends" in note for note in notes)


@pytest.mark.soak
@pytest.mark.parametrize("name", [*NAMES, *BY_PATH])
def test_a_run_goes_on_exactly(tmp_path, name):
    rate = {"prodigy": 1.0, "prodigy_schedulefree": 1.0}.get(name, 1e-2)
    assert_goes_on(tmp_path, optimizer=name, learning_rate=rate, train_text_encoder=True, **PICTURES)
