"""Make the two CLIP tokenizers of the tiny SDXL: byte-level BPE with a vocabulary of about a thousand.

Every byte has a token, so any text can be written; the words of our scenes, and common words of captions, are one
or two tokens each.
"""

import json
import random
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .architecture import MAX_TOKENS
from .draw import COLOURS, POSITIONS, SHAPES, SIZES, STYLES, TEXTURES, caption, random_scene

VOCABULARY = 1024  # at most; the words run out before
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
COMMON = (
    "the of in with at to from by for over under behind two three small big old young light dark bright photo "
    "photograph portrait painting illustration style cute man woman person people girl boy child face hair "
    "eyes hat dress dog cat bird horse dragon flower tree trees leaf grass forest mountain river sea water sky "
    "cloud sun night day street city building car boat table chair cup book window door wall room stone wood "
    "paper glass metal standing sitting looking holding wearing front side view close up centre middle "
    "detailed simple shiny round long tall sign line lines grid cartoon icon"
)


def words(count: int = 4000) -> Counter:
    """How often each word occurs in captions of random scenes; common English words count a little."""
    rng = random.Random(0)
    counts = Counter(word for _ in range(count) for word in caption(random_scene(rng), rng).replace(",", " ,").split())
    named = " ".join([*SHAPES, *COLOURS, *TEXTURES, *SIZES, *POSITIONS, *STYLES, "an to the left of right below"])
    for word in named.split():
        counts[word] += 200
    for word in COMMON.split():
        counts[word] += 60
    return counts


def byte_pair_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's layout: 256 bytes, 256 bytes that end a word, merged tokens, start and end of text."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(([word] * count for word, count in sorted(words().items())), trainer)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(a + "</w>" for a in alphabet)]
    room = VOCABULARY - len(tokens) - 2
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]][:room]
    tokens += [a + b for a, b in merges] + [BOS, EOS]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges


def save_tokenizers(folder: Path) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """Write `tokenizer/` and `tokenizer_2/` with all the files that transformers 4 and 5 look for."""
    vocab, merges = byte_pair_vocabulary()
    made = []
    for name, pad in (("tokenizer", EOS), ("tokenizer_2", "!")):  # SDXL's second tokenizer pads with "!"
        tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=MAX_TOKENS)
        tokenizer.save_pretrained(folder / name)
        (folder / name / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
        (folder / name / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad}
        (folder / name / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
        config = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": MAX_TOKENS,
            "do_lower_case": True,
            "errors": "replace",
            **special,
        }
        (folder / name / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
        made.append(CLIPTokenizer.from_pretrained(folder / name))
    return made[0], made[1]
