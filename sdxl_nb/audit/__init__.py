"""What is wrong with the pictures?

A data set in; findings with remedies out. `python -m sdxl_nb.audit` is inspection.py.
"""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "audit_dataset": "inspection",  # everything that is wrong, decoded and measured
        "quick_summary": "inspection",  # one line for the start of a run
        "AuditReport": "findings",  # findings, to print, show and filter
        "Finding": "findings",  # one kind of fault, and whom it concerns
    },
)
