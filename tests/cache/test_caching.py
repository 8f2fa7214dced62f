"""Runs with the cache on disk: what is known is not computed again, whatever happened to the run that computed it."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from small_runs import assert_same, at_call, home, in_a_process, kill_me, small, train, whole
from test_processes import launch

from sdxl_nb.cache import latents, shards
from sdxl_nb.cache.embeddings import TextEncoders
from sdxl_nb.data import file_facts
from sdxl_nb.data.dataset import CaptionedPictures
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.training import encoding
from sdxl_nb.training import setup as studios

pytestmark = pytest.mark.slow

DRAWN = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}


@pytest.fixture
def work(monkeypatch):
    """What a run does: the parts it loads, pictures it reads, files it hashes, pictures and captions it encodes."""
    counted = Counter()

    def count(owner, name, label):
        function = getattr(owner, name)

        def counting(*arguments, **named):
            counted[label(*arguments)] += 1
            return function(*arguments, **named)

        monkeypatch.setattr(owner, name, counting)

    count(studios, "load", lambda source, part, *dtype: part)
    count(studios, "load_text_encoder", lambda source, part, *how: part)
    for name in ("load_vae", "load_vae_encoder"):
        count(studios, name, lambda source, dtype: "vae")
    count(CaptionedPictures, "picture_bytes", lambda pictures, index: "read")
    count(file_facts, "_sha256", lambda path: "hashed")
    count(latents.CachedLatents, "_cut", lambda latents, rows: "encoded")
    monkeypatch.setattr(TextEncoders, "cut", noting(counted, TextEncoders.cut))
    return counted


def noting(counted, cut):
    def counting(encoders, captions):
        counted["embedded"] += len(captions)
        return cut(encoders, captions)

    return counting


@pytest.fixture
def place(tmp_path):
    """Copies of base and pictures that a test may change."""
    shutil.copytree(home()[0] / "base", tmp_path / "base")
    shutil.copytree(home()[0] / "pictures", tmp_path / "pictures")
    return tmp_path


def done(work, config):
    """What this run did, the parts that every run loads left out."""
    work.clear()
    train(config)
    return {name: many for name, many in work.items() if name != "scheduler"}


COLD = {"tokenizer": 1, "tokenizer_2": 1, "text_encoder": 1, "text_encoder_2": 1, "vae": 1}


def test_a_second_run_loads_and_reads_nothing(tmp_path, work):
    first = done(work, small(tmp_path / "first"))
    assert first.pop("hashed") >= 8  # two text encoders, the VAE, two tokenizers, and their configurations
    assert first == COLD | {"read": 14, "encoded": 7, "embedded": 8}  # looked at, then encoded
    assert done(work, small(tmp_path / "second")) == {}
    assert_same(tmp_path / "first", tmp_path / "second")
    assert done(work, small(tmp_path / "drawn", **DRAWN)) == {**COLD, "embedded": 1}  # a new prompt, and pictures
    assert done(work, small(tmp_path / "again", **DRAWN)) == {"vae": 1}
    assert_same(tmp_path / "first", tmp_path / "again")
    live = done(work, small(tmp_path / "live", cache_latents=False, cache_text_embeddings=False))
    assert live == COLD | {"read": 11}  # six steps of two, but for the last of the first epoch


def test_what_changed_is_computed_anew_and_nothing_else(place, work):
    runs = iter(range(100))

    def run(**changes):
        names = {"pretrained_model_name_or_path": str(place / "base"), "train_data_dir": str(place / "pictures")}
        return done(work, small(place / f"run {next(runs)}", **names | {"max_train_steps": 1} | changes))

    run()
    Image.new("RGB", (40, 40), "red").save(place / "pictures" / "3.png")
    assert run() == {"vae": 1, "read": 2, "encoded": 1}
    (place / "pictures" / "3.txt").write_text("a red card")
    texts = {name: many for name, many in COLD.items() if name != "vae"}
    assert run() == texts | {"embedded": 1}
    assert run(resolution=40) == {"vae": 1, "read": 7, "encoded": 7}
    assert run(mixed_precision="bf16") == COLD | {"read": 7, "encoded": 7, "embedded": 8}
    shutil.copytree(place / "base", place / "copy")
    assert run(pretrained_model_name_or_path=str(place / "copy")).keys() == {"hashed"}
    weights = place / "base" / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights)
    assert run() == {"vae": 1, "read": 7, "encoded": 7, "hashed": 1}
    weights = place / "base" / "text_encoder" / "model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert run() == texts | {"embedded": 8, "hashed": 1}
    assert run() == {}


def killed_at_shard(config, count, rows=2):
    """Before the count-th shard gets its name."""
    shards.ROWS = rows
    shards.os.rename = at_call(count, kill_me, os.rename)
    train(config)


def killed_in_shard(config, count):
    """With half of the count-th shard written."""
    shards.ROWS = 2
    write_all, calls = shards._write_all, iter(range(1, 1000))

    def writing(file, parts):
        if next(calls) < count:
            return write_all(file, parts)
        content = b"".join(map(bytes, parts))
        file.write(content[: len(content) // 2])
        file.flush()
        kill_me()

    shards._write_all = writing
    train(config)


@pytest.mark.parametrize(
    "moment, count, pictures, captions",
    [(killed_at_shard, 3, 7, 4), (killed_at_shard, 6, 5, 0), (killed_in_shard, 7, 3, 0)],
)
def test_killed_while_caching_it_goes_on_where_it_was(tmp_path, work, monkeypatch, moment, count, pictures, captions):
    """Of four shards with the captions, and four with the pictures."""
    assert in_a_process(moment, small(tmp_path / "run"), count) == -9
    assert Run.open(tmp_path / "run").status == "interrupted"
    redone = done(work, small(tmp_path / "run", resume_from_checkpoint="latest"))
    assert (redone["encoded"], redone.get("embedded", 0)) == (pictures, captions)
    monkeypatch.setenv("SDXL_NB_CACHE", str(tmp_path / "fresh"))
    assert_same(tmp_path / "run", whole().folder)


def interrupted(config, number):
    from sdxl_nb.train import main

    latents.encode = at_call(2, lambda: os.kill(os.getpid(), number), latents.encode)
    latents.at_once = lambda resolution, device: 2
    sys.exit(main(config.to_flags()))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)])
def test_a_signal_while_caching_interrupts_and_keeps_what_was_done(tmp_path, work, number):
    assert in_a_process(interrupted, small(tmp_path), number) == 130
    assert Run.open(tmp_path).status == "stopped"
    assert done(work, small(tmp_path, resume_from_checkpoint="latest"))["encoded"] == 5


def asked_at(monkeypatch, owner, name, call, folder):
    """Someone puts a stop file into the run folder before this call of a function."""
    monkeypatch.setattr(owner, name, at_call(call, (folder / "stop").touch, getattr(owner, name)))


@pytest.mark.parametrize(
    ("owner", "name", "call", "pictures", "captions"),
    [
        (latents, "encode", 2, 3, 0),
        pytest.param(TextEncoders, "encode", 1, 7, 1, marks=pytest.mark.soak),
        pytest.param(latents, "encode", 4, 0, 0, marks=pytest.mark.soak),
    ],
)
def test_a_stop_file_while_caching_ends_the_run_and_keeps_what_was_done(
    tmp_path, work, monkeypatch, owner, name, call, pictures, captions
):
    monkeypatch.setattr(latents, "at_once", lambda resolution, device: 2)
    folder = tmp_path / "run"
    asked_at(monkeypatch, owner, name, call, folder)
    run = train(small(folder, validation_split=0.2, **DRAWN))
    assert run.status == "stopped" and run.error is None and run.step == 0 and run.losses() == ([], [])
    assert [e["event"] for e in run.events() if e["event"] in ("heldout", "validation", "checkpoint", "lora")] == []
    said = "Stopped before step 1 of 6: what is encoded is kept for the next run."
    assert run.log(1) == said == next(run.events("end"))["reason"]
    assert not (folder / "stop").exists()
    redone = done(work, small(folder, resume_from_checkpoint="latest", validation_split=0.2, **DRAWN))
    assert (redone.get("encoded", 0), redone.get("embedded", 0)) == (pictures, captions)
    monkeypatch.setenv("SDXL_NB_CACHE", str(tmp_path / "fresh"))
    assert_same(folder, train(small(tmp_path / "whole", validation_split=0.2, **DRAWN)).folder)


STOPPING = """
import os, sys
from pathlib import Path
from sdxl_nb import train
from sdxl_nb.cache import latents
from sdxl_nb.training import signals
encode = latents.encode
def encode_and_ask(*arguments):
    if os.environ["RANK"] == "0":
        Path(__file__).with_name("run").joinpath("stop").touch()
    return encode(*arguments)
