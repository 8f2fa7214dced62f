"""`python -m sdxl_nb.train` imports what its run uses: neither diffusers nor scipy or boto3, which others bring."""

import importlib.util
import subprocess
import sys

import pytest
from small_runs import small

from sdxl_nb.train import absent

PROGRAM = """
import sys
from sdxl_nb.train import main

assert main({flags!r}) == 0
print([name for name in ("scipy", "boto3", "diffusers") if name in sys.modules])
import scipy.optimize, boto3  # whoever wants them later has them
"""


def imported(config):
    program = PROGRAM.format(flags=config.to_flags())
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_run_brings_no_package_that_it_does_not_use(tmp_path):
    config = small(tmp_path / "cold", max_train_steps=1, report_to="tensorboard", validation_prompt=None)
    config = config.replace(latents_cache_dir=str(tmp_path / "cache"))
    assert imported(config) == "[]"
    assert imported(config.replace(output_dir=str(tmp_path / "warm"))) == "[]"
    (shard,) = (tmp_path / "cache" / "latents").rglob("*.safetensors")
    assert shard.stat().st_size > 0  # the first run did encode


def test_what_is_absent_comes_back(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with absent("colorsys", "json", "no_such_package"), absent("colorsys"):
        assert importlib.util.find_spec("colorsys") is None
        with pytest.raises(ModuleNotFoundError):
            import colorsys
        import json  # imported before, and so left alone

        assert json.dumps(1) == "1"
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0) and "no_such_package" not in sys.modules
