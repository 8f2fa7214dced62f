"""Which pictures of a data set are shown: all, those left out, or those that the audit complains of.

In: a data set, an AuditReport or None, and what is asked for. Out: what a DatasetBrowser pages through, and what it
says of it.
"""

from collections.abc import Iterable, Sequence

from ...audit.findings import NOTE, AuditReport, Finding
from ...data.dataset import CaptionedPictures
from ...data.decoding import Fault, no_caption
from ...data.sources.listing import Texts

ALL, LEFT_OUT, NO_CAPTION = "all pictures", "left out", "without a caption"
NONE = "No picture is like that."
NAMED = 6  # files that a sentence names


def everything(dataset: CaptionedPictures) -> Sequence[int | Fault]:
    """All pictures in the order of their source: indices, and the Faults of those that only lack a caption."""
    missing = uncaptioned(dataset)
    if not missing:
        return range(len(dataset))
    places = {name: place for place, name in enumerate(Texts[str](dataset.listing.names))}
    both: list[tuple[int, int | Fault]] = [(places[name], index) for index, name in enumerate(dataset.names)]
    return [item for _, item in sorted([*both, *((places[f.name], f) for f in missing)], key=lambda pair: pair[0])]


def uncaptioned(dataset: CaptionedPictures) -> list[Fault]:
    """The pictures that are left out for nothing but the lack of a caption."""
    return [fault for fault in dataset.faults if is_uncaptioned(fault)]


def is_uncaptioned(fault: Fault) -> bool:
    """Whether this picture is left out for nothing but the lack of a caption."""
    return fault == no_caption(fault.name)


def captioned(dataset: CaptionedPictures) -> tuple[int, int]:
    """How many pictures have a caption of their own, and how many there are to be captioned."""
    return sum(1 for caption in dataset.written if caption), len(everything(dataset))


def kinds(dataset: CaptionedPictures, report: AuditReport | None) -> list[tuple[str, str]]:
    """What can be asked for: words with a count, and the word that `show` has for it."""
    missing, (done, every) = uncaptioned(dataset), captioned(dataset)
    out = len(dataset.faults) - len(missing)
    found: dict[str, int] = {}
    for finding in report.findings if report else ():
        if finding.files:
            found[finding.kind] = len(report.files(finding.kind)) if report else 0
    listed = [(ALL, every), (NO_CAPTION, every - done), (LEFT_OUT, out), *sorted(found.items())]
    return [(f"{kind.replace('_', ' ')} ({many:,})", kind) for kind, many in listed if many or kind == ALL]


def selected(dataset: CaptionedPictures, report: AuditReport | None, show: str, search: str) -> Sequence[int | Fault]:
    """Indices of the pictures that were asked for and hold the text `search`; of those left out their Faults."""
    items = everything(dataset)
    if show == ALL and not search:
        return items
    wanted = search.lower()
    if show == LEFT_OUT:
        lacking = set(uncaptioned(dataset))
        return [fault for fault in dataset.faults if fault not in lacking and wanted in fault.name.lower()]
    names = report.files(show) if report and show not in (ALL, NO_CAPTION) else set()
    others = {item for item in items if not isinstance(item, int)}
    faults = [fault for fault in dataset.faults if fault.name in names and fault not in others]

    def asked(item: int | Fault) -> bool:
        name, caption = words_of(dataset, item)
        if (show == NO_CAPTION and caption) or (show not in (ALL, NO_CAPTION) and name not in names):
            return False
        return wanted in name.lower() or wanted in caption.lower()

    return [*(fault for fault in faults if wanted in fault.name.lower()), *filter(asked, items)]


def words_of(dataset: CaptionedPictures, item: int | Fault) -> tuple[str, str]:
    """The name of what is shown, and its caption as it is written."""
    return (dataset.names[item], dataset.written[item] or "") if isinstance(item, int) else (item.name, "")


def again(dataset: CaptionedPictures, names: Iterable[str]) -> list[int | Fault]:
    """What these names mean now, in this order; what is gone is gone."""
    known: dict[str, int | Fault] = {fault.name: fault for fault in dataset.faults}
    known |= {name: index for index, name in enumerate(dataset.names)}
    return [known[name] for name in names if name in known]


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
    return ", ".join(files[:NAMED]) + more if files else NONE