latents.encode, latents.at_once = encode_and_ask, lambda resolution, device: 1
if os.environ["RANK"] == "1":
    signals.StopRequest.asked = lambda stop: False
sys.exit(train.main())
"""


@pytest.mark.soak
def test_of_two_processes_one_is_asked_to_stop_while_caching_and_both_do(tmp_path, work):
    (tmp_path / "stopping.py").write_text(STOPPING)
    launch(small(tmp_path / "run", train_batch_size=1), program=[str(tmp_path / "stopping.py")])
    run = Run.open(tmp_path / "run")
    assert run.status == "stopped" and run.error is None and run.step == 0
    redone = done(work, small(tmp_path / "run", resume_from_checkpoint="latest"))
    assert redone["encoded"] == 3 and "embedded" not in redone  # one picture of the first, all three of the second


def wait_and_train(config, begin):
    begin.wait()
    train(config)


def test_two_runs_cache_the_same_pictures_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(2)
    configs = [small(tmp_path / name) for name in "ab"]
    both = [context.Process(target=wait_and_train, args=(config, begin)) for config in configs]
    for process in both:
        process.start()
    for process in both:
        process.join(600)
    assert [process.exitcode for process in both] == [0, 0]
    assert_same(tmp_path / "a", tmp_path / "b")


def on_a_small_disk(config):
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))
    try:
        train(config)
    except SdxlNbError as error:
        Path(config.output_dir, "said").write_text(str(error))
        os._exit(7)


def test_a_full_disk_while_caching_is_one_sentence(tmp_path, work):
    config = small(tmp_path / "run", latents_cache_dir=str(tmp_path / "cache"))
    assert in_a_process(on_a_small_disk, config) == 7
    said = (tmp_path / "run" / "said").read_text()
    assert said.startswith(f"Cannot write 0.0 MB to the cache folder {tmp_path / 'cache' / 'prompts'}")
    assert said.endswith(
        "(file too large): make room, choose another with --latents_cache_dir, or add --no_cache_text_embeddings."
    )
    assert Run.open(tmp_path / "run").summary()["error"] == said
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    again = small(tmp_path / "run", resume_from_checkpoint="latest", latents_cache_dir=str(tmp_path / "cache"))
    assert done(work, again)["encoded"] == 7


def test_a_cache_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    refused = {"latents_cache_dir": str(tmp_path / "file" / "cache"), "cache_text_embeddings": False}
    with pytest.raises(SdxlNbError, match=r"cache folder .*file/cache/latents.*directory\): make room, .*_latents\.$"):
        train(small(tmp_path / "run", **refused))
    run = train(small(tmp_path / "live", **refused, cache_latents=False))
    assert run.status == "completed"


def test_a_damaged_shard_is_said_and_computed_again(tmp_path, work):
    train(small(tmp_path / "first", latents_cache_dir=str(tmp_path / "cache")))
    (shard,) = (tmp_path / "cache" / "latents").rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-100])
    assert done(work, small(tmp_path / "second", latents_cache_dir=str(tmp_path / "cache")))["encoded"] == 7
    (said,) = (e["message"] for e in Run.open(tmp_path / "second").events("warning"))
    assert said.startswith(f"The cached shard {shard} cannot be used") and said.endswith("is computed again.")
    assert_same(tmp_path / "first", tmp_path / "second")


def test_events_say_how_far_caching_is(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "EVENT_EVERY", -1)
    monkeypatch.setattr(latents, "at_once", lambda resolution, device: 4)
    run = train(small(tmp_path))
    events = [{k: v for k, v in e.items() if k not in ("event", "time", "step")} for e in run.events("cache")]
    assert events == [
        {"kind": "captions", "done": 8, "total": 8},
        {"kind": "pictures", "done": 4, "total": 7},
        {"kind": "pictures", "done": 7, "total": 7},
        {"pictures": 7, "captions": 8},
    ]


def test_long_captions_are_said_without_tokenizing_them_again(place, work):
    (place / "pictures" / "2.txt").write_text("a very long caption about a card that is red")
    config = small(place / "run", train_data_dir=str(place / "pictures"), max_train_steps=1)
    train(config)
    again = done(work, config.replace(output_dir=str(place / "again")))
    assert again == {"tokenizer": 1, "tokenizer_2": 1}  # to name what is lost
    for folder in ("run", "again"):
        (said,) = (e["message"] for e in Run.open(place / folder).events("warning"))
        assert said.startswith("1 of 7 captions are longer than 16 tokens and are cut; 2.png loses ")


@pytest.mark.parametrize("many", [pytest.param(many, marks=pytest.mark.soak) for many in (5_000, 50_000)])
def test_many_small_pictures_killed_half_way_are_not_encoded_twice(tmp_path, work, many):
    (tmp_path / "pictures").mkdir()
    rows = [json.dumps({"file_name": f"{number}.bmp", "text": f"card {number % 50}"}) for number in range(many)]
    (tmp_path / "pictures" / "metadata.jsonl").write_text("\n".join(rows))
    for number in range(many):
        colour = (number % 256, number // 256, 80)
        Image.new("RGB", (16, 16), colour).save(tmp_path / "pictures" / f"{number}.bmp")
    source = {"train_data_dir": str(tmp_path / "pictures"), "max_train_steps": 1, "train_batch_size": 1}
    half = many // 256 // 2
    arguments = small(tmp_path / "run", **source), 2 + half, 256
    process = multiprocessing.get_context("fork").Process(target=killed_at_shard, args=arguments)
    process.start()
    process.join(1500)
    assert process.exitcode == -9
    begun = done(work, small(tmp_path / "run", resume_from_checkpoint="latest", **source))
    assert begun == {"vae": 1, "read": many - half * 256, "encoded": many - half * 256}
    assert done(work, small(tmp_path / "again", **source)) == {}
    assert len(list(latents.cache_folder(small(tmp_path)).rglob("latents/*/*.safetensors"))) < many // 200
