"""What the monitor says of a run: how far it is, its numbers, its log.

In: a Run. Out: HTML. What a run or a person wrote (folders, errors, log) is escaped.
"""

import socket
from html import escape
from typing import Any

from ...runs.plots import gapped, smooth
from ...runs.run import GOING_ON, Run
from ...system.errors import in_python
from ...system.gpus import gpu_lines

SIGNS = {
    "starting": "◌ Starting",
    "running": "▶ Running",
    "completed": "✓ Completed",
    "stopped": "■ Stopped",
    "failed": "✗ Failed",
    "interrupted": "✗ Interrupted",
}
HIDDEN = "position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%)"  # but read out


def progress(run: Run, status: str) -> tuple[float, str]:
    """How much is done, from 0 to 1, and the same in words with the time that is left."""
    if status == "starting":
        return 0.0, run.preparing
    newest = _newest(run) if status == "running" else {}
    if _caches(newest):
        done, total = newest["done"], newest["total"]
        return done / total, f"encoding {newest.get('kind', 'pictures')}, {done:,} of {total:,}, before the first step"
    step, steps = run.step, run.steps
    if not steps:
        return 0.0, ""
    if newest.get("event") == "start":
        return step / steps, f"step {step:,} of {steps:,}, loading what encodes captions and pictures"
    left = run.seconds_left
    return step / steps, f"step {step:,} of {steps:,}" + (f", {duration(left)} left" if left else "")


def stopping(run: Run) -> str:
    """What becomes of a run that is asked to stop now."""
    if run.status == "starting":
        return "Stopping: it has not begun to train, so there is nothing new to keep."
    if not run.step or _caches(_newest(run)):
        return "Stopping before the first step; what is encoded is kept for the next run."
    return "Stopping after the current step; its state is kept."


def _newest(run: Run) -> dict[str, Any]:
    """The last event that says what the run is doing."""
    return next((e for e in reversed(list(run.events())) if e["event"] in ("start", "cache", "step", "end")), {})


def _caches(event: dict[str, Any]) -> bool:
    """Whether it says how far encoding is, and that it is not done."""
    return event.get("event") == "cache" and event.get("done", 0) < event.get("total", 0)


def duration(seconds: float) -> str:
    """Seconds in the two largest units: 1 h 5 min."""
    seconds = max(1, round(seconds))
    for unit, large, small, word in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            return f"{seconds // unit} {large} {seconds % unit // small} {word}"
    return f"{seconds} s"


def headline(status: str, said: str, error: str, folder: str) -> str:
    """Status, progress, where, and the error if there is one."""
    mark = f'<span class="sdxl-nb-status">{SIGNS.get(status, status)}{": " if said else ""}{escape(said)}</span>'
    wrong = f'<div class="sdxl-nb-error" role="alert">{escape(in_python(error))}</div>' if error else ""
    return f'<div>{mark}<div class="sdxl-nb-where">{escape(folder)}</div>{wrong}</div>'


def announcement(status: str) -> str:
    """The status alone, for a screen reader to say when it changes: the steps would be said once a second."""
    return f'<span role="status" style="{HIDDEN}">{escape(status.capitalize())}</span>'


def numbers(run: Run) -> str:
    """The newest loss, held-out loss, learning rate, pace and memory, as a table of one line."""
    events = list(run.events("step"))
    losses = smooth(gapped(e["train_loss"] for e in events[-100:]))
    heldout, pace = run.heldout()[1], run.seconds_per_step
    memory = next((e["memory"] for e in reversed(events[-1:]) if e.get("memory")), None)
    cells = {
        "loss, smoothed": f"{losses[-1]:.4f}" if len(losses) else "",
        "held-out loss": f"{heldout[-1]:.4f}" if heldout else "",
        "learning rate": _rate(events[-1]) if events else "",
        "seconds a step": f"{pace:.3g}" if pace else "",
        "memory": f"{memory / 1e9:.2f} GB" if memory else "",
    }
    known = {name: value for name, value in cells.items() if value}
    heads = "".join(f"<th>{name}</th>" for name in known)
    values = "".join(f"<td>{value}</td>" for value in known.values())
    return f'<table class="sdxl-nb-numbers"><tr>{heads}</tr><tr>{values}</tr></table>' if known else ""


def _rate(event: dict[str, Any]) -> str:
    """The learning rate of a step, or those of its groups."""
    several = [f"{name} {rate:.2e}" for name, rate in event.get("rates", {}).items()]
    return escape(", ".join(several)) or f"{event['lr']:.2e}"


def gpus(run: Run, status: str) -> str:
    """What the GPUs do that a run trains on; nothing when it is over, or trains on another machine."""
    if status not in GOING_ON or run.info.get("host") != socket.gethostname():
        return ""
    return "".join(f'<div class="sdxl-nb-hint">{escape(line)}</div>' for line in gpu_lines())
