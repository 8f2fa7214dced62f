"""What other modules have registered is no part of these tests: only our own scorers are there."""

import pytest

from sdxl_nb.scoring.scorer import REGISTERED


@pytest.fixture(autouse=True)
def _ours_alone(monkeypatch):
    for name, scorer in list(REGISTERED.items()):
        if not scorer.ours:
            monkeypatch.delitem(REGISTERED, name)
