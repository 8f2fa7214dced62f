"""What generation programs read in a prompt as more than words: weights, LoRAs, BREAK, wildcards.

In: a prompt or caption. Out: the piece that is such, shown, or nothing. Nothing here reads it so: the text encoders get
the letters, which whoever draws is told. Ordinary text must not be found: (16:9), times, smileys, BREAK on a sign.
"""

import re
from collections.abc import Iterable

from ...config.messages import shown


def any_of(*patterns: str) -> re.Pattern[str]:
    """Finds any of the patterns, in small letters or capitals."""
    return re.compile("|".join(patterns), re.IGNORECASE)


LETTER, WEIGHT = r"[^\W\d_]", r"[+-]?(?:[0-2]?\.\d+|[0-2](?:\.\d+)?)"
# as A1111 and ComfyUI read them
WEIGHTED = any_of(
    rf"[(\[][^()\[\]\n]*{LETTER}[^()\[\]\n]*\w[^\W\d][!?.'\"]?:\s*{WEIGHT}\s*[)\]]",  # (word:1.2)
    rf"\[[^\[\]\n:]*:[^\[\]\n:]*:{WEIGHT}\]",  # [this:that:0.5]
    rf"\(\([^()\n]*{LETTER}{{3}}[^()\n]*\)\)",  # ((word))
    rf"\[\[[^\[\]\n]*{LETTER}{{3}}[^\[\]\n]*\]\]",
    rf"{LETTER}\)[0-2]\.\d+\b",  # (word)1.2
    r"\{\{+[^{}\n]+\}+\}",
    r"<(?:lora|lyco|lycoris|hypernet|embedding|ti):[^<>\n]*>",
    r"\bembedding:[\w.-]+",
    r"\bNegative prompt: ",  # what A1111 writes beside its pictures
    r"\bSteps: \d+, Sampler: ",
)
BREAKS = re.compile(r"(\S*)\s*(?<!\w)BREAK(?!\w)\s*(\S*)")
QUOTES = "\"'\u2018\u2019\u201c\u201d\u00ab\u00bb"
SAYS = any_of(r"(?:says?|said|reads?|words?|texts?|titled?|labell?ed|letters|an?|the|of|to|on|is|not|and|or)\W*")
# that a program replaces by one of several words
WILDCARDS = (
    r"\{[^{}|\n]*(?:\|[^{}|\n]*)+\}",  # {a|b}
    r"(?<!\w)__[a-z][\w/-]*__(?!\w)",  # __colour__
)
WILD = any_of(*WILDCARDS)


def prompt_syntax(caption: str) -> str:
    """The first weight, LoRA or BREAK as generation programs read them; training reads the letters."""
    hit = WEIGHTED.search(caption)
    return shown(hit[0]) if hit else _break(caption)


def _break(caption: str) -> str:
    """BREAK between two parts of a prompt: of tags, or beside a comma; not the word on a sign or in capitals."""
    for hit in BREAKS.finditer(caption):
        before, after = hit[1], hit[2]
        if not before or not after or before[-1] in QUOTES or after[0] in QUOTES:
            continue
        between = before.endswith(",") or after.startswith(",") or caption.count(",") > 1
        if between and not _loud(before) and not _loud(after) and not SAYS.fullmatch(before):
            return shown("BREAK")
    return ""


def _loud(word: str) -> bool:
    letters = re.sub(r"\W", "", word)
    return len(letters) > 1 and letters.isupper()


def said_syntax(prompts: Iterable[str | None], where: str) -> str | None:
    """The sentence about prompts that are drawn word for word, where another program would read more than words."""
    hits = [hit for prompt in prompts if prompt and (hit := prompt_syntax(prompt) or _wild(prompt))]
    if not hits:
        return None
    more = f" and {len(hits) - 1} more" if len(hits) > 1 else ""
    return (
        f"{where}: {hits[0]}{more} is read as the letters that it is: weights, <lora:...>, BREAK and wildcards are of "
        "A1111 and ComfyUI."
    )


def _wild(prompt: str) -> str:
    hit = WILD.search(prompt)
    return shown(hit[0]) if hit else ""
