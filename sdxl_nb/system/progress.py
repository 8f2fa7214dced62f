"""Progress bars of text, for a terminal and for a notebook alike.

In: what tqdm takes. Out: a tqdm bar that also says the seconds of a step. In a notebook it is one display that is
updated, not tqdm's widget: a stored or exported notebook then keeps the bar's last state, without any script.
"""

import io
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.std import tqdm

FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_inv_fmt}{postfix}]"


def progress_bar(**options: Any) -> "tqdm":
    """A tqdm bar (`total`, `desc`, `unit`, `disable`, `leave`): on stderr, or in a notebook a display of its own."""
    from tqdm.std import tqdm

    if in_kernel():
        shape = {"bar_format": FORMAT, "ncols": 100, "ascii": False, "mininterval": 0.5}
        return _kernel_bar()(**shape | {"file": io.StringIO()} | options)
    return tqdm(**{"bar_format": FORMAT, "dynamic_ncols": True} | options)


def counting_bar(label: str, shown: bool) -> Callable[[int, int], None]:
    """A bar as a (done, total) callback; it closes itself at the end."""
    bar = progress_bar(desc=label, disable=not shown, leave=False)

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return update


def in_kernel() -> bool:
    """Whether output goes to a Jupyter kernel's messages rather than to a terminal or file."""
    return type(sys.stdout).__module__.startswith("ipykernel.")


@cache
def _kernel_bar() -> type:
    from IPython.display import display
    from tqdm.std import tqdm

    class KernelBar(tqdm):
        """A bar whose text is a display; what tqdm itself writes goes nowhere."""

        shown = None

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            """Show the bar, or msg; nothing as long as nobody knows how much there is to do."""
            text = {"text/plain": str(self) if msg is None else msg}
            if self.shown:
                self.shown.update(text, raw=True)
            elif self.total:
                self.shown = display(text, raw=True, display_id=True)
            return True

    return KernelBar
