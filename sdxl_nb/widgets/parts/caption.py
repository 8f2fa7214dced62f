"""A prompt in the little room beside a picture: its beginning, and the whole of it for who points at it.

In: texts that a person wrote. Out: escaped HTML.
"""

from html import escape

LONG = 80  # characters of a prompt that are shown


def short(text: str) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= LONG else f"{text[: LONG - 1].rstrip()}…"


def caption(prompt: str, below: str) -> str:
    """A prompt, cut where it is long, and a line below it."""
    return f'<div class="sdxl-nb-caption" title="{escape(prompt)}">{escape(short(prompt))}<br>{escape(below)}</div>'
