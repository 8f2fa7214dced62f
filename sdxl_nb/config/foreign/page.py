"""docs/other-trainers.md: what becomes of every setting of other trainers, from the tables that read them.

In: the tables. Out: Markdown. `python -m sdxl_nb.flags --other_trainers` prints the page.
"""

from collections.abc import Mapping

from .ai_toolkit import AI_TOOLKIT
from .diffusers import DIFFUSERS
from .keys import Key
from .kohya_keys import KOHYA
from .onetrainer_keys import ONETRAINER
from .simpletuner import SIMPLETUNER

PAGE = """\
# Configurations of other trainers

`--config FILE` and `TrainConfig.load("FILE")` read the settings of kohya's sd-scripts, kohya_ss, OneTrainer, ai-toolkit
and SimpleTuner as they are, and a shell file with the command line of one of diffusers' SDXL scripts:

    python -m sdxl_nb.train --config old.toml
    python -m sdxl_nb.train --config train_dog.sh
    python -m sdxl_nb.train --config old.json --train_data_dir pictures --output_dir run

A file is known by its keys. What it says is taken with that program's meaning and that program's defaults; flags beside
it count before it. For each setting that has no effect here, or another meaning, a run says one sentence on stderr
(`TrainConfig.load` warns); a key that nobody knows is named, and an optimizer, a schedule or a model that there is not
is an error. Nothing that a file names is imported or run: optimizers and their arguments are taken from fixed lists.
Publishing, tokens and keys are never taken over. `config.save("run.json")` keeps the result as a file of ours.

Files that list *pictures* (kohya's data set TOML, OneTrainer's `concepts.json`, SimpleTuner's `multidatabackend.json`)
are given to `--train_data_dir`: [data files](data-files.md).

This page is made by `python -m sdxl_nb.flags --other_trainers > docs/other-trainers.md`; a test compares them.
"""
TABLES: dict[str, tuple[str, Mapping[str, Key]]] = {
    "kohya's sdxl_train_network.py": (
        "Every flag of its parser. A TOML file may have sections, which mean nothing. kohya_ss's JSON has the same "
        "settings; there `optimizer` is optimizer_type, `max_resolution` is resolution, `epoch` counts where "
        "max_train_epochs is empty, `lr_warmup` is a percentage, and 0 or an empty text is nothing.",
        KOHYA,
    ),
    "OneTrainer's configuration": (
        "Every setting of its defaults; parts of the configuration by dotted names. A preset says only what differs.",
        ONETRAINER,
    ),
    "ai-toolkit's jobs": (
        "Settings of the job's one process, by dotted names; `datasets` is one folder.",
        AI_TOOLKIT,
    ),
    "SimpleTuner's configuration": (
        "Names with dashes before them are the same. What is about other models than SDXL is not listed, and is called "
        "unknown.",
        SIMPLETUNER,
    ),
    "command lines of diffusers' scripts": (
        "In a shell file (.sh, .txt, .ps1, .bat, .cmd) the first command line of `train_text_to_image_lora_sdxl.py`, "
        "`train_dreambooth_lora_sdxl.py` or `train_dreambooth_lora_sdxl_advanced.py` is read, or of kohya's "
        "`sdxl_train_network.py`; variables are those that the file sets. Defaults are the script's.",
        DIFFUSERS,
    ),
}


def render() -> str:
    """The page."""
    return PAGE + "".join(_table(title, said, keys) for title, (said, keys) in TABLES.items())


def _table(title: str, said: str, keys: Mapping[str, Key]) -> str:
    rows = "".join(_row(name, key) for name, key in keys.items())
    head = f"\n## {title[0].upper()}{title[1:]}\n\n{said}\n"
    return f"{head}\n| setting | usual | here | remark |\n|---|---|---|---|\n{rows}"


def _row(name: str, key: Key) -> str:
    usual = "" if key.usual is None else f"`{str(key.usual).lower() if isinstance(key.usual, bool) else key.usual}`"
    here = " ".join(f"`{ours}`" for ours in key.ours.split()) or "–"
    return f"| `{name}` | {usual} | {here} | {key.why} |\n"
