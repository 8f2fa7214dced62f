"""torch's AdamW as an eager step uses it: without importing torch's compiler, which takes a second of every start.

In and out: those of torch.optim.AdamW, of which this is a subclass with the same arithmetic and the same state.
"""

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch

_torchs = torch.optim.AdamW


def _bare(name: str) -> Callable[..., Any]:
    """A method of torch's without the wrappers that tell the compiler to leave it alone, and import it for that."""
    return cast(Callable[..., Any], inspect.unwrap(getattr(_torchs, name)))


class AdamW(torch.optim.AdamW):
    """See the module. What torch.compile should see of an optimizer is torch's own."""

    add_param_group = _bare("add_param_group")
    state_dict = _bare("state_dict")
    load_state_dict = _bare("load_state_dict")
    zero_grad = _bare("zero_grad")

    step = torch.no_grad()(_bare("step"))
