"""The trigger word: whether a caption has it, as a whole word, and the caption with it in front.

In: a caption and a trigger word or phrase. Out: yes or no, or a caption.
"""

import re
from functools import lru_cache

# letters of scripts that put no blanks between words (Thai, Lao, Chinese, Japanese) or add endings to them (Korean)
UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"


@lru_cache(maxsize=16)
def whole_word(word: str) -> re.Pattern[str]:
    """Finds a word or phrase as a whole, in small letters or capitals: "sks" is not in "masks".

    Scripts without blanks between words are no reason against it: it is in "一张sks的照片".
    """
    letter = rf"[^\W{UNSPACED}]"
    before = rf"(?<!{letter})" if re.match(letter, word) else ""
    after = rf"(?!{letter})" if re.match(letter, word[-1:]) else ""
    return re.compile(before + r"\s+".join(map(re.escape, word.split())) + after, re.IGNORECASE)


def calls(caption: str, trigger_word: str | None) -> bool:
    """Whether the trigger word is in the caption, as a whole word or phrase."""
    return bool(trigger_word and trigger_word.strip() and whole_word(trigger_word.strip()).search(caption))


def with_trigger(caption: str, trigger_word: str | None) -> str:
    """The caption with the trigger word in front, unless it is in it already."""
    if not trigger_word or calls(caption, trigger_word):
        return caption
    return f"{trigger_word}, {caption}" if caption else trigger_word
