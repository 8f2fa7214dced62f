"""Several processes through torchrun and accelerate: equal shares, one writer, one stop, one failure."""

import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import assert_same, largest_difference, small, studio, train
from test_trainer import FLAT

from sdxl_nb.cache.latents import cache_folder
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import ConfigError, SdxlNbError
from sdxl_nb.training.optimizing.stored_state import optimizer_state
from sdxl_nb.training.processes import PeerError, Processes
from sdxl_nb.training.state import checkpoint
from sdxl_nb.training.trainer import Trainer

pytestmark = pytest.mark.slow

PROMPTS = {"validation_prompt": ["a card", "two"], "num_validation_images": 1, "validation_inference_steps": 1}
HELD_OUT = {"validation_split": 0.2, "checkpointing_steps": 100, **PROMPTS}
TORCHRUN = ["torch.distributed.run", "--nproc_per_node", "2", "--master-addr", "127.0.0.1", "--master-port", "{port}"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "{port}"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def launch(config, launcher=TORCHRUN, program=("-m", "sdxl_nb.train"), status=0):
    """Train in two processes; what they and the launcher print on stderr."""
    port = free_port()
    command = [sys.executable, "-m", *(part.format(port=port) for part in launcher), *program, *config.to_flags()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert (done.returncode != 0) == (status != 0), done.stderr[-3000:]
    return done.stderr


def pictures_of(run):
    return {step: [np.asarray(Image.open(path), np.int16) for path in paths] for step, paths in run.pictures().items()}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A run in two processes, never interrupted."""
    folder = tmp_path_factory.mktemp("together")
    launch(small(folder, train_batch_size=1, **FLAT, **HELD_OUT))
    return folder


def test_two_processes_are_a_larger_batch(tmp_path, together):
    alone = train(small(tmp_path / "alone", train_batch_size=2, **FLAT, **HELD_OUT))
    run = Run.open(together)
    assert run.status == "completed" and next(run.events("start"))["processes"] == 2
    assert run.losses()[0] == alone.losses()[0] and run.losses()[1] == pytest.approx(alone.losses()[1], rel=1e-5)
    rates = [[event["lr"] for event in one.events("step")] for one in (run, alone)]
    assert rates[0] == rates[1] and largest_difference(run.folder, alone.folder) < 1e-5
    heldout = [[(e["step"], e["loss"]) for e in one.events("heldout")] for one in (run, alone)]
    assert [s for s, _ in heldout[0]] == [s for s, _ in heldout[1]] and len(heldout[0]) > 1
    assert [x for _, x in heldout[0]] == pytest.approx([x for _, x in heldout[1]], rel=1e-5)
    ours, theirs = pictures_of(run), pictures_of(alone)
    assert ours.keys() == theirs.keys() and len(ours[0]) == len(theirs[0]) == 2
    # one process draws both at once, which some processors round otherwise than one
    assert all(np.abs(one - other).max() <= 1 for one, other in zip(ours[0], theirs[0], strict=True))


@pytest.mark.soak
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE])
def test_a_step_may_be_cut_in_any_way(tmp_path, launcher):
    changes = {"lr_scheduler": "cosine", "lr_warmup_steps": 2, **FLAT}
    alone = train(small(tmp_path / "alone", train_batch_size=4, **changes))
    for batch, accumulation in ((2, 1), (1, 2)):
        cut = {"train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        launch(small(tmp_path / f"together-{batch}", **cut, **changes), launcher)
        run = Run.open(tmp_path / f"together-{batch}")
        assert [e["lr"] for e in run.events("step")] == [e["lr"] for e in alone.events("step")]
        assert largest_difference(run.folder, alone.folder) < 1e-5


@pytest.mark.soak
def test_another_number_of_processes_goes_on(tmp_path):
    """With another division of the same step; with another step it is refused."""
    alone = train(small(tmp_path / "alone", train_batch_size=2, **FLAT))
    again = {"resume_from_checkpoint": "checkpoint-4", **FLAT}
    launch(small(tmp_path / "together", train_batch_size=1, **FLAT))
    for file in ("pytorch_lora_weights.safetensors", "small.safetensors"):
        (tmp_path / "together" / file).unlink()
    fewer = train(small(tmp_path / "together", train_batch_size=1, gradient_accumulation_steps=2, **again))
    assert fewer.losses()[0] == [1, 2, 3, 4, 5, 6] and largest_difference(fewer.folder, alone.folder) < 1e-5
    launch(small(tmp_path / "together", train_batch_size=1, **again))
    assert largest_difference(tmp_path / "together", alone.folder) < 1e-5
    with pytest.raises(ConfigError, match="checkpoint-4 took 2 pictures a step, now it would be 1 with 1 processes"):
        train(small(tmp_path / "together", train_batch_size=1, **again))


@pytest.mark.soak
def test_two_processes_twice_are_the_same_bits_and_stop_together(tmp_path):
    stopping = tmp_path / "stopping.py"
    stopping.write_text(
        "import sys\nfrom sdxl_nb import train\nfrom sdxl_nb.runs import run\n"
        "from sdxl_nb.training.reports import reporting\nreport = reporting.report\n"
        "def watch(trainer, step, *rest):\n"
        "    report(trainer, step, *rest)\n"
        "    if step == 2 and trainer.folder.writes: run.Run(trainer.folder.path).stop()\n"
        "reporting.report = watch\nsys.exit(train.main())\n"
    )
    launch(small(tmp_path / "whole", train_batch_size=1))
    launch(small(tmp_path / "cut", train_batch_size=1), program=[str(stopping)])
    run = Run.open(tmp_path / "cut")
    assert run.status == "stopped" and run.losses()[0] == [1, 2, 3]  # both hear of it with the next step
    launch(small(tmp_path / "cut", train_batch_size=1, resume_from_checkpoint="latest"))
    assert_same(tmp_path / "cut", tmp_path / "whole")


KILLING = """
import os, signal, sys, threading
from sdxl_nb import train
from sdxl_nb.cache import shards
from sdxl_nb.training import setup as studio, step
from sdxl_nb.training.state import checkpoint
rank, where, count = int(os.environ["RANK"]), *sys.argv[1:3]
del sys.argv[1:3]
shards.ROWS = 1
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def half_a_shard(file, parts):
    content = b"".join(map(bytes, parts))
    file.write(content[: len(content) // 2])
    file.flush()
def dies(function, before=lambda *arguments: None):
    calls = iter(range(1, 1000))
    def dying(*arguments, **named):
        if rank == int(where[-1]) and next(calls) == int(count):
            before(*arguments)
            die()
        return function(*arguments, **named)
    return dying
if where == f"time{rank}": threading.Timer(float(count), die).start()
if where.startswith("shard"): shards._write_all = dies(shards._write_all, half_a_shard)
if where.startswith("named"): shards._sync_folder = dies(shards._sync_folder)
if where.startswith("step"): step.Step._loss = dies(step.Step._loss)
if where.startswith("save"): checkpoint.save_file = dies(checkpoint.save_file)
if where.startswith("draw"): studio.Studio.validate = dies(studio.Studio.validate)
sys.exit(train.main())
"""


def kill(config, where, count):
    """One of two processes is killed, `where` ends with its number; the launcher ends the other. What was done last."""
    program = Path(config.output_dir).with_name("killing.py")
    program.write_text(KILLING)
    launch(config, program=[str(program), where, str(count)], status=1)
    return [event["event"] for event in Run.open(config.output_dir).events() if event["event"] != "end"][-1]


@pytest.mark.soak
def test_one_of_two_killed_while_caching_and_while_training(tmp_path, together):
    """With half a shard written, and in the fourth step: the rest is made by both, with the same bits."""
    changes = {"train_batch_size": 1, **FLAT, **HELD_OUT, "checkpointing_steps": 2}
    config = small(tmp_path / "killed", resume_from_checkpoint="latest", **changes)
    kill(config, "shard1", 7)
    folders = [cache_folder(config) / kind for kind in ("prompts", "latents")]
    assert [len(list(folder.rglob("*.safetensors"))) > 0 for folder in folders] == [True, True]
    assert len(list(cache_folder(config).rglob(".*.draft"))) == 1
    kill(config, "step0", 4)
    assert checkpoint.checkpoints(config.output_dir) != []
    launch(config)
    assert_same(tmp_path / "killed", together)


@pytest.mark.soak
def test_one_of_two_killed_twenty_times(tmp_path):
    """Ten times at moments that are known to be delicate and ten times at any, each time caching anew."""
    changes = {"train_batch_size": 1, "checkpointing_steps": 1, "use_ema": True, **PROMPTS}
    changes |= {"max_train_steps": 60, "checkpoints_total_limit": 2, "validation_split": 0.2}
    draw, moments, cache = random.Random(0), [], tmp_path / "cache"
    launch(small(tmp_path / "whole", **changes))
    times = {(event["event"], event["step"]): event["time"] for event in Run.open(tmp_path / "whole").events()}
    span = times["step", 3] - times["start", 0] + 2  # seconds, with those of loading
    changes |= {"latents_cache_dir": str(cache)}
    config = small(tmp_path / "killed", resume_from_checkpoint="latest", **changes)
    delicate = [("shard0", 8), ("shard1", 7), ("named1", 7), ("step0", 2), ("step1", 2), ("save0", 1), ("draw1", 1)]
    for number in range(20):
        shutil.rmtree(cache, ignore_errors=True)
        if number % 2:
            moments.append(kill(config, f"time{draw.choice('01')}", draw.uniform(0.1, span)))
        else:
            where, most = delicate[number // 2 % len(delicate)]
            moments.append(kill(config, where, draw.randint(1, most)))
    print("killed after", *moments)
    launch(config)
    assert_same(tmp_path / "killed", tmp_path / "whole")


FAILING = """
import os, sys
from sdxl_nb import train
from sdxl_nb.system import errors
from sdxl_nb.training import setup as studio, step, trainer
from sdxl_nb.training.state import checkpoint
rank, where = int(os.environ["RANK"]), sys.argv.pop(1)
def fails(function, count=1):
    calls = iter(range(1, 1000))
    def failing(*arguments, **named):
        if rank == int(where[-1]) and next(calls) >= count:
            raise errors.DataError("picture 7 is gone: bring it back.")
        return function(*arguments, **named)
    return failing
if where.startswith("step"): step.Step._loss = fails(step.Step._loss, 3)
if where.startswith("encode"): studio.Studio.encode = fails(studio.Studio.encode)
if where.startswith("folder"): trainer.RunFolder.refuse_foreign = fails(trainer.RunFolder.refuse_foreign)
if where.startswith("save"): checkpoint.save_file = fails(checkpoint.save_file, 2)
if where.startswith("draw"): studio.Studio.validate = fails(studio.Studio.validate)
sys.exit(train.main())
"""


@pytest.mark.soak
@pytest.mark.parametrize("where", ["step1", "step0", "encode1", "encode0", "folder0", "folder1", "save0", "draw1"])
def test_the_failure_of_one_is_the_failure_of_all(tmp_path, where):
    (tmp_path / "failing.py").write_text(FAILING)
    config = small(tmp_path / "run", train_batch_size=1, **PROMPTS)
    said = launch(config, program=[str(tmp_path / "failing.py"), where], status=1)
    ours = [line for line in said.splitlines() if "picture 7 is gone" in line]
    assert len(ours) == 1 and ours[0].endswith("error: picture 7 is gone: bring it back."), said[-3000:]
    assert 'File "' not in said.split("torch/distributed/elastic")[0].split("ChildFailedError")[0]
    if where.startswith("folder"):
        assert not (tmp_path / "run").exists()
        return
    run = Run.open(tmp_path / "run")
    assert run.status == "failed" and run.summary()["error"] == "picture 7 is gone: bring it back."
    if where.startswith("save"):
        assert [path.name for path in run.folder.glob("checkpoint-*")] == ["checkpoint-2"]


FULL = """
import os, sys, torch
from sdxl_nb import train
from sdxl_nb.training import step
loss = step.Step._loss
def full_after_four_steps(self, *at):
    if os.environ["RANK"] == "1" and self.step == 4:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return loss(self, *at)
step.Step._loss = full_after_four_steps
sys.exit(train.main())
"""


@pytest.mark.soak
def test_memory_that_ends_in_one_of_two_loses_no_work(tmp_path):
    """The step that one cannot take is taken by none, and what was before is saved."""
    (tmp_path / "full.py").write_text(FULL)
    changes = {"checkpointing_steps": 100, "use_ema": True, "ema_decay": 0.5, **FLAT}
    alone = train(small(tmp_path / "alone", train_batch_size=2, **changes))
    config = small(tmp_path / "run", train_batch_size=1, **changes)
    said = launch(config, program=[str(tmp_path / "full.py")], status=1)
    run = Run.open(tmp_path / "run")
    assert run.status == "failed" and run.losses()[0] == [1, 2, 3, 4]
    sentence = run.summary()["error"]
    assert "memory for one picture at a time: add --gradient_checkpointing" in sentence
    assert sentence.endswith("; checkpoint-4 is saved.") and said.count(sentence) == 1
    again = {"train_batch_size": 1, "gradient_accumulation_steps": 2, "resume_from_checkpoint": "latest"}
    train(small(tmp_path / "run", **again, **changes))
    assert run.losses()[0] == [1, 2, 3, 4, 5, 6] and largest_difference(run.folder, alone.folder) < 1e-5


class Other(Processes):
    """The first of two processes, beside one that fails or has nothing to add."""

    fails = False

    def __init__(self):
        super().__init__(2)

    def add_up(self, told, gradient):
        told[2] += float(self.fails)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adafactor"}, {"mixed_precision": "fp16"}])
def test_a_step_that_another_process_cannot_take_moves_nothing(tmp_path, changes):
    made, other = studio(small(tmp_path, use_ema=True, **changes)), Other()
    step = Trainer(made.config, made, None, None, other).updates

    def state():
        tensors = {"weights": step.flat.weights.data, "average": step.average.weights}
        tensors |= optimizer_state(step.optimizer)[0]
        return {name: value.clone() for name, value in tensors.items()}, step.scaler.state_dict()

    step.take(0)
    before, scale = state()
    assert scale.get("_growth_tracker", 1) == 1
    other.fails = True
    assert [step.take(1).read()[3], step.take(2).read()[3]] == [True, True]
    after, again = state()
    assert before.keys() == after.keys() and scale == again
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    other.fails = False
    step.take(1)
    assert not any(torch.equal(before[name], value) for name, value in state()[0].items())


def test_alone_everything_is_a_plain_pass():
    alone = Processes()
    weights = torch.ones(3)
    alone.add_up(weights)
    assert alone.first and alone.gather(7) == [7] and alone.from_first(lambda: 8) == 8 and weights.sum() == 3
    with pytest.raises(ZeroDivisionError), alone.sharing_failures(), alone.together():
        _ = 1 / 0
    assert issubclass(PeerError, SdxlNbError)


def test_accelerate_that_starts_one_process_on_cpus_is_noted(monkeypatch):
    assert Processes().remarks() == []
    for name, value in (("MASTER_PORT", "29500"), ("ACCELERATE_USE_CPU", "True")):
        monkeypatch.setenv(name, value)
    (note,) = Processes().remarks()
    assert "torchrun --nproc_per_node" in note
