"""What a run left, piece by piece, so that two runs can be held against each other bit for bit.

In: a home, a folder with the run in run/ and what it cached in cache/. Out: `Contents`, everything in it but the clock:
cached rows by their keys, losses, warnings and the card, tensors and headers of the LoRA files and of the last
checkpoint, its state and the configuration, pictures; and the first difference of two of them (`first_difference`).
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import deserialize

Contents = dict[tuple[str, str], str | bytes]  # by kind and name
KINDS = ("row", "loss", "text", "tensor", "header", "state", "picture")
CLOCKS = ("modelspec.date", "ss_training_finished_at")  # in a LoRA's header


def events(home: Path) -> list[dict[str, Any]]:
    """What the run has told so far, but for a line that a kill tore."""
    path = home / "run" / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def contents(home: Path) -> Contents:
    """All that must not change, what is earlier in a run first; what a resumed run did again replaces the first try."""
    run, found = home / "run", {}
    for path in sorted(home.glob("cache/**/*.safetensors")):
        found |= {("row", f"{path.parent.relative_to(home)} {key}"): row for key, row in rows(path)}
    for event in events(home):
        if event["event"] in ("step", "heldout", "debug"):
            told = {name: value for name, value in event.items() if name not in ("time", "seconds", "memory")}
            found["loss", f"{event['event']} {event['step']} {' '.join(event.get('losses', ''))}"] = json.dumps(told)
        if event["event"] == "warning":
            found["text", event["message"]] = "said"
    last = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in [*sorted(last.glob("*.safetensors")), *sorted(run.glob("*.safetensors"))]:
        raw, name = path.read_bytes(), path.relative_to(run)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).get("__metadata__", {})
        for key, about in deserialize(raw):
            found["tensor", f"{name} {key}"] = f"{about['dtype']} {about['shape']} ".encode() + bytes(about["data"])
        found |= {("header", f"{name} {key}"): value for key, value in header.items() if key not in CLOCKS}
    for path in (last / "state.json", run / "config.json"):
        found |= {("state", f"{path.name} {k}"): json.dumps(v) for k, v in json.loads(path.read_text()).items()}
    found["state", "fingerprint"] = json.loads((run / "run.json").read_text())["fingerprint"]
    found |= {("picture", str(path.relative_to(home))): path.read_bytes() for path in sorted(home.rglob("*.png"))}
    return found | {("text", "README.md"): (run / "README.md").read_text()}


def rows(path: Path) -> Iterator[tuple[str, bytes]]:
    """The rows of a file of the cache by their keys; the file's own name and the rows' order are chance."""
    columns = dict(sorted(deserialize(path.read_bytes())))
    count = columns["keys"]["shape"][0]
    size = {name: len(about["data"]) // count for name, about in columns.items()}
    for row in range(count):
        parts = {name: bytes(columns[name]["data"][row * many : (row + 1) * many]) for name, many in size.items()}
        yield parts.pop("keys").hex(), b"".join(parts.values())


def first_difference(then: Contents, now: Contents) -> str | None:
    """One line that names it, also what only one of them has; None when they are the same."""
    for kind, name in [*then, *(each for each in now if each not in then)]:
        one, other = then.get((kind, name)), now.get((kind, name))
        if one != other:
            return f"{kind} {name}: {_shown(one)} then, {_shown(other)} now"
    return None


def _shown(value: str | bytes | None) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes {sha256(value).hexdigest()[:8]}"
    return "nothing" if value is None else value if len(value) < 120 else f"{value[:117]}..."
