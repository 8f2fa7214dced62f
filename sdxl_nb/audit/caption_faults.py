"""What is wrong with captions: one small function for each kind.

In: captions by the name of their picture (of several captions by a Part of it), and tokenizers. Out: Findings
(findings.py). Everything here is about text alone; nothing is decoded and no model is loaded.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from ..config.messages import shown
from ..config.train_config import TrainConfig
from ..data.captions import long_captions
from ..data.listed_captions import TRIGGER_ALONE
from ..data.words.chunks import Chunks
from ..data.words.syntax import WEIGHTED, prompt_syntax
from ..data.words.tags import cleaned
from ..data.words.trigger import calls, folded
from .findings import NOTE, WARNING, Finding, found, picture_of
from .leftovers import code, placeholder, refusal

MISSING_CAPTION = "missing_caption"
EMPTY_CAPTION = "empty_caption"
SAME_CAPTION = "same_caption"
LONG_CAPTION = "long_caption"
MOJIBAKE = "mojibake"
INVISIBLE_CHARACTERS = "invisible_characters"
CONTROL_CHARACTERS = "control_characters"
HTML = "html_in_caption"
PROMPT_SYNTAX = "prompt_syntax"
PLACEHOLDER = "placeholder"
REFUSAL = "refusal"
CODE = "json_in_caption"
UNBALANCED = "unbalanced_quotes"
FILE_NAME = "file_name_as_caption"
NOT_LATIN = "not_latin"
TRIGGER_WORD = "trigger_word"
BOORU_TAGS = "booru_tags"

Captions = Mapping[str, str]  # name of the picture, or Part -> caption
UNSEEN = re.compile("[\u00ad\u200b\u200c\u200e\u200f\u2060\u202a-\u202e\u2066-\u2069\ufeff]|(?<=\\w)\u200d(?=\\w)")
MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|<!--|&(?:[a-zA-Z]{2,8}|#\d+|#x[0-9a-fA-F]+);")
CAMERA = re.compile(
    r"(?:IMG|DSCN?|DSCF|PXL|MVI|P|Screenshot|image|photo|picture)?[-_ (]*\d[\d_() -]*(?:\.\w{3,4})?", re.I
)
# smileys with brackets in them, and booru's (o)_(o), <o>_<o>
SMILEYS = re.compile(r"[:;=]['^o-]?[()\[\]{}<>]|[()\[\]{}]['o-]?[:;=]|\S*[<(]\S?[>)]_[<(]\S?[>)]\S*", re.I)
PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"))
# two words of small letters, or a bracket with a backslash before it
BOORU = re.compile(r"(?=[^A-Z\s]+$)\S*[^\W\d_][^\s_]*_(?:\S*_)?[^\s_]*[^\W\d_]\S*|[^\\]+\\\(.*")
PAIRED = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|“[^“”]*”|«[^«»]*»")
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
    hit = MARKUP.search(WEIGHTED.sub("", SMILEYS.sub("", caption)))
    return shown(hit[0]) if hit else ""


def unbalanced(caption: str) -> str:
    """The quotes and brackets that are not in pairs; an inch sign after a number, a smiley and "1)" are none."""
    quotes = re.sub(r'(?<=\d)"', "", caption).count('"') % 2 * ['"']
    if not any(sign in caption for pair in PAIRS for sign in pair):
        return " ".join(quotes)
    text = re.sub(r"\(\w?\)|\[\w?\]", "", caption)
    while (inner := PAIRED.sub("", text)) != text:
        text = inner
    text = re.sub(r"(?:^|\s)\w{1,2}\)", "", SMILEYS.sub("", text))
    return " ".join(quotes + [left + right for left, right in PAIRS if left in text or right in text])


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
        PLACEHOLDER,
        WARNING,
        placeholder,
        "The captions of {n} hold placeholders that were never filled in.",
        "Write what is seen in their place: training reads them letter by letter.",
    ),
    Check(
        REFUSAL,
        WARNING,
        refusal,
        "The captions of {n} are a captioning program's excuse or talk.",
        "Caption these pictures again, or by hand.",
    ),
    Check(
        CODE,
        WARNING,
        code,
        "The captions of {n} are JSON or lists as a program writes them.",
        "Keep the text only; --caption_source json reads captions from .json files beside the pictures.",
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
        stem = PurePath(picture_of(name)).stem.lower()
        return bool(CAMERA.fullmatch(caption)) or (caption.lower() == stem and any(map(str.isdigit, stem)))

    remarks = {name: shown(caption) for name, caption in captions.items() if is_name(name, caption.strip())}
    advice = "Describe the picture: a file's name means nothing to the text encoders."
    return found(FILE_NAME, WARNING, remarks, "The captions of {n} are file names or numbers.", advice)


def cut_captions(captions: Captions, tokenizers: Mapping[str, Any], chunks: int = 1) -> list[Finding]:
    """What each tokenizer (by the name of its text encoder) cuts off. A caption of few bytes is not even looked at."""
    remarks: dict[str, dict[str, str]] = {}
    for encoder, tokenizer in tokenizers.items():
        cutter = Chunks(tokenizer, chunks)
        limit = cutter.limit
        names = [name for name, caption in captions.items() if len(caption.encode()) > cutter.size]
        for first in range(0, len(names), PORTION):
            portion = names[first : first + PORTION]
            for cut in long_captions([captions[name] for name in portion], [tokenizer], chunks=chunks):
                told = f"{cut.tokens} of {limit} tokens, loses {cut.cut!r}"
                remarks.setdefault(portion[cut.index], {})[encoder] = told
    lost = {name: _by_encoder(remarks[name], len(tokenizers)) for name in captions if name in remarks}
    message = "The captions of {n} are longer than the text encoders take, and are cut."
    return found(
        LONG_CAPTION, WARNING, lost, message, "Put what matters first, shorten them, or raise --max_token_length."
    )


def booru_tags(captions: Captions, config: TrainConfig, tokenizers: Mapping[str, Any]) -> list[Finding]:
    """Tags with underscores or escaped brackets, which --clean_tags makes words of, and the tokens that it saves."""
    if config.clean_tags:
        return []
    remarks, words = {}, {}
    mark, word = config.caption_separator, config.trigger_word
    for name, text in captions.items():
        tags = (tag for tag in map(str.strip, text.split(mark)) if "_" in tag or "\\" in tag)
        told = next((tag for tag in tags if BOORU.fullmatch(tag) and cleaned(tag, mark, word) != tag), "")
        if told:
            remarks[name], words[name] = told, cleaned(text, mark, word)
    saving = _saving([captions[name] for name in words], list(words.values()), tokenizers)
    advice = f"--clean_tags makes words of them, as SDXL's text encoders read them.{saving}"
    return found(BOORU_TAGS, NOTE, remarks, "The captions of {n} hold tags with underscores or backslashes.", advice)


def _saving(captions: Sequence[str], others: Sequence[str], tokenizers: Mapping[str, Any]) -> str:
    """How many tokens the first tokenizer makes of the first of these captions, and of the others."""
    tokenizer = next(iter(tokenizers.values()), None)
    if tokenizer is None or not captions:
        return ""
    before, after = (
        sum(len(ids) - 2 for ids in tokenizer(texts[:PORTION], truncation=False, verbose=False)["input_ids"])
        for texts in (list(captions), list(others))
    )
    return f" They would take {after:,} tokens instead of {before:,}." if after < before else ""


def _by_encoder(cuts: Mapping[str, str], encoders: int) -> str:
    """What the encoders lose; once, when all lose the same."""
    if len(cuts) == encoders and len(set(cuts.values())) == 1:
        return f"both encoders: {next(iter(cuts.values()))}" if encoders == 2 else next(iter(cuts.values()))
    return "; ".join(f"{encoder}: {text}" for encoder, text in cuts.items())


def trigger_coverage(written: Captions, trigger_word: str | None, names: Sequence[str]) -> list[Finding]:
    """Which captions, as they were `written`, lack the trigger word; a remark where it is inside another word only."""
    if not trigger_word:
        return []
    lack = [name for name in names if not calls(written.get(name, ""), trigger_word)]
    inside = "only inside another word"
    remarks = {name: inside if folded(trigger_word) in folded(written.get(name, "")) else "" for name in lack}
    message = f"The trigger word {trigger_word!r} is written in {len(names) - len(lack)} of {len(names)} captions."
    advice = "Training puts it in front of the others; nothing needs to be done."
    return found(TRIGGER_WORD, NOTE, remarks, message.replace("{", "{{").replace("}", "}}"), advice)


def trigger_alone(names: Mapping[str, str], trigger_word: str | None) -> list[Finding]:
    """The pictures (name -> "") that training calls by the trigger word and nothing else."""
    word = str(trigger_word).replace("{", "{{").replace("}", "}}")
    advice = "Describe what is seen, unless that is meant: what no word names becomes part of the trigger word."
    return found(TRIGGER_ALONE, WARNING, names, f"{{n}} without a caption but the trigger word '{word}'.", advice)


def check_captions(captions: Captions) -> list[Finding]:
    """Everything about captions that needs no tokenizer."""
    findings = [*empty_captions(captions), *same_captions(captions), *file_name_captions(captions)]
    return findings + single_captions(captions)
