"""What was looked at, one line each: fine, wrong or unknown, and what to do about it.

In: checks. Out: a Report, which prints as text and shows as a table in a notebook.
"""

import html
from dataclasses import dataclass, field

MARKS = {True: "ok", False: "NO", None: "?"}
COLOURS = {True: "#15803d", False: "#b91c1c", None: "#a16207"}


@dataclass(frozen=True)
class Check:
    """One thing: `ok` is None where it could not be told."""

    name: str
    ok: bool | None
    says: str


@dataclass
class Report:
    """All checks; true when none failed."""

    checks: list[Check] = field(default_factory=list)

    def __bool__(self) -> bool:
        return all(check.ok is not False for check in self.checks)

    def __str__(self) -> str:
        width = max((len(check.name) for check in self.checks), default=0)
        return "\n".join(f"{MARKS[check.ok]:3}{check.name:{width}}  {check.says}" for check in self.checks)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = (
            f'<tr><td style="color:{COLOURS[check.ok]}"><b>{MARKS[check.ok]}</b></td>'
            f"<th style='text-align:left'>{html.escape(check.name)}</th>"
            f"<td style='text-align:left'>{html.escape(check.says)}</td></tr>"
            for check in self.checks
        )
        return f"<table>{''.join(rows)}</table>"
