"""The command line of TrainConfig, and the page of it, docs/flags.md: `python -m sdxl_nb.flags` prints the page.

In: argv. Out: a TrainConfig (`read_flags`), or ConfigError with one sentence. One flag for each field, under the
field's own name; --no_NAME turns a switch off, --NAME= sets null, and a list is given as several values or flags.
Every value is handed to TrainConfig as text, so that flags and files share their conversions, bounds and sentences.
"""

import argparse
import functools
from collections.abc import Sequence
from typing import Any, NoReturn

from ..system.errors import ConfigError
from ..system.remarks import on_stderr
from . import presets
from .fields import about
from .messages import unknown
from .train_config import TrainConfig

WORDS = {  # JSON type of a field: how the table says it, the most telling first
    "boolean": "switch",
    "array": "one or several texts",
    "object": "JSON",
    "integer": "whole number",
    "number": "number",
    "string": "text",
}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
PAGE = """\
# Every flag

Each is a field of `TrainConfig`, and a setting of the form, of a saved file and of a SageMaker job by the same name.
This page is made by `python -m sdxl_nb.flags > docs/flags.md`; a test compares them.
"""


class Parser(argparse.ArgumentParser):
    """argparse that raises ConfigError instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        flag = message.removeprefix("argument ").split(":")[0].split("/")[0]
        if "expected" in message:
            raise ConfigError(f"{flag} needs a value; one that starts with a dash is written {flag}=-VALUE")
        if "explicit argument" in message:
            raise ConfigError(f"{flag} takes no value: write {flag} alone")
        raise ConfigError(message)


def train_parser(prog: str, description: str) -> Parser:
    """A parser with every flag of TrainConfig, --preset and --config; a program may add flags of its own."""
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--preset", metavar="NAME", help=f"start from a preset: {', '.join(presets.names())}")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="start from a saved configuration: JSON, YAML, a LoRA .safetensors of ours, or another trainer's file",
    )
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # old launchers add it; LOCAL_RANK is what counts
    types = TrainConfig.json_types()
    sections: dict[str, Any] = {}
    for name, field in TrainConfig.model_fields.items():
        group = about(field)["group"]
        section = sections.get(group) or sections.setdefault(group, parser.add_argument_group(group))
        add_flag(section, name, types[name], f"{field.description} Default: {_default(field.default)}.")
    return parser


def add_flag(section: Any, name: str, types: set[str], sentence: str) -> None:
    """Add the flag of one field, by the JSON types it takes; a flag that is not given leaves no value."""
    common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
    sentence = sentence.replace("%", "%%")
    if "boolean" in types:
        section.add_argument(f"--{name}", nargs="?", const=True, metavar="true|false", help=sentence, **common)
        section.add_argument(f"--no_{name}", f"--no-{name}", action="store_false", help=argparse.SUPPRESS, **common)
    elif "array" in types:
        section.add_argument(f"--{name}", nargs="+", action="extend", metavar="VALUE", help=sentence, **common)
    else:
        section.add_argument(f"--{name}", metavar="VALUE", help=sentence, **common)


def read_flags(parser: Parser, argv: Sequence[str] | None = None) -> tuple[TrainConfig, argparse.Namespace]:
    """The configuration that argv asks for, and all parsed values for the program's own flags. Raises ConfigError."""
    namespace, rest = parser.parse_known_args(argv)
    if rest:
        raise _unknown(rest[0], parser)
    types = TrainConfig.json_types()
    given = {name: value for name, value in vars(namespace).items() if name in types}
    flags = {name: _value(value, types[name]) for name, value in given.items()}
    with on_stderr():
        return TrainConfig.build(flags=flags, file=namespace.config, preset=namespace.preset), namespace


def _value(value: Any, types: set[str]) -> Any:
    """An empty value is null where the field has a null."""
    return None if "null" in types and value in ("", [""]) else value


def _unknown(argument: str, parser: Parser) -> ConfigError:
    """The error for an argument that no flag takes; only the name of a flag is repeated, its value may be secret."""
    if not argument.startswith("-"):
        return ConfigError("a value stands alone, without a flag before it: put quotes around values with spaces")
    names = [option.removeprefix("--") for option in parser._option_string_actions if option.startswith("--")]
    return unknown(argument.split("=")[0].lstrip("-"), names, kind="flag", prefix="--")


def _default(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


@functools.cache
def _properties() -> dict[str, Any]:
    """The schema of every field; made anew for each of them it took five seconds."""
    properties: dict[str, Any] = TrainConfig.model_json_schema()["properties"]
    return properties


def allowed(name: str) -> str:
    """What a field takes, in a few words: its choices, or its type and bounds."""
    field = TrainConfig.model_fields[name]
    schema = _properties()[name]
    for part in schema.get("anyOf", [schema]):
        if "enum" in part:
            return ", ".join(part["enum"])
    kind = next(word for kind, word in WORDS.items() if kind in TrainConfig.json_types()[name])
    return " ".join([kind, ", ".join(_bounds(field.metadata))]).strip()


def _bounds(metadata: Sequence[Any]) -> list[str]:
    return [f"{sign} {getattr(bound, at)}" for bound in metadata for at, sign in SIGNS.items() if hasattr(bound, at)]


def render_page() -> str:
    """docs/flags.md: the tables and what is said above them."""
    return f"{PAGE}\n{render_table()}"


def render_table() -> str:
    """Tables of the flags in Markdown, one for each group."""
    lines: list[str] = []
    group = ""
    for name, field in TrainConfig.model_fields.items():
        if about(field)["group"] != group:
            group = about(field)["group"]
            lines += [
                "",
                f"## {group[0].upper()}{group[1:]}",
                "",
                "| flag | default | takes | meaning |",
                "|---|---|---|---|",
            ]
        cells = (f"`--{name}`", f"`{_default(field.default)}`", allowed(name), field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines).strip() + "\n"
