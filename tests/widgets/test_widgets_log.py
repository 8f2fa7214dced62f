"""The log that follows: what is new is sent once, all of it to who asks, another file from its beginning."""

import pytest
from test_overview import begun

from sdxl_nb.runs.run import Run
from sdxl_nb.widgets.monitor import log as logs
from sdxl_nb.widgets.monitor.log import Log


@pytest.fixture
def told(tmp_path):
    """A log, what it sends, and the file that it follows."""
    folder, events = begun(tmp_path / "run")
    log, sent = Log(), []
    log.send = lambda message: sent.append(message)
    yield log, sent, tmp_path / "run" / "log.txt", Run(tmp_path / "run")
    events.close()
    folder.release()


def write(path, text):
    with open(path, "ab") as file:
        file.write(text.encode())


def test_only_whole_lines_come_and_each_once(told):
    log, sent, path, run = told
    write(path, "one\ntwo <b>\nthr")
    first = log.follow(run)
    assert sent == [{"since": None, "version": first, "text": "one\ntwo <b>\n"}] and log.value == "one\ntwo <b>"
    assert log.follow(run) == first and len(sent) == 1
    write(path, "ee 🙂\n")
    second = log.follow(run)
    assert sent[1:] == [{"since": first, "version": second, "text": "three 🙂\n"}]
    log._asked({"whole": True})
    assert sent[2:] == [{"since": None, "version": second, "text": "one\ntwo <b>\nthree 🙂\n"}]
    path.unlink()
    write(path, "again\n")
    log.follow(run)
    assert sent[3]["since"] is None and sent[3]["text"] == log._text == "again\n"


def test_of_a_very_long_one_the_end_and_where_the_rest_is(told, monkeypatch):
    log, sent, path, run = told
    monkeypatch.setattr(logs, "MOST", 10)
    write(path, "".join(f"line {number}\n" for number in range(100)))
    log.follow(run)
    assert sent[0]["text"] == f"… the first 780 bytes are in {path}\nline 99\n"
    assert log.value.endswith("line 99") and len(log.value.splitlines()) == 2
    write(path, "line 100\n")
    log.follow(run)
    assert sent[1]["text"] == "line 100\n"


def test_before_a_run_has_begun_it_is_its_process_that_speaks(told, monkeypatch):
    log, sent, _, run = told
    monkeypatch.setattr(Run, "log_file", None)
    monkeypatch.setattr(Run, "log", lambda run, lines: "loading")
    log.follow(run)
    log.follow(run)
    assert [message["text"] for message in sent] == ["loading"] and log.value == "loading"
