"""A step by CUDA graphs is the step without them, bit for bit. On a CPU a tape stands in for CUDA's recorder: it keeps
the operations with the very tensors they had, and runs them again, so that nothing of Python is asked a second time.
"""

import dataclasses

import pytest
import torch
from small_runs import small, studio
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdxl_nb.config import machine
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora import cuda_graphs
from sdxl_nb.lora.cuda_graphs import MOST, SEEN, Graphs
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.processes import Processes
from sdxl_nb.training.trainer import Trainer

FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh")  # the last brings a number from the host


class Tape(TorchDispatchMode):
    """What was computed under it, to be computed again."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = function.name().split("::")[1].split(".")[0]
        if name in FORBIDDEN:
            raise AssertionError(f"{function.name()} cannot be recorded")
        made = function(*arguments, **(named or {}))
        self.operations.append((function, arguments, named or {}, made))
        return made

    def play(self):
        for function, arguments, named, made in self.operations:
            again = function(*arguments, **named)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():  # else a view, or in place
                    old.copy_(new)


class Recorder:
    """In CUDA's recorder's place; `tapes` are all that were made, `plays` how often one was launched."""

    tapes: list
    plays: int

    def __call__(self, run):
        run()
        tape = Tape()
        with tape:
            result = run()
        self.tapes.append(tape)

        def launch():
            type(self).plays += 1
            with torch.no_grad():
                tape.play()

        return launch, result


@pytest.fixture(autouse=True)
def recorder(monkeypatch):
    Recorder.tapes, Recorder.plays = [], 0
    monkeypatch.setattr(cuda_graphs, "Recorder", Recorder)
    return Recorder


def test_a_shape_becomes_a_graph_when_it_has_been_seen_often(recorder):
    gradient, kept = torch.zeros(2), [torch.ones(1)]

    def compute(pair, third):
        x, more = pair
        gradient.add_(x.sum(0))
        return x.sum() * third + (0 if more is None else more.sum())

    graphs = Graphs(compute, gradient, lambda: list(kept))
    one, total = torch.ones(3, 2), torch.tensor(2.0)
    for time in range(1, SEEN + 4):
        assert graphs((one * time, None), total) == 12 * time
        assert gradient.tolist() == [3 * sum(range(time + 1))] * 2  # recording adds nothing to it
        assert len(recorder.tapes) == (time > SEEN)
    for other in ((one, one), (one[:2], None), (one.double(), None)):
        graphs(other, total)
    assert (len(recorder.tapes), recorder.plays) == (1, 3)
    assert next(iter(graphs.made.values())).kept == kept and kept[0] in next(iter(graphs.made.values())).kept

    for rows in range(4, 4 + MOST + 5):
        for _ in range(SEEN + 1):
            graphs((torch.ones(rows, 2), None), total)
    assert len(recorder.tapes) == len(graphs.made) == MOST
    graphs.clear()
    graphs((one, None), total)
    assert len(recorder.tapes) == MOST + 1


@pytest.mark.parametrize("read", [float, torch.nonzero, lambda t: t + torch.tensor([1.0])])
def test_the_tape_refuses_what_a_recorder_would(read):
    x = torch.ones(1)
    with pytest.raises(AssertionError, match="cannot be recorded"), Tape():
        read(x)


def taken(folder, steps, **changes):
    made = studio(small(folder, **changes))
    step = Trainer(made.config, made, None, None, Processes()).updates
    numbers = [step.take(at).read() for at in range(steps)]
    return step, numbers


CASES = [
    {"train_batch_size": 2, "snr_gamma": 5.0, "mixed_precision": "bf16"},
    pytest.param({"lora_kind": "lokr", "use_ema": True, "mixed_precision": "bf16"}, marks=pytest.mark.soak),
    pytest.param({"use_dora": True, "gradient_checkpointing": True}, marks=pytest.mark.soak),
    pytest.param(
        {"base_precision": "int8", "mixed_precision": "bf16", "target_modules": "all"}, marks=pytest.mark.soak
    ),
    pytest.param({"loss_type": "huber", "mixed_precision": "fp16", "noise_offset": 0.1}, marks=pytest.mark.soak),
    pytest.param({"train_batch_size": 1, "gradient_accumulation_steps": 2}, marks=pytest.mark.soak),
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", CASES)
def test_a_step_by_graphs_is_the_step_without(tmp_path, recorder, changes):
    plain, numbers = taken(tmp_path / "plain", SEEN + 4, **changes)
    graphed, again = taken(tmp_path / "graphed", SEEN + 4, cuda_graphs=True, **changes)
    assert recorder.plays >= 3 and again == numbers
    assert torch.equal(graphed.flat.weights, plain.flat.weights)


@pytest.mark.slow
def test_graphs_of_a_batch_that_did_not_fit_are_forgotten(tmp_path, recorder):
    said = []
    step, _ = taken(tmp_path, SEEN + 4, cuda_graphs=True, train_batch_size=2)
    assert step.graphs.made
    step.warn = said.append
    step.halve()
    assert not step.graphs.made and step.take(SEEN + 4).read()[0] > 0 and len(said) == 1


def test_a_machine_without_cuda_is_told_before_anything_is_done(tmp_path):
    config, here = TrainConfig(cuda_graphs=True, output_dir=str(tmp_path)), machine.Machine.here()
    with pytest.raises(ConfigError, match="cuda_graphs needs a CUDA GPU and this machine has none: drop it"):
        machine.check_machine(config, dataclasses.replace(here, device="mps"))
    machine.check_machine(config, dataclasses.replace(here, device="cuda"))
