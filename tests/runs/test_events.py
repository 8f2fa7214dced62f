"""events.jsonl, log.txt and run.json: what is written, and what is read back after kills and resumes."""

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdxl_nb.runs.events import EventLog, EventReader, identity, noted, read_events, update


def steps(events):
    return [e["step"] for e in events if e["event"] == "step"]


def test_every_line_is_json_with_event_time_and_step(tmp_path):
    heard = []
    log = EventLog(tmp_path, [heard.append], quiet=True)
    log.emit("start", steps=2)
    log.step = 1
    log.emit("step", train_loss=float("nan"), lr=1e-4, more=[float("inf"), {"x": 1.5}], name="ré\n<b>")
    log.warn("careful")
    log.end(status="completed", error=None)
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text("utf-8").splitlines()]
    assert [(e["event"], e["step"]) for e in lines] == [("start", 0), ("step", 1), ("warning", 1), ("end", 1)]
    assert all(isinstance(e["time"], float) for e in lines)
    assert lines[1]["train_loss"] is None and lines[1]["more"] == [None, {"x": 1.5}] and lines[1]["name"] == "ré\n<b>"
    assert [e["event"] for e in heard] == ["start", "step", "warning", "end"]
    assert (tmp_path / "log.txt").read_text() == "Note: careful\n"
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "completed"}


def test_other_processes_write_and_say_nothing(tmp_path, capsys):
    heard = []
    log = EventLog(tmp_path, [heard.append], writes=False)
    log.emit("start")
    log.warn("hello")
    log.record(status="running")
    log.end(status="completed")
    assert list(tmp_path.iterdir()) == [] and heard == [] and capsys.readouterr().out == ""


def test_lines_are_said_and_kept(tmp_path, capsys):
    log = EventLog(tmp_path)
    log.say("7 pictures")
    assert capsys.readouterr().out == "7 pictures\n" and (tmp_path / "log.txt").read_text() == "7 pictures\n"
    log.close()


def test_a_listener_that_fails_leaves_the_end_written(tmp_path):
    def fails(event):
        raise RuntimeError("mine")

    log = EventLog(tmp_path, [fails], quiet=True)
    with pytest.raises(RuntimeError, match="mine"):
        log.end(status="failed", error="x")
    assert [e["event"] for e in read_events(tmp_path / "events.jsonl")] == ["end"]
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"


def written(folder, *events):
    log = EventLog(folder, quiet=True)
    for kind, step, fields in events:
        log.step = step
        log.emit(kind, **fields)
    log.close()


def test_a_resumed_run_replaces_what_it_does_again(tmp_path):
    start = ("start", 0, {"resumed_from": None})
    first = [("step", n, {"train_loss": n}) for n in (1, 2, 3)]
    written(tmp_path, start, *first, ("end", 3, {"status": "stopped"}))
    again = [("step", n, {"train_loss": 10 * n}) for n in (3, 4)]
    written(tmp_path, ("start", 2, {"resumed_from": 2}), *again, ("end", 4, {"status": "completed"}))
    events = list(read_events(tmp_path / "events.jsonl"))
    assert steps(events) == [1, 2, 3, 4] and [e["train_loss"] for e in events if e["event"] == "step"] == [1, 2, 30, 40]
    assert [e["status"] for e in events if e["event"] == "end"] == ["completed"]
    assert [e["resumed_from"] for e in events if e["event"] == "start"] == [None, 2]


@pytest.mark.parametrize("cut", [1, 9, 25])
def test_a_torn_line_is_left_out_and_does_not_swallow_the_next(tmp_path, cut):
    path = tmp_path / "events.jsonl"
    written(tmp_path, ("step", 1, {}), ("step", 2, {}))
    path.write_bytes(path.read_bytes()[:-cut])
    assert steps(read_events(path)) == [1]
    written(tmp_path, ("start", 1, {"resumed_from": 1}), ("step", 2, {}))
    assert steps(read_events(path)) == [1, 2]


def test_no_file_no_events(tmp_path):
    assert list(read_events(tmp_path / "events.jsonl")) == []


def test_run_json_is_replaced_whole(tmp_path):
    update(tmp_path / "run.json", **identity(), status="running")
    update(tmp_path / "run.json", status="completed")
    stored = json.loads((tmp_path / "run.json").read_text())
    assert stored["status"] == "completed" and set(stored) == {"pid", "host", "started", "status"}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_names_that_are_no_text_are_said_and_read_back(tmp_path, monkeypatch):
    name, screen = b"caf\xe9.png".decode("utf-8", "surrogateescape"), io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    log = EventLog(tmp_path)
    log.warn(f"{name} or \u00e9")
    log.close()
    screen.flush()
    assert screen.buffer.getvalue() == b"Note: caf\\udce9.png or \\xe9\n"
    assert (tmp_path / "log.txt").read_text("utf-8") == "Note: caf\\udce9.png or \u00e9\n"
    assert [e["message"] for e in read_events(tmp_path / "events.jsonl")] == [f"{name} or \u00e9"]


def test_a_line_torn_within_a_letter(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes('{"event": "step", "step": 1}\n{"event": "\u00e9'.encode()[:-1])
    written(tmp_path, ("step", 2, {}))
    assert steps(read_events(path)) == [1, 2]


def line(event, step, **fields):
    return json.dumps({"event": event, "time": 1000.5 + step, "step": step, **fields}) + "\n"


def test_a_reader_reads_on_and_only_what_is_new(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader() == []
    path.write_text(line("start", 0, steps=9) + line("step", 1) + line("step", 2)[:20])
    assert steps(reader()) == [1]
    before = reader()
    with open(path, "a") as file:
        file.write(line("step", 2)[20:] + "torn\n" + line("step", 3) + line("end", 3))
    assert steps(reader()) == [1, 2, 3] and steps(before) == [1]
    assert reader()[1] is before[1]  # not parsed again
    with open(path, "a") as file:
        file.write(line("start", 2, resumed_from=2) + line("step", 3, again=True))
    assert [(e["event"], e["step"]) for e in reader()] == [
        ("start", 0),
        ("step", 1),
        ("step", 2),
        ("start", 2),
        ("step", 3),
    ]
    assert list(read_events(path)) == reader() and reader()[-1]["again"]


@pytest.mark.parametrize("other", [line("start", 5, steps=3), line("start", 5, steps=3) + line("step", 6) * 50])
def test_a_reader_starts_anew_with_another_file(tmp_path, other):
    path = tmp_path / "events.jsonl"
    path.write_text(line("start", 0, steps=9) + line("step", 1) * 5)
    reader = EventReader(path)
    assert len(reader()) == 6
    path.write_text(other)
    assert reader() == list(read_events(path)) and reader()[0]["steps"] == 3
    path.unlink()
    assert reader() == []


def test_threads_that_note_at_the_same_time_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: update(tmp_path / "run.json", **{str(number): number}), range(200)))
    assert noted(tmp_path / "run.json") == {str(number): number for number in range(200)}
