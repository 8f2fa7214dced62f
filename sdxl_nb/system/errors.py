"""What goes wrong, said to the person: one sentence with what is wrong and what to do.

In a notebook that sentence stands alone, in a frame, and speaks of settings as Python has them. `%env
SDXL_NB_TRACEBACK=1` and then `%tb` show where it comes from.
"""

import os
import re
import textwrap
import traceback

WIDTH = 100  # characters of a frame, at most
SINGLE = "preset|rank|seed|resolution|optimizer|config|revision|variant"  # settings of one word
FLAG = re.compile(rf"--(?=(?:[a-z][a-z0-9]*(?:_[a-z0-9]+)+|{SINGLE})\b)")


class SdxlNbError(Exception):
    """An error whose message is one sentence for the user; command line and notebook show it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows below a cell, line by line."""
        if os.environ.get("SDXL_NB_TRACEBACK"):
            return traceback.format_exception(self)
        return framed(in_python(str(self)))


class ConfigError(SdxlNbError, ValueError):
    """A setting, or a combination of settings, that cannot work. The command line exits with 2."""

    problems: dict[str, str]  # each wrong field with its sentence; there where fields are what is wrong


class Stopped(SdxlNbError):
    """A run was asked to stop while it prepared its first step; no failure."""


class DataError(SdxlNbError):
    """Pictures or captions that cannot be used as they are."""


class NoPictures(DataError):
    """A place without any picture, which may get some."""


class ModelError(SdxlNbError):
    """A base model, VAE or LoRA file that cannot be used as it is."""


def in_python(text: str) -> str:
    """A sentence as one says it to who writes Python: settings without the dashes of their flags."""
    return FLAG.sub("", text)


def framed(text: str) -> list[str]:
    """A text in a red frame of a terminal's lines, as notebooks show it too."""
    lines = [line for part in text.splitlines() or [""] for line in textwrap.wrap(part, WIDTH - 4) or [""]]
    wide = max(map(len, lines))
    rule = "─" * (wide + 2)
    inside = [f"│ \x1b[0m{line.ljust(wide)}\x1b[31m │" for line in lines]
    return ["\n".join(f"\x1b[31m{line}\x1b[0m" for line in (f"╭{rule}╮", *inside, f"╰{rule}╯"))]
