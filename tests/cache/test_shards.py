"""Shards: rows under keys in safetensors files, complete or absent, shared, verified, small in memory."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdxl_nb.cache import shards
from sdxl_nb.cache.shards import KEY, Store
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.system.keys import key_of

pytestmark = pytest.mark.slow


def row(number):
    return {"mean": torch.full((4, 2, 3), float(number)), "half": torch.full((5,), number, dtype=torch.bfloat16)}


def keys(numbers):
    return np.array([key_of("row", number) for number in numbers], KEY)


def put(folder, numbers):
    store = Store(folder)
    with store.writer(note="a test") as writer:
        for number in numbers:
            writer.add(key_of("row", number), **row(number))
    return store


def values(store, numbers):
    places = store.find(keys(numbers))
    assert (places >= 0).all()
    return store.read(places, ["mean"])[0][:, 0, 0, 0].tolist()


def files(folder):
    return sorted(folder.glob("*.safetensors"))


def test_rows_come_back_bit_for_bit(tmp_path):
    put(tmp_path, range(10))
    store = Store(tmp_path)
    mean, half = store.read(store.find(keys([7, 2, 7])), ["mean", "half"])
    assert torch.equal(mean, torch.stack([row(n)["mean"] for n in (7, 2, 7)])) and mean.dtype == torch.float32
    assert torch.equal(half, torch.stack([row(n)["half"] for n in (7, 2, 7)])) and half.dtype == torch.bfloat16
    assert store.find(keys([3, 99])).tolist()[1] == -1 and Store(tmp_path / "none").find(keys([1])).tolist() == [-1]


def test_a_shard_is_a_safetensors_file_whose_data_start_at_64_bytes(tmp_path):
    put(tmp_path, range(3))
    (file,) = files(tmp_path)
    tensors = load_file(file)
    assert tensors["mean"].shape == (3, 4, 2, 3) and tensors["half"].dtype == torch.bfloat16
    assert (8 + int.from_bytes(file.read_bytes()[:8], "little")) % 64 == 0
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_full_shards_are_published_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", 4)
    store = Store(tmp_path)
    with store.writer() as writer:
        for number in range(10):
            writer.add(key_of("row", number), **row(number))
            assert len(files(tmp_path)) == (number + 1) // 4
    assert [shard.count for shard in store.shards] == [4, 4, 2]
    assert values(store, range(10)) == list(range(10)) == values(Store(tmp_path), range(10))


def test_shards_of_several_shapes(tmp_path):
    store = Store(tmp_path)
    for side in (2, 3):
        with store.writer() as writer:
            writer.add(key_of("row", side), mean=torch.ones(4, side, side))
    assert [store.read(store.find(keys([side])), ["mean"])[0].shape for side in (2, 3)] == [(1, 4, 2, 2), (1, 4, 3, 3)]


def test_one_column_of_many_rows_and_keys_sought_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", 3)
    monkeypatch.setattr(shards, "SOUGHT", 4)
    put(tmp_path, range(11))
    store, asked = Store(tmp_path), [7, 0, 10, 7, 40, 3, 2, 9, 41]
    places = store.find(keys(asked))
    assert (places < 0).tolist() == [number > 10 for number in asked]
    places = places[places >= 0]
    name = next(name for name in store.shards[0].columns if name != "keys")
    (expected,) = store.read(places, [name])
    found = store.column(places, name)
    assert found.tobytes() == expected.numpy().tobytes() and store.column(places[:0], name).size == 0


def test_what_others_wrote_is_seen_and_not_written_twice(tmp_path):
    ours, theirs = Store(tmp_path), put(tmp_path, range(3))
    with ours.writer() as writer:
        for number in range(3):
            writer.add(key_of("row", number), **row(number))
    assert len(files(tmp_path)) == 1 and values(ours, range(3)) == values(theirs, range(3))
    put(tmp_path, [2, 3])
    ours.refresh()
    assert values(ours, [3, 2]) == [3, 2] and ours.find(keys([2])) >> 32 == 0  # the first shard's row


def test_what_came_within_a_clocks_tick_is_seen_however_late_one_looks(tmp_path, monkeypatch):
    ours, about = Store(tmp_path), tmp_path.stat()
    put(tmp_path, range(3))
    os.utime(tmp_path, ns=(about.st_atime_ns, about.st_mtime_ns))
    monkeypatch.setattr(shards, "time", SimpleNamespace(time=lambda: time.time() + 10))
    ours.refresh()
    assert values(ours, range(3)) == [0, 1, 2]


@pytest.mark.parametrize("harm", ["cut", "header", "data", "empty"])
def test_a_damaged_shard_is_said_once_and_put_aside(tmp_path, harm):
    put(tmp_path, range(3))
    put(tmp_path, [3])
    first, _ = files(tmp_path)
    content = bytearray(first.read_bytes())
    if harm == "data":
        content[-70] ^= 1
    first.write_bytes({"cut": content[:-1], "header": b"\xff" * 100, "data": content, "empty": b""}[harm])
    said = []
    store = Store(tmp_path, say=said.append)
    assert len(said) == 1 and first.name in said[0] and said[0].endswith("what it held is computed again.")
    assert store.find(keys([0, 1, 2])).tolist() == [-1] * 3 and values(store, [3]) == [3] and not first.exists()
    put(tmp_path, range(3))
    store.refresh()
    assert values(store, range(4)) == [0, 1, 2, 3] and len(said) == 1


def test_a_shard_that_cannot_be_read_just_now_is_not_deleted(tmp_path, monkeypatch):
    put(tmp_path, range(3))
    (file,), said = files(tmp_path), []

    def fails(*arguments, **named):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(shards.mmap, "mmap", fails)
        assert Store(tmp_path, say=said.append).find(keys([1])).tolist() == [-1]
    assert said == [f"The cached shard {file} cannot be used (input/output error): what it held is computed again."]
    assert values(Store(tmp_path), range(3)) == [0, 1, 2]


def test_a_foreign_file_is_no_shard(tmp_path):
    save_file({"keys": torch.zeros(1, 16, dtype=torch.uint8)}, tmp_path / "foreign.safetensors", {"format": "pt"})
    said = []
    assert Store(tmp_path, say=said.append).shards == [] and len(said) == 1


def test_a_copy_without_its_time_is_verified_once(tmp_path, monkeypatch):
    put(tmp_path, range(3))
    (file,) = files(tmp_path)
    os.utime(file)
    looked, crc32 = [], shards.zlib.crc32
    monkeypatch.setattr(shards.zlib, "crc32", lambda *a: (looked.append(1), crc32(*a))[1])
    assert values(Store(tmp_path), range(3)) == values(Store(tmp_path), range(3)) == [0, 1, 2]
    assert len(looked) == 1


def interrupted(folder, number):
    store = Store(folder)
    with store.writer() as writer:
        writer.add(key_of("row", 0), **row(0))
        writer.publish()
        writer.add(key_of("row", 1), **row(1))
        if number == signal.SIGKILL:
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt


@pytest.mark.parametrize("number, kept", [(signal.SIGKILL, [0]), (signal.SIGINT, [0, 1])])
def test_what_is_published_outlives_a_kill_and_an_interrupt_publishes_the_rest(tmp_path, number, kept):
    process = multiprocessing.get_context("fork").Process(target=interrupted, args=(tmp_path, number))
    process.start()
    process.join(600)
    store = Store(tmp_path)
    assert np.flatnonzero(store.find(keys(range(2))) >= 0).tolist() == kept


def test_a_draft_that_a_kill_left_is_swept_later(tmp_path):
    for name, age in ((".old.safetensors.draft", 7200), (".new.safetensors.draft", 10)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert values(put(tmp_path, [1]), [1]) == [1]
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".new.safetensors.draft"]


def write_many(folder, numbers, begin):
    begin.wait()
    put(folder, numbers)


def test_processes_write_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(2)
    both = [context.Process(target=write_many, args=(tmp_path, range(n, n + 40), begin)) for n in (0, 20)]
    for process in both:
        process.start()
    for process in both:
        process.join(600)
    assert [process.exitcode for process in both] == [0, 0]
    assert values(Store(tmp_path), range(60)) == list(range(60))


FULL = """
import resource, sys
import torch
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.cache.shards import Store
from sdxl_nb.system.keys import key_of
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
store = Store(sys.argv[1], "choose another with --latents_cache_dir, or add --no_cache_latents")
with store.writer() as writer:
    for number in range(100):
        writer.add(key_of("row", number), mean=torch.full((4, 8, 8), float(number)))
        if number == 9:
            writer.publish()
