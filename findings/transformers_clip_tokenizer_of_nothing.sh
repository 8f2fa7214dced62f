#!/usr/bin/env bash
# transformers makes a CLIP tokenizer of a folder without any vocabulary: two tokens, every word unknown, no error.
#
# transformers 5.23.0. A model's folder whose tokenizer has its tokenizer_config.json alone (a download that was cut short,
# or one by patterns that left tokenizer.json, vocab.json and merges.txt out), or that has no tokenizer folder at all:
# CLIPTokenizer.from_pretrained gives a tokenizer with <|startoftext|> and <|endoftext|>, so that all prompts are one and the
# same. A vocab.json without merges.txt does raise. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=warning
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
import warnings
from pathlib import Path

import transformers
from transformers import CLIPTokenizer

warnings.simplefilter("error")
place = Path(sys.argv[1]) / "model"
(place / "tokenizer").mkdir(parents=True)
about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "unk_token": "<|endoftext|>"}
(place / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(about))
print(f"transformers {transformers.__version__}")
for part in ("tokenizer", "tokenizer_2"):  # the second has no folder
    made = CLIPTokenizer.from_pretrained(place, subfolder=part, local_files_only=True)
    red, cat = made("red").input_ids, made("cat").input_ids
    print(f"{part}: {len(made)} tokens; 'red' is {red}, 'cat' is {cat}")
    assert len(made) == 2 and red == cat
(place / "tokenizer" / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}))
try:
    CLIPTokenizer.from_pretrained(place, subfolder="tokenizer", local_files_only=True)
except ValueError as error:
    print(f"vocab.json without merges.txt: ValueError, {error}")
else:
    raise AssertionError("a vocabulary without merges was taken")
print("as described: no vocabulary at all is the one that nothing says")
PYTHON
