"""How long a job may take: twice what is estimated and half an hour, never more than two days."""

import pytest

from sdxl_nb.preflight.estimate_table import Estimate
from sdxl_nb.preflight.forecast import Machine, Row
from sdxl_nb.system.errors import ConfigError


@pytest.mark.parametrize(
    ("seconds", "steps", "around", "allowed"),
    [(3.0, 1000, 900.0, 9600), (0.001, 10, 0.0, 2400), (60.0, 10_000, 0.0, 172_800), (None, None, 0.0, 172_800)],
)
def test_what_a_job_may_take(seconds, steps, around, allowed):
    row = Row(Machine("ml.g5.2xlarge", "A10G", 1, 24e9, 1e14), 10, 1, seconds, steps, around=around)
    assert Estimate([row], None).max_run("ml.g5.2xlarge") == allowed
    with pytest.raises(ConfigError, match=r"^there is no estimate for ml.p5: name it in instances$"):
        Estimate([row], None).max_run("ml.p5")