"""


def test_a_full_disk_is_one_sentence_and_earlier_shards_stay(tmp_path):
    ran = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=1200)
    said = f"Cannot write 0.1 MB to the cache folder {tmp_path} (file too large): make room, choose another with "
    assert ran.stderr.splitlines()[-1].endswith(said + "--latents_cache_dir, or add --no_cache_latents.")
    assert ran.returncode == 1
    (file,) = tmp_path.iterdir()
    assert values(Store(tmp_path), range(10)) == list(range(10)) and file.name.endswith(".safetensors")


def test_a_disk_without_room_is_refused_before_work_is_done(tmp_path):
    with pytest.raises(SdxlNbError, match=r"has .* free and this cache needs 900000000.0 GB: make room, "):
        Store(tmp_path / "not" / "yet").refuse_to_fill(9 * 10**17)
    Store(tmp_path).refuse_to_fill(1000)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SdxlNbError, match=r"to the cache folder .*file/latents \(not a directory\): make room, choose"):
        put(tmp_path / "file" / "latents", [1])


FEW = """
import os, resource, sys
import numpy as np
from sdxl_nb.cache.shards import KEY, Store
from sdxl_nb.system.keys import key_of
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
said = []
store = Store(sys.argv[1], "choose another with --latents_cache_dir", said.append)
places = store.find(np.array([key_of("row", number) for number in range(200)], KEY))
for portion in (*np.random.default_rng(0).permutation(200).reshape(100, 2), np.arange(200)):
    mean, half = store.read(places[portion], ["mean", "half"])
    assert mean[:, 0, 0, 0].tolist() == half[:, 0].tolist() == portion.tolist()
