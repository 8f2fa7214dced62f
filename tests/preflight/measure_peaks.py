"""Really train by the given configurations and print the peak of bytes alive in each one's steps, a JSON list.

The peak is the tensors alive between two steps (every storage once) and what torch's allocator adds in the next ones,
by torch.profiler. A first run has filled the caches, so that neither VAE nor text encoders are there.
"""

import gc
import json
import sys
import warnings

import torch
from small_runs import small, train


def alive() -> int:
    """Bytes of all tensors that Python knows."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


class Meter:
    """A callback that measures the third step."""

    def __init__(self) -> None:
        self.profiler = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
        )
        self.before = self.peak = 0

    def __call__(self, event: dict) -> None:
        if event["event"] == "step" and event["step"] == 2:
            self.before = alive()
            self.profiler.start()
        if event["event"] == "step" and event["step"] == 3:
            self.profiler.stop()
            self.peak = self.before + self._added()

    def _added(self) -> int:
        now = most = 0
        memory = [e for e in self.profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
        for event in sorted(memory, key=lambda e: e.start_ns()):
            now += event.nbytes()
            most = max(most, now)
        return most


def main() -> None:
    folder, measured, warm = sys.argv[1], [], set()
    for number, values in enumerate(json.loads(sys.argv[2])):
        if values["resolution"] not in warm:
            train(small(f"{folder}/{number}-warm", **values | {"max_train_steps": 1}))
            warm.add(values["resolution"])
        meter = Meter()
        train(small(f"{folder}/{number}", **values | {"max_train_steps": 3}), meter)
        measured.append(meter.peak)
    print(json.dumps(measured))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
