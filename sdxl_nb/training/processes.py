"""Several processes that train one LoRA together: torchrun's and accelerate's, on one machine or many.

In: the environment that the launcher made. Out: a Processes, which adds up gradients, lets all say the same, and makes
the failure of one the failure of all. With one process every method is a plain pass.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch

from ..system.errors import ConfigError, DataError, ModelError, SdxlNbError, Stopped

Value = TypeVar("Value")

PATIENCE = timedelta(hours=2)  # how long others wait while the first one draws or saves
KINDS = {kind.__name__: kind for kind in (SdxlNbError, ConfigError, DataError, ModelError, Stopped)}
ALONE = (
    "accelerate launch --cpu starts one process however many it is asked for: to train in several on CPUs use "
    "torchrun --nproc_per_node N -m sdxl_nb.train ..."
)


class PeerError(SdxlNbError):
    """What another process failed with; that one says it to the user, this one ends quietly."""

    kind: type[SdxlNbError] = SdxlNbError  # the class of the other's own


class Processes:
    """The processes of this run: `count` of them, this one is number `index`, the first one writes and prints."""

    def __init__(self, count: int = 1, index: int = 0, device: torch.device | str = "cpu"):
        self.count, self.index, self.device = count, index, torch.device(device)

    @classmethod
    def join(cls) -> "Processes":
        """Meet the others that the launcher started; on a machine without an accelerator they talk through gloo."""
        from accelerate import PartialState

        from ..config.machine import Machine

        cpu = "RANK" in os.environ and Machine.here().device == "cpu"  # else accelerate would not look for the others
        state = PartialState(cpu=cpu, timeout=PATIENCE)
        return cls(state.num_processes, state.process_index, state.device)

    @property
    def first(self) -> bool:
        return self.index == 0

    def remarks(self) -> list[str]:
        """What the user should know about how the processes were launched."""
        asked = "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ  # what accelerate leaves of the wish
        return [ALONE] if asked and os.environ.get("ACCELERATE_USE_CPU") == "True" else []

    def add_up(self, *tensors: torch.Tensor) -> None:
        """Replace each tensor by its sum over all processes, without waiting for the device."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def gather(self, value: Value) -> list[Value]:
        """The value of every process, in their order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What `make` returns in the first process; it runs nowhere else, and if it fails all fail."""
        if self.count == 1:
            return make()
        with self.together():
            carrier: list[Any] = [make() if self.first else None]
        torch.distributed.broadcast_object_list(carrier, device=self.device)
        value: Value = carrier[0]
        return value

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that ends well in all processes or in none; inside it they must not talk to one another."""
        if self.count == 1:
            yield
            return
        problem: Exception | None = None
        try:
            yield
        except Exception as error:
            problem = error
        self.fail(problem)

    def fail(self, problem: Exception | None) -> None:
        """Raise this process's problem, or else the first one that another process tells of, if any; all call it."""
        told = self.gather(_told(problem) if problem else None)
        if problem:
            raise problem
        for failure in filter(None, told):
            raise _peer_error(failure)

    @contextlib.contextmanager
    def sharing_failures(self) -> Iterator[None]:
        """Tell the others why this process ends, and say their reason where they broke off the talk.

        The others hear of it when their talk breaks off or the launcher ends them, so nothing hangs.
        """
        try:
            yield
        except PeerError:
            raise
        except BaseException as problem:
            reason = None
            with contextlib.suppress(Exception):  # without the store there is only this process's own account
                reason = self._first_reason(problem)
            if reason is None:
                raise
            raise _peer_error(reason) from problem

    def _first_reason(self, problem: BaseException) -> tuple[str, str] | None:
        """The (class, sentence) of another process that failed earlier; None when this one is the first."""
        if self.count == 1:
            return None
        store = torch.distributed.distributed_c10d._get_default_store()
        mine = "\n".join((str(self.index), *_told(problem)))
        index, kind, sentence = store.compare_set("sdxl_nb/failure", "", mine).decode().split("\n", 2)
        return None if int(index) == self.index else (kind, sentence)


def _told(problem: BaseException) -> tuple[str, str]:
    """An exception as its class's name and a sentence."""
    if isinstance(problem, SdxlNbError):
        return type(problem).__name__, str(problem)
    if isinstance(problem, KeyboardInterrupt):
        return "SdxlNbError", "Interrupted at once: steps since the last checkpoint are lost."
    return "SdxlNbError", f"{type(problem).__name__}: {problem}"


def _peer_error(failure: tuple[str, str]) -> PeerError:
    kind, sentence = failure
    error = PeerError(sentence)
    error.kind = KINDS.get(kind, SdxlNbError)
    return error
