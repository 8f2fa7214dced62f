"""What an audit found: findings, and the report that shows them in a notebook, in a terminal and to machines.

In: Findings, each of one kind, with the names it is about. Out: an AuditReport: `print(report)`, a table with
thumbnails in a notebook, `report.as_dicts()` as JSON, `report.files(kind)` as a filter.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.errors import SdxlNbError

if TYPE_CHECKING:
    from ..data.dataset import CaptionedPictures

ERROR, WARNING, NOTE = "error", "warning", "note"  # training would fail; would suffer; may be as it should
SEVERITIES = (ERROR, WARNING, NOTE)
COLOURS = {ERROR: "#d9363e", WARNING: "#b7791f", NOTE: "#4c8bbf"}  # readable on white and on black
EDGE = "border:1px solid rgba(127,127,127,.4);padding:4px 8px;vertical-align:top;text-align:left"
NAMES = 6  # names that a line of text shows
THUMBNAILS = 4  # pictures that a row of the table shows


@dataclass(frozen=True)
class Finding:
    """One kind of fault and the files that have it; `remarks` says of some files what exactly."""

    kind: str
    severity: str
    files: list[str]
    message: str
    advice: str
    remarks: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        listed = [f"{name} ({self.remarks[name]})" if name in self.remarks else name for name in self.files[:NAMES]]
        more = f" ... and {len(self.files) - NAMES} more" if len(self.files) > NAMES else ""
        return f"{self.severity:8}{self.kind}: {self.message} {', '.join(listed)}{more}".rstrip() + (
            f"\n        {self.advice}" if self.advice else ""
        )


class Part(str):
    """One of several captions of a picture: the text tells them apart, a Finding is about the `picture`."""

    picture: str
    which: str  # such as "caption 2 of 3"

    def __new__(cls, picture: str, number: int, count: int) -> "Part":
        which = f"caption {number} of {count}"
        part = super().__new__(cls, f"{picture}, {which}")
        part.picture, part.which = picture, which
        return part


def picture_of(name: str) -> str:
    """The picture that a name, or one of its captions, belongs to."""
    return name.picture if isinstance(name, Part) else name


def by_picture(remarks: Mapping[str, str]) -> dict[str, str]:
    """The same of pictures, where several captions have one each: `caption 2 of 3: what exactly`."""
    told: dict[str, list[str]] = {}
    for name, remark in remarks.items():
        which = name.which if isinstance(name, Part) else ""
        told.setdefault(picture_of(name), []).append(": ".join(part for part in (which, remark) if part))
    return {picture: "; ".join(filter(None, parts)) for picture, parts in told.items()}


def found(kind: str, severity: str, remarks: Mapping[str, str], message: str, advice: str) -> list[Finding]:
    """One Finding about the files in `remarks` (name -> what exactly, may be ""), or none when there are none.

    `{n}` in the message is the number of pictures in words: 1 picture, 3 pictures. A name may be a Part.
    """
    if not remarks:
        return []
    every = by_picture(remarks)
    told = {name: remark for name, remark in every.items() if remark}
    return [Finding(kind, severity, list(every), message.format(n=counted(len(every))), advice, told)]


def counted(number: int, thing: str = "picture") -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


@dataclass
class AuditReport:
    """Everything that was found in a data set. Displays itself in a notebook and prints in a terminal."""

    source: str
    count: int  # pictures that would be trained on
    findings: list[Finding]
    buckets: str = ""  # what data/buckets.py says of itself
    full: bool = True  # whether every pixel was looked at
    pictures: "CaptionedPictures | None" = None  # for thumbnails

    def __post_init__(self) -> None:
        self.findings = sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def fails(self) -> bool:
        """Whether training would fail on these data."""
        return any(finding.severity == ERROR for finding in self.findings)

    def files(self, kind: str | None = None) -> set[str]:
        """The names that findings of this kind are about; of any kind without one."""
        return {name for finding in self.findings if kind in (None, finding.kind) for name in finding.files}

    def kinds(self) -> list[str]:
        """The kinds that were found, worst first."""
        return list(dict.fromkeys(finding.kind for finding in self.findings))

    def as_dicts(self) -> list[dict[str, Any]]:
        """The findings as JSON has them."""
        return [asdict(finding) for finding in self.findings]

    def save(self, path: str | Path) -> None:
        """Write the findings as a JSON list. Raises SdxlNbError when the file cannot be written."""
        try:
            text = json.dumps(self.as_dicts(), indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
            Path(path).write_bytes(text + b"\n")
        except OSError as error:
            raise SdxlNbError(f"Cannot write {path} ({error.strerror}): choose another file with --json.") from error

    def summary(self) -> str:
        """One line: how many pictures, and what was found how often."""
        depth = "" if self.full else " (names, sizes and captions)"
        if not self.findings:
            return f"Data audit{depth}: {counted(self.count)}, nothing found."
        parts: Counter[str] = Counter()
        for finding in self.findings:
            parts[finding.kind] += len(finding.files)
        listed = ", ".join(kind.replace("_", " ") + (f" {many}" if many else "") for kind, many in parts.items())
        return f"Data audit{depth}: {counted(self.count)}; {listed}."

    def __str__(self) -> str:
        lines = [f"Audit of {self.source}: {counted(self.count)}", *([self.buckets] if self.buckets else [])]
        return "\n".join([*lines, *(map(str, self.findings) if self.findings else ["nothing found"])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = f"<p><b>Audit of {escape(self.source)}</b>: {counted(self.count)}. {escape(self.buckets)}</p>"
        if not self.findings:
            return f"<div>{head}<p>Nothing found.</p></div>"
        where = {name: i for i, name in enumerate(self.pictures.names)} if self.pictures is not None else {}
        titles = "".join(f'<th style="{EDGE}">{title}</th>' for title in ("severity", "what", "which", "what to do"))
        rows = "".join(self._row(finding, where) for finding in self.findings)
        return f'<div>{head}<table style="color:inherit;background:none"><tr>{titles}</tr>{rows}</table></div>'

    def _row(self, finding: Finding, where: Mapping[str, int]) -> str:
        sign = f'<b style="color:{COLOURS[finding.severity]}">{finding.severity}</b>'
        shown = "".join(self._thumbnail(where[name]) for name in finding.files[:THUMBNAILS] if name in where)
        cells = (sign, escape(f"{finding.message} [{finding.kind}]"), shown + _names(finding), escape(finding.advice))
        return "<tr>" + "".join(f'<td style="{EDGE}">{cell}</td>' for cell in cells) + "</tr>"

    def _thumbnail(self, index: int) -> str:
        """A small picture; nothing for one that cannot be read."""
        if self.pictures is None:
            return ""
        from ..data.contact_sheet import data_uri
        from ..data.decoding import PictureError

        try:
            picture = self.pictures[index].picture
        except PictureError:
            return ""
        return f'<img src="{data_uri(picture)}" alt="" style="height:64px;display:inline;margin:0 4px 4px 0">'


def _names(finding: Finding) -> str:
    """The names and remarks of a row, escaped, the rest as a number."""
    lines: Sequence[str] = [
        escape(name) + (f" <small>{escape(finding.remarks[name])}</small>" if name in finding.remarks else "")
        for name in finding.files[:NAMES]
    ]
    more = [f"... and {len(finding.files) - NAMES} more"] if len(finding.files) > NAMES else []
    return "<div>" + "<br>".join([*lines, *more]) + "</div>"
