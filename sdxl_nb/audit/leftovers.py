"""What programs leave in captions: placeholders that nobody filled, a captioner's refusal, JSON.

In: a caption. Out: the piece that is left over, shown, or nothing. Ordinary text must not be found: a todo list,
brackets around words. Prompt syntax is in data/words/syntax.py.
"""

import json
import re

from ..config.messages import shown
from ..data.words.syntax import WILDCARDS, any_of

SLOT = "trigger|name|filewords|key ?words?|token|concept|class|subject|instance|caption|tags|prompt"
UNFILLED = any_of(
    rf"\[(?:{SLOT}|insert)\b[^\[\]]*\]",
    rf"\$?\{{(?:{SLOT}|file_?name|text)\w*\}}",
    r"<(?:caption|trigger|name|token|tags|text)>",
    *WILDCARDS,
    r"\blorem ipsum\b",
    r"\b(?:insert|your|enter|add|write) (?:a |the |your )?(?:caption|description|prompt) here\b",
)
REMINDER = re.compile(r"\b(?:TODO|FIXME|TBD|XXXX+)\b")  # a todo list is ordinary text
NOTHING = {
    "nan",
    "none",
    "null",
    "n/a",
    "na",
    "nil",
    "undefined",
    "unknown",
    "untitled",
    "todo",
    "tbd",
    "fixme",
    "test",
}
NOTHING |= {"caption", "no caption", "no description", "description", "placeholder", "text", "prompt"}
NOTHING_TAG = {"nan", "NaN", "None", "null", "NULL", "undefined", "<NA>", "N/A"}

CANNOT = "(?:can't|can not|cannot|am unable to|'m unable to|am not able to|'m not able to|won't|will not be able to)"
DO = (
    "(?:assist|help (?:you|with)|describe|provide|identify|comply|fulfil|process|view|see (?:the|this|any)|analy[sz]e|"
    "generate|create|caption|access|answer|recogni[sz]e|determine|offer|engage|complete)"
)
ON = r".{0,40}\b(?:image|picture|photo|request|person|people|description|caption)"
CALLED = r"(?:sure|certainly|of course|absolutely)\b[,!.]*"
REFUSED = any_of(
    r"\b(?:i'?m|i am) (?:sorry|afraid)\b[,.]? *(?:but )?(?:i|that i|this|there) ",
    rf"\bi ?{CANNOT} {DO}",
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|vision model|text-based)\b[ ,]",
    r"\bi apologi[sz]e\b",
    r"\b(?:against|violates?) (?:my|our|the) (?:content )?(?:guidelines|polic|programming|usage)",
    r"\bcontent (?:policy|guidelines)\b",
    rf"\bunable to (?:process|view|see|describe|analy[sz]e|identify|caption|generate|provide|assist)\b{ON}",
    r"\b(?:cannot|can't) (?:assist|help) with (?:that|this)",
    r"\bno image (?:was |has been |is )?(?:provided|attached|uploaded)\b",
    r"\bplease (?:provide|upload|share) (?:an?|the|your) (?:image|picture|photo)",
    rf"^\W*(?:{CALLED} *)?here(?:'s| is| are)\b.{{0,40}}\b(?:caption|description|prompt|tags?)\b",
    rf"^\W*{CALLED} (?:here|i)\b",
    r"\bTraceback \(most recent",
    r"\bCUDA out of memory",
    r"\brate limit (?:exceeded|reached)",
    r"\b(?:HTTP|status code|Error code:?) [45]\d\d\b",
)
CODE = re.compile(r"\s*(?:```|\{\s*[\"'][^\"']{1,80}[\"']\s*:|\[\s*(?:[\"'][^\"'\n]*[\"']\s*[,\]]|\{\s*[\"']))")


def placeholder(caption: str) -> str:
    """What was to be replaced by words: [trigger], {a|b}, TODO; nan and None that a program wrote for nothing."""
    text = caption.strip()
    whole = text.strip(".,;:!?-\"'()[]<>*_ ").lower()
    if whole in NOTHING or (text and not whole):
        return shown(text)
    if hit := REMINDER.search(text) or UNFILLED.search(text):
        return shown(hit[0])
    return next((shown(tag) for tag in map(str.strip, text.split(",")) if tag in NOTHING_TAG), "")


def refusal(caption: str) -> str:
    """What a captioning model or program said instead of a caption."""
    hit = REFUSED.search(caption.replace("\u2019", "'"))
    return shown(caption[hit.start() :].strip()) if hit else ""


def code(caption: str) -> str:
    """A caption that is JSON, a list or dictionary of Python, or in a fence of Markdown."""
    text = caption.strip()
    if CODE.match(text):
        return shown(text)
    if text[:1] in "{[" and text[-1:] in "}]":
        try:
            return shown(text) if json.loads(text) else ""
        except (ValueError, RecursionError):
            return ""
    return ""
