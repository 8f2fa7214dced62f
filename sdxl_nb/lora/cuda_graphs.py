"""Forward and backward pass as one CUDA graph for each shape: launched at once, not operation by operation.

In: a function of tensors that adds to gradients, which lie where they always lie. Out: `Graphs`, called as it is: the
graph of a shape reads what it is given at a place of its own, so that is copied there, and the graph launched. A shape
is computed as ever until it has been seen `SEEN` times, and so is every further one beside `MOST` graphs; of buckets
with few pictures no graph would ever pay. All graphs share one pool of memory, for nothing of one but its loss is read
after it, and that before the next.
Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

SEEN, MOST = 3, 16

Run = Callable[[], torch.Tensor]
Record = Callable[[Run], tuple[Callable[[], None], torch.Tensor]]  # -> what launches it, and its result, rewritten then


class Recorder:
    """Records a function as a CUDA graph."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> tuple[Callable[[], None], torch.Tensor]:
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()  # libraries set themselves up at the first call on a stream, which is no part of a graph
        torch.cuda.current_stream().wait_stream(stream)
        # other threads, which load pictures, may go on asking the device for memory
        with torch.cuda.graph(graph, pool=self.pool, stream=stream, capture_error_mode="thread_local"):
            result = run()
        return graph.replay, result


class _Graph(NamedTuple):
    """`places` are read, `result` is written by `launch`; `kept` is what it also uses and others might let go."""

    places: list[torch.Tensor]
    launch: Callable[[], None]
    result: torch.Tensor
    kept: object


class Graphs:
    """See the module. `compute` adds to `gradient`; `shared` tells which buffers it uses that may be replaced."""

    def __init__(
        self,
        compute: Callable[..., torch.Tensor],
        gradient: torch.Tensor,
        shared: Callable[[], object],
        record: Record | None = None,
    ):
        self.compute, self.gradient, self.shared = compute, gradient, shared
        self.record = record or Recorder()
        self.seen: Counter[object] = Counter()
        self.made: dict[object, _Graph] = {}

    def __call__(self, *given: Any) -> torch.Tensor:
        """`compute` of tensors, None and tuples of them: its result, () and true until the next call."""
        leaves, tree = tree_flatten(given)
        tensors = [leaf for leaf in leaves if leaf is not None]
        key = (tree, tuple(None if leaf is None else (leaf.shape, leaf.dtype) for leaf in leaves))
        self.seen[key] += 1
        if key not in self.made:
            if self.seen[key] <= SEEN or len(self.made) == MOST:
                return self.compute(*given)
            self.made[key] = self._recorded(leaves, tree)
        graph = self.made[key]
        torch._foreach_copy_(graph.places, tensors)
        graph.launch()
        return graph.result

    def clear(self) -> None:
        """Forget all graphs, and give their memory back; shapes seen often are recorded again."""
        self.made.clear()

    def _recorded(self, leaves: list[torch.Tensor | None], tree: TreeSpec) -> _Graph:
        copies = [None if leaf is None else leaf.clone() for leaf in leaves]
        given, before = tree_unflatten(copies, tree), self.gradient.clone()
        launch, result = self.record(lambda: self.compute(*given))
        self.gradient.copy_(before)  # recording computes, too
        return _Graph([copy for copy in copies if copy is not None], launch, result, self.shared())
