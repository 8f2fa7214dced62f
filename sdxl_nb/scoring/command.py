"""python -m sdxl_nb.score: every stage of a run scored, from the command line.

    python -m sdxl_nb.score output/mine
    python -m sdxl_nb.score output/mine --prompts prompts.txt --seeds 8 --gate gate.toml

In: a run folder and flags. Out: a table on stdout, and the exit status: 0, 1 when the gate says that the LoRA falls
short, 2 for whatever else is wrong, in one sentence on stderr.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config.prompts import read_prompts
from ..system.errors import ConfigError, SdxlNbError


def main(argv: Sequence[str] | None = None) -> int:
    """Score as argv says; returns the exit status."""
    given = parser().parse_args(argv)
    try:
        return _score(given)
    except (SdxlNbError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on where it stopped.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(prog="python -m sdxl_nb.score", description="Score every stage of a run.")
    made.add_argument("run", help="output_dir of a run, an s3:// prefix, or a SageMaker job")
    made.add_argument("--prompt", nargs="+", metavar="TEXT", help="prompts to draw; the run's own if not given")
    made.add_argument("--prompts", metavar="FILE", help="a text file of prompts, one a line")
    made.add_argument("--plain", nargs="+", metavar="TEXT", help="prompts that the LoRA should leave as they were")
    made.add_argument("--seeds", type=int, default=4, metavar="N", help="seeds 0 to N-1 of each prompt (4)")
    made.add_argument("--image_encoder", metavar="NAME", help="hub id or folder of a CLIP, SigLIP or DINOv2; pixels")
    made.add_argument("--text_encoder", metavar="NAME", help="hub id or folder of a CLIP or SigLIP")
    made.add_argument("--aesthetic", metavar="FILE", help="a .safetensors of linear layers on the text encoder")
    made.add_argument("--scorer", nargs="+", default=[], metavar="MODULE:FUNCTION", help="a scorer of your own")
    made.add_argument("--metric", nargs="+", metavar="NAME", help="measure these alone")
    made.add_argument("--by", nargs="+", metavar="NAME", help="metrics that choose the best")
    made.add_argument("--gate", metavar="FILE", help="thresholds, TOML or JSON: exit status 1 where one is missed")
    made.add_argument("--json", metavar="FILE", help="write means, intervals and the choice")
    return made


def _score(given: argparse.Namespace) -> int:
    from .run_scores import score_run

    scores = score_run(given.run, **_options(given), progress=sys.stderr.isatty(), say=_say)
    print(scores)
    if given.json:
        Path(given.json).write_text(json.dumps(scores.as_json(), indent=1) + "\n", encoding="utf-8")
    return 1 if scores.shortfalls else 0


def _options(given: argparse.Namespace) -> dict[str, Any]:
    if given.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, not {given.seeds}")
    prompts = [*(given.prompt or []), *(_lines(given.prompts) if given.prompts else [])]
    return {
        "prompts": prompts or None,
        "plain": given.plain,
        "seeds": range(given.seeds),
        "image_encoder": given.image_encoder,
        "text_encoder": given.text_encoder,
        "aesthetic": given.aesthetic,
        "scorers": given.scorer,
        "metrics": given.metric,
        "by": given.by,
        "gate": given.gate,
    }


def _lines(file: str) -> list[str]:
    """The prompts of a text file, without the options that sample prompts have; scores draw all alike."""
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts {file} cannot be read as text: {error}") from error
    try:
        found = read_prompts(text.splitlines())
    except ValueError as error:
        raise ConfigError(f"--prompts {file}: {error}") from None
    if not found:
        raise ConfigError(f"--prompts {file} holds no prompt: write one a line")
    if any(prompt.line() != prompt.prompt for prompt in found):
        _say(f"Note: the options of the prompts in {file} are left out: scores draw all prompts alike.")
    return list(dict.fromkeys(prompt.prompt for prompt in found))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
