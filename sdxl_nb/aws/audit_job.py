"""The audit in the container of a processing job: `IMAGE audit NAME VALUE NAME VALUE ...`.

In: the settings of the training that is to follow, as hyperparameters have them. Out: /opt/ml/processing/output/
audit.json, exit 0; or exit 1 with the reason in /opt/ml/output/message, of which SageMaker shows the first 1,024
characters as the job's exit message.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..system.errors import SdxlNbError

if TYPE_CHECKING:
    from ..audit.findings import AuditReport

MOST_BYTES = 1024  # of a message, by the service


def main(root: Path, words: Sequence[str]) -> int:
    """Audit what the settings in `words` train on; `root` is /opt/ml."""
    try:
        reason = audit(root, paired(words))
    except SdxlNbError as error:
        reason = f"The pictures could not be looked at: {error}"
    if reason is None:
        return 0
    print(f"error: {reason}", file=sys.stderr, flush=True)
    place = root / "output" / "message"
    with contextlib.suppress(OSError):  # the log has it too
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(reason.encode("utf-8", "backslashreplace")[:MOST_BYTES])
    return 1


def audit(root: Path, settings: dict[str, str]) -> str | None:
    """Print and save what was found; why training would fail, None where it would not. Raises SdxlNbError."""
    from ..audit.inspection import audit_dataset
    from ..config.train_config import TrainConfig

    given = {name: text for name, text in settings.items() if text != ""}
    report = audit_dataset(TrainConfig.from_hyperparameters(given))
    print(str(report).encode(errors="backslashreplace").decode(), flush=True)
    place = root / "processing" / "output"
    place.mkdir(parents=True, exist_ok=True)
    report.save(place / "audit.json")
    return refusal(report) if report.fails else None


def refusal(report: "AuditReport") -> str:
    """Why training would fail, the worst first, in one text."""
    from ..audit.findings import ERROR

    said = [f"{finding.message} {finding.advice}".strip() for finding in report.findings if finding.severity == ERROR]
    return "The audit refuses these pictures: " + " ".join(said)


def paired(words: Sequence[str]) -> dict[str, str]:
    """Names and values in turn, as a mapping; of a name that comes again the values belong together.

    Raises SdxlNbError for a name without a value.
    """
    if len(words) % 2:
        raise SdxlNbError(f"audit takes names and values in turn, and {words[-1]} has no value: add it")
    told: dict[str, str] = {}
    for name, text in zip(words[::2], words[1::2], strict=True):
        told[name] = told.get(name, "") + text
    return told
