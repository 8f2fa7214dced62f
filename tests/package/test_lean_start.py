"""`python -m sdxl_nb.train` imports what its run uses, and takes nothing away from what others import.

transformers and accelerate import scipy, scikit-learn and boto3 where these are installed: that is theirs to decide.
What this package brings by itself, no run brings that does not use it.
"""

import subprocess
import sys

import pytest
from small_runs import small

UNUSED = ("IPython", "datasets", "diffusers", "imagehash", "ipywidgets", "matplotlib", "mlflow", "sagemaker", "wandb")

PROGRAM = """
import sys

class Watch:  # asked for every module that is imported; finds none
    hidden = set()

    def find_spec(self, name, path=None, target=None):
        self.hidden |= {name for name, module in list(sys.modules.items()) if module is None}

sys.meta_path.insert(0, Watch())
from sdxl_nb.train import main

assert main(%r) == 0
print([name for name in %r if name in sys.modules], sorted(Watch.hidden))
"""


def imported(config) -> str:
    """What of UNUSED a run of the command imported, and what at any import looked as if it were not installed."""
    program = PROGRAM % (config.to_flags(), UNUSED)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


COLD = {"max_train_steps": 1, "report_to": "tensorboard", "validation_prompt": None}


def test_a_run_brings_no_package_that_it_does_not_use_and_hides_none(tmp_path):
    assert imported(small(tmp_path / "cold", **COLD)) == "[] []"


@pytest.mark.soak
def test_nor_does_one_that_finds_everything_encoded(tmp_path):
    config = small(tmp_path / "cold", **COLD).replace(latents_cache_dir=str(tmp_path / "cache"))
    assert imported(config) == "[] []"
    assert imported(config.replace(output_dir=str(tmp_path / "warm"))) == "[] []"
    (shard,) = (tmp_path / "cache" / "latents").rglob("*.safetensors")
    assert shard.stat().st_size > 0  # the first run did encode
