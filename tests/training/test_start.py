"""What a run imports before its first step: with warm caches neither compilers nor libraries of models."""

import json
import subprocess
import sys

from small_runs import small, train

HEAVY = ["torch._dynamo", "torch.distributed.tensor", "transformers", "diffusers", "peft", "scipy", "pandas"]


def test_a_warm_run_imports_what_it_uses(tmp_path):
    train(small(tmp_path / "cold", max_train_steps=1))
    config = small(tmp_path / "warm", max_train_steps=1)
    config.save(tmp_path / "config.json")
    code = (
        "import sys; from sdxl_nb.train import main; code = main(sys.argv[1:]);"
        f"print([name for name in {HEAVY} if name in sys.modules]); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "--config", str(tmp_path / "config.json")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[]"
    losses = [json.loads(line).get("train_loss") for line in (tmp_path / "warm/events.jsonl").read_text().splitlines()]
    assert len([loss for loss in losses if loss]) == 1
