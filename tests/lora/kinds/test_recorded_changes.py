"""LoHa and LoKr are the change that ComfyUI's and LyCORIS' own code made of them: tests/lora/readers/kinds.json."""

import json
import sys
from pathlib import Path

import pytest
import torch

from sdxl_nb.lora.kinds.factored import Factored

READERS = Path(__file__).parents[1] / "readers"
sys.path.append(str(READERS))
from kinds_layers import LAYOUTS, layers  # noqa: E402

RECORDED = json.loads((READERS / "kinds.json").read_text())
FAIL = {"ComfyUI": {"lokr of Tucker"}, "sd-scripts": {"lokr of Tucker"}}  # on their own files, at these commits


@pytest.mark.parametrize("reader", ["ComfyUI", "sd-scripts"])
def test_every_layout_changes_a_weight_as_the_readers_have_it(reader):
    theirs = RECORDED[reader]["changes"]
    assert (
        theirs.keys() == LAYOUTS.keys() and {name for name, change in theirs.items() if change is None} == FAIL[reader]
    )
    for name, parts in layers().items():
        alpha = parts.pop("alpha").item()
        change = Factored(parts, alpha).change().reshape(LAYOUTS[name][0])
        if theirs[name] is not None:
            torch.testing.assert_close(change, torch.tensor(theirs[name]), atol=1e-5, rtol=1e-5)
