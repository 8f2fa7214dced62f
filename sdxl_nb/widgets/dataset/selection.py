"""Which pictures of a data set are shown: all, those left out, or those that the audit complains of.

In: a data set, an AuditReport or None, and what is asked for. Out: what a DatasetBrowser pages through, and what it
says of it.
"""

from collections.abc import Sequence

from ...audit.findings import NOTE, AuditReport, Finding
from ...data.dataset import CaptionedPictures
from ...data.decoding import Fault

ALL, LEFT_OUT = "all pictures", "left out"
NAMED = 6  # files that a sentence names


def kinds(dataset: CaptionedPictures, report: AuditReport | None) -> list[str]:
    """What can be asked for."""
    found = {finding.kind for finding in report.findings if finding.files} if report else ()
    return [ALL, *([LEFT_OUT] if dataset.faults else []), *sorted(found)]


def selected(dataset: CaptionedPictures, report: AuditReport | None, show: str, search: str) -> Sequence[int | Fault]:
    """Indices of the pictures that were asked for and hold the text `search`; of those left out their Faults."""
    wanted = search.lower()
    if show == LEFT_OUT:
        return [fault for fault in dataset.faults if wanted in fault.name.lower()]
    if show == ALL and not search:
        return range(len(dataset))
    names = None if show == ALL else report.files(show) if report else set()
    faults = [fault for fault in dataset.faults if names and fault.name in names and wanted in fault.name.lower()]
    both = zip(dataset.names, dataset.written, strict=True)
    pictures = [
        index
        for index, (name, caption) in enumerate(both)
        if (names is None or name in names) and (wanted in name.lower() or wanted in (caption or "").lower())
    ]
    return [*faults, *pictures]


def findings(report: AuditReport | None, show: str) -> list[Finding]:
    """The findings of the kind that is shown."""
    return [finding for finding in report.findings if finding.kind == show] if report else []


def why(report: AuditReport | None, show: str) -> str:
    """What the audit says of the kind that is shown, and what to do about it."""
    return " ".join(f"{finding.message} {finding.advice}".strip() for finding in findings(report, show))


def remark(report: AuditReport | None, show: str, name: str) -> str:
    """What exactly is the matter with one picture."""
    return "; ".join(finding.remarks[name] for finding in findings(report, show) if name in finding.remarks)


def is_harmless(report: AuditReport | None, show: str) -> bool:
    """Whether the audit only notes the kind that is shown, and nothing need be done."""
    return all(finding.severity == NOTE for finding in findings(report, show))


def nothing(report: AuditReport | None, show: str, search: str) -> str:
    """What is said where no picture is shown: a finding may be about other files."""
    files = sorted(report.files(show)) if report and findings(report, show) and not search else []
    more = f" ... and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return ", ".join(files[:NAMED]) + more if files else "No picture is like that."
