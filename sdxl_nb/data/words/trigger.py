"""The trigger word: whether a caption has it, as a whole word, and the caption with it in front.

In: a caption and a trigger word or phrase. Out: yes or no, or a caption.
"""

import re
import unicodedata
from functools import lru_cache

# letters of scripts that put no blanks between words (Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese) or add
# endings to them (Korean)
UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u31ff\u3400-\u9fff\ua960-\ua97f"
    "\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff]"
)


def is_letter(character: str) -> bool:
    """Whether words go on with this character: a letter, digit or underscore, but for scripts without blanks."""
    return (character.isalnum() or character == "_") and not UNSPACED.match(character)


def is_mark(character: str) -> bool:
    """Whether it changes the letter before it: an accent, a vowel sign."""
    return unicodedata.category(character).startswith("M")


def folded(text: str) -> str:
    """Text as words are compared: neither capitals nor the ways to write an accent matter."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@lru_cache(maxsize=64)
def _written(word: str) -> re.Pattern[str]:
    """Finds a folded word or phrase, whole or not; overlapping ones too."""
    return re.compile("(?=(" + r"\s+".join(map(re.escape, word.split())) + "))")


def calls(caption: str, trigger_word: str | None) -> bool:
    """Whether the trigger word is in the caption, as a whole word or phrase: "sks" is not in "masks".

    Underscores are part of a word, as digits are. Scripts without blanks between words are no reason against it: it
    is in "一张sks的照片". What an accent or a vowel sign follows, which has no letter of its own, is another word.
    """
    word, text = folded(trigger_word or "").strip(), folded(caption)
    if not word or word.split()[0] not in text:  # found sooner than by the pattern
        return False
    return any(_whole(text, *found.span(1)) for found in _written(word).finditer(text))


def _whole(text: str, start: int, end: int) -> bool:
    """Whether a word ends before `start` and at `end`."""
    before, after = text[start - 1 : start], text[end : end + 1]
    if after and is_mark(after) and text[end - 1].isalnum():
        return False
    goes_on = after and is_letter(after) and (is_letter(text[end - 1]) or is_mark(text[end - 1]))
    return not goes_on and not (before and is_letter(text[start]) and (is_letter(before) or is_mark(before)))


def with_trigger(caption: str, trigger_word: str | None) -> str:
    """The caption with the trigger word in front, unless it is in it already."""
    if not trigger_word or calls(caption, trigger_word):
        return caption
    return f"{trigger_word}, {caption}" if caption else trigger_word
