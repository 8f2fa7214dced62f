"""Which LoRA is good?

A run in; scores of every stage beside those of the bare base out, the best of them with the reason, and a gate.
"""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "score_run": "run_scores",  # every stage of a run scored, or read back
        "Scores": "scores",  # the table
        "Score": "intervals",  # a mean with its interval
        "Scorer": "scorer",  # what makes a metric
        "scorer": "scorer",  # registers a function as one
        "Evidence": "evidence",  # what a scorer sees of a stage
        "read_gate": "gate",  # thresholds from a file
    },
)
