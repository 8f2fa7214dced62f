"""What is wrong with captions: one small function for each kind.

In: captions by the name of their picture, and tokenizers. Out: Findings (findings.py). Everything here is about text
alone; nothing is decoded and no model is loaded.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from ..config.messages import shown
from ..data.captions import long_captions
from ..data.dataset import TRIGGER_ALONE
from .findings import NOTE, WARNING, Finding, found

MISSING_CAPTION = "missing_caption"
EMPTY_CAPTION = "empty_caption"
SAME_CAPTION = "same_caption"
LONG_CAPTION = "long_caption"
MOJIBAKE = "mojibake"
INVISIBLE_CHARACTERS = "invisible_characters"
CONTROL_CHARACTERS = "control_characters"
HTML = "html_in_caption"
PROMPT_SYNTAX = "prompt_syntax"
UNBALANCED = "unbalanced_quotes"
FILE_NAME = "file_name_as_caption"
NOT_LATIN = "not_latin"
TRIGGER_WORD = "trigger_word"

Captions = Mapping[str, str]  # name of the picture -> caption
UNSEEN = re.compile("[\u00ad\u200b\u200c\u200e\u200f\u2060\u202a-\u202e\u2066-\u2069\ufeff]|(?<=\\w)\u200d(?=\\w)")
MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|<!--|&(?:[a-zA-Z]{2,8}|#\d+|#x[0-9a-fA-F]+);")
WEIGHTED = re.compile(r"[(\[][^()\[\]]*:\s*\d+(?:\.\d+)?[)\]]|<(?:lora|lyco|hypernet|embedding):[^<>]*>|\bBREAK\b")
CAMERA = re.compile(
    r"(?:IMG|DSCN?|DSCF|PXL|MVI|P|Screenshot|image|photo|picture)?[-_ (]*\d[\d_() -]*(?:\.\w{3,4})?", re.I
)
PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"))
PORTION = 2000  # captions tokenized at once


class Check(NamedTuple):
    """A fault of a single caption: `look` says what of it, or nothing."""

    kind: str
    severity: str
    look: Callable[[str], str]
    message: str
    advice: str


def mojibake(caption: str) -> str:
    """What a caption reads once repaired, when it was decoded with the wrong encoding."""
    if caption.isascii():
        return ""
    if "\ufffd" in caption:
        return "has the sign for a lost character"
    from ftfy import fix_encoding

    repaired = fix_encoding(caption)
    return f"should read {shown(repaired)}" if repaired != caption else ""


def invisible(caption: str) -> str:
    """The code points that cannot be seen, such as zero-width spaces."""
    return "" if caption.isascii() else _points(UNSEEN.findall(caption))


def control(caption: str) -> str:
    """The control characters; line ends and tabs are white space and do no harm."""
    return _points(c for c in caption if c not in "\t\n\r" and unicodedata.category(c) == "Cc")


def _points(characters: Iterable[str]) -> str:
    return ", ".join(f"U+{ord(character):04X}" for character in dict.fromkeys(characters))


def markup(caption: str) -> str:
    """The first HTML tag or entity."""
    hit = MARKUP.search(WEIGHTED.sub("", caption))
    return shown(hit[0]) if hit else ""


def prompt_syntax(caption: str) -> str:
    """The first weight, LoRA or BREAK as generation programs read them; training reads the letters."""
    hit = WEIGHTED.search(caption)
    return shown(hit[0]) if hit else ""


def unbalanced(caption: str) -> str:
    """The quotes and brackets that are not in pairs; an inch sign after a number is none."""
    quotes = re.sub(r'(?<=\d)"', "", caption).count('"') % 2 * ['"']
    text = re.sub(r"[:;=]-?[()\[\]{}]", "", caption)  # smileys
    return " ".join(quotes + [left + right for left, right in PAIRS if text.count(left) != text.count(right)])


def not_latin(caption: str) -> str:
    """Says so when most letters are of another script."""
    if caption.isascii():
        return ""
    letters = [character for character in caption if character.isalpha()]
    others = sum(not unicodedata.name(character, "").startswith("LATIN") for character in letters)
    return shown(caption) if others * 2 > len(letters) else ""


CHECKS = (
    Check(
        MOJIBAKE,
        WARNING,
        mojibake,
        "The captions of {n} were decoded with the wrong encoding.",
        "Correct them, and save the captions as UTF-8.",
    ),
    Check(
        INVISIBLE_CHARACTERS,
        WARNING,
        invisible,
        "The captions of {n} hold characters that cannot be seen.",
        "Remove them: to the tokenizers they split words.",
    ),
    Check(
        CONTROL_CHARACTERS,
        WARNING,
        control,
        "The captions of {n} hold control characters.",
        "Remove them: they come from a damaged or binary file.",
    ),
    Check(
        HTML,
        WARNING,
        markup,
        "The captions of {n} hold HTML.",
        "Keep the text only: the model would learn the tags as words.",
    ),
    Check(
        PROMPT_SYNTAX,
        WARNING,
        prompt_syntax,
        "The captions of {n} hold weights or commands of a generation program.",
        "Remove them: training reads them letter by letter.",
    ),
    Check(
        UNBALANCED,
        NOTE,
        unbalanced,
        "The captions of {n} have quotes or brackets that are not in pairs.",
        "Look whether the caption was cut or two were joined.",
    ),
    Check(
        NOT_LATIN,
        NOTE,
        not_latin,
        "The captions of {n} are in another script than Latin.",
        "Caption in English if you can: SDXL's text encoders hardly know other languages.",
    ),
)


def single_captions(captions: Captions) -> list[Finding]:
    """What is odd in captions taken one by one."""
    remarks: dict[str, dict[str, str]] = {check.kind: {} for check in CHECKS}
    for name, caption in captions.items():
        for check in CHECKS:
            if remark := check.look(caption):
                remarks[check.kind][name] = remark
    return [f for c in CHECKS for f in found(c.kind, c.severity, remarks[c.kind], c.message, c.advice)]


def empty_captions(captions: Captions) -> list[Finding]:
    empty = dict.fromkeys((name for name, caption in captions.items() if not caption.strip()), "")
    advice = "Describe what is seen; pictures without words teach only what all of them share."
    return found(EMPTY_CAPTION, WARNING, empty, "The captions of {n} are empty.", advice)


def same_captions(captions: Captions) -> list[Finding]:
    """One caption for all pictures (from two on): then nothing in it tells one picture from another."""
    different = {" ".join(caption.lower().split()) for caption in captions.values()}
    if len(captions) < 2 or len(different) != 1 or different == {""}:
        return []
    remarks = dict.fromkeys(captions, "")
    message = f"All captions are the same: {shown(next(iter(captions.values())))}."
    advice = "Describe what differs from picture to picture, so that it does not become part of the concept."
    return found(SAME_CAPTION, WARNING, remarks, message.replace("{", "{{").replace("}", "}}"), advice)


def file_name_captions(captions: Captions) -> list[Finding]:
    """Captions that are a camera's number or the file's own name with digits in it."""

    def is_name(name: str, caption: str) -> bool:
        stem = PurePath(name).stem.lower()
        return bool(CAMERA.fullmatch(caption)) or (caption.lower() == stem and any(map(str.isdigit, stem)))

    remarks = {name: shown(caption) for name, caption in captions.items() if is_name(name, caption.strip())}
    advice = "Describe the picture: a file's name means nothing to the text encoders."
    return found(FILE_NAME, WARNING, remarks, "The captions of {n} are file names or numbers.", advice)


def cut_captions(captions: Captions, tokenizers: Mapping[str, Any]) -> list[Finding]:
    """What each tokenizer (by the name of its text encoder) cuts off. A caption of few bytes is not even looked at."""
    remarks: dict[str, dict[str, str]] = {}
    for encoder, tokenizer in tokenizers.items():
        limit = tokenizer.model_max_length
        names = [name for name, caption in captions.items() if len(caption.encode()) > limit - 2]
        for first in range(0, len(names), PORTION):
            portion = names[first : first + PORTION]
            for cut in long_captions([captions[name] for name in portion], [tokenizer]):
                told = f"{cut.tokens} of {limit} tokens, loses {cut.cut!r}"
                remarks.setdefault(portion[cut.index], {})[encoder] = told
    lost = {name: _by_encoder(remarks[name], len(tokenizers)) for name in captions if name in remarks}
    message = "The captions of {n} are longer than the text encoders take, and are cut."
    return found(LONG_CAPTION, WARNING, lost, message, "Put what matters first, or shorten them.")


def _by_encoder(cuts: Mapping[str, str], encoders: int) -> str:
    """What the encoders lose; once, when all lose the same."""
    if len(cuts) == encoders and len(set(cuts.values())) == 1:
        return f"both encoders: {next(iter(cuts.values()))}" if encoders == 2 else next(iter(cuts.values()))
    return "; ".join(f"{encoder}: {text}" for encoder, text in cuts.items())


def trigger_coverage(written: Captions, trigger_word: str | None, names: Sequence[str]) -> list[Finding]:
    """Which captions, as they were `written`, lack the trigger word, or have it only inside another word."""
    if not trigger_word:
        return []
    whole = re.compile(rf"(?<!\w){re.escape(trigger_word)}(?!\w)", re.I)
    remarks = {}
    for name in names:
        caption = written.get(name, "")
        if not whole.search(caption):
            remarks[name] = "only inside another word" if trigger_word.lower() in caption.lower() else ""
    have = len(names) - len(remarks)
    message = f"The trigger word {trigger_word!r} is written in {have} of {len(names)} captions."
    inside = any(remarks.values())
    advice = (
        "Training puts it in front of those that lack it, but not where it is part of another word: add it there."
        if inside
        else "Training puts it in front of the others; nothing needs to be done."
    )
    severity = WARNING if inside else NOTE
    return found(TRIGGER_WORD, severity, remarks, message.replace("{", "{{").replace("}", "}}"), advice)


def trigger_alone(names: Mapping[str, str], trigger_word: str | None) -> list[Finding]:
    """The pictures (name -> "") that training calls by the trigger word and nothing else."""
    word = str(trigger_word).replace("{", "{{").replace("}", "}}")
    advice = "Describe what is seen, unless that is meant: what no word names becomes part of the trigger word."
    return found(TRIGGER_ALONE, WARNING, names, f"{{n}} without a caption but the trigger word '{word}'.", advice)


def check_captions(captions: Captions) -> list[Finding]:
    """Everything about captions that needs no tokenizer."""
    findings = [*empty_captions(captions), *same_captions(captions), *file_name_captions(captions)]
    return findings + single_captions(captions)
