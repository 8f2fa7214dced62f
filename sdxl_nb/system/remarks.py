"""What is worth a word and no error: a warning at the line that called this package, or a line on stderr.

In: a sentence. Out: a UserWarning, which notebooks and Python show; a command shows it as `warning: SENTENCE`.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any


def remark(sentence: str) -> None:
    """Warn of something, at the line outside this package that led to it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "sdxl_nb":
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, stacklevel=level)


@contextlib.contextmanager
def on_stderr() -> Iterator[None]:
    """Within the block a remark is one line on stderr, once, as a command says it."""
    said: set[str] = set()

    def show(message: Warning | str, *about: Any, **more: Any) -> None:
        if str(message) not in said:
            print(f"warning: {message}", file=sys.stderr)
        said.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