assert len(os.listdir("/dev/fd")) < 40 and not said, said
store.read(places[:1], ["mean"])
for limit in (4, 3):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4))
    for fails in (lambda: store.read(places, ["mean"]), lambda: Store(sys.argv[1], "add --no_cache", said.append)):
        try:
            fails()
        except Exception as error:
            print(type(error).__name__, error)
assert not said
"""


def test_more_shards_than_files_that_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", 1)
    monkeypatch.setattr(shards.os, "fsync", lambda descriptor: None)
    put(tmp_path, range(200))
    ran = subprocess.run([sys.executable, "-c", FEW, tmp_path], capture_output=True, text=True, timeout=1200)
    said = f"SdxlNbError Cannot read the cache folder {tmp_path} (too many open files): allow more open files"
    advice = ["choose another with --latents_cache_dir", "add --no_cache"] * 2
    assert ran.stdout.splitlines() == [f"{said} (ulimit -n), or {other}." for other in advice]
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("harm, why", [("gone", "no such file or directory"), ("cut", "file too short")])
def test_a_folder_that_loses_files_while_it_is_used_is_one_sentence(tmp_path, harm, why):
    put(tmp_path, range(3))
    store = Store(tmp_path)
    (file,) = files(tmp_path)
    file.unlink() if harm == "gone" else os.truncate(file, 100)
    with pytest.raises(SdxlNbError) as caught:
        values(store, [1])
    said = f"Cannot read the cache folder {tmp_path} ({why}): it lost files while it was used, start again"
    assert str(caught.value) == f"{said}, or choose another folder."


MEASURE = r"""
import re, sys
import numpy as np
import torch
from sdxl_nb.cache.shards import KEY, Store
from sdxl_nb.system.keys import key_of
folder, count = sys.argv[1], int(sys.argv[2])
store = Store(folder)
with store.writer() as writer:
    for n in range(count):
        mean = torch.full((4, 8, 8), float(n))
        writer.add(key_of(n), mean=mean, std=mean, time_ids=torch.zeros(6))
del store
keys = np.fromiter((key_of(n) for n in range(count)), KEY, count)
store = Store(folder)
places = store.find(keys)
for n in np.random.default_rng(0).permutation(count)[: 40_000].tolist():
    assert store.read(places[[n]], ("mean", "std", "time_ids"))[0][0, 0, 0, 0] == n
print(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""


def peak(folder, count):
    command = [sys.executable, "-c", MEASURE, folder, str(count)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout)


@pytest.mark.parametrize("count", [pytest.param(count, marks=pytest.mark.soak) for count in (10_000, 100_000)])
def test_memory_is_flat_in_the_number_of_rows(tmp_path, count):
    assert peak(tmp_path / "many", count) < 1.1 * peak(tmp_path / "few", 1_000)
