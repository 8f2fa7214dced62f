"""What a run imports before its first step: no compilers, and of libraries of models a tokenizer at most."""

import json
import subprocess
import sys

from small_runs import small

HEAVY = ["torch._dynamo", "torch.distributed.tensor", "transformers.modeling_utils", "diffusers", "peft", "scipy"]
HEAVY += ["pandas", "transformers"]


def test_a_run_imports_what_it_uses(tmp_path):
    for name, expected in (("cold", ["transformers"]), ("warm", [])):
        config = small(tmp_path / name, max_train_steps=1)
        config.save(tmp_path / "config.json")
        code = (
            "import sys; from sdxl_nb.train import main; code = main(sys.argv[1:]);"
            f"print([name for name in {HEAVY} if name in sys.modules]); sys.exit(code)"
        )
        command = [sys.executable, "-c", code, "--config", str(tmp_path / "config.json")]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert told.splitlines()[-1] == str(expected)
        lines = (tmp_path / name / "events.jsonl").read_text().splitlines()
        assert len([line for line in lines if json.loads(line).get("train_loss")]) == 1
