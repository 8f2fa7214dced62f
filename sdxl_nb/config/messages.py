"""Sentences about wrong settings.

In: names of settings, or pydantic's ValidationError. Out: ConfigError with one sentence for the user, and in its
`problems` every wrong field with its own sentence, for a form that shows them beside the fields.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from ..system.errors import ConfigError

NO_TOKEN = "hub_token is not taken, because it would end up in logs and files: set HF_TOKEN in the environment instead"

SENTENCES = {  # pydantic's error type: what follows "NAME must be ..."
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text (in a YAML file, put it in quotes)",
    "string_unicode": "valid Unicode text",
    "list_type": "text or a list of texts",
    "dict_type": "a JSON object",
    "literal_error": "{expected}",
}


def wrong(field: str, sentence: str) -> PydanticCustomError:
    """The error for a validator to raise: a whole sentence about this field."""
    return PydanticCustomError("sentence", "{sentence}", {"field": field, "sentence": sentence})


def refusal(error: ValidationError) -> ConfigError:
    """ConfigError with the first problem as its message and all of them in `problems`."""
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        field, sentence = explain(detail)
        problems.setdefault(field, sentence)
    refused = ConfigError(next(iter(problems.values())))
    refused.problems = problems
    return refused


def explain(detail: ErrorDetails) -> tuple[str, str]:
    """Field and sentence of one of pydantic's error details."""
    context = detail.get("ctx", {})
    field = context.get("field") or str(detail["loc"][0])
    if detail["type"] == "sentence":
        return field, context["sentence"].replace("{field}", field)
    if detail["input"] is None:
        place = field if len(detail["loc"]) == 1 else f"a value of {field}"
        return field, f"{place} must not be null: leave it out for the default, or give a value"
    template = SENTENCES.get(detail["type"])
    if template is None:
        return field, f"{field} cannot be {shown(detail['input'])}: {detail['msg']}"
    context = {key: int(bound) if bound in (0.0, 1.0) else bound for key, bound in context.items()}
    bound = detail["type"].startswith(("greater", "less"))  # then the input is a number, perhaps written as text
    value = str(detail["input"]) if bound else shown(detail["input"])
    return field, f"{field} must be {template.format(**context).replace(chr(39), '')}, not {value}"


def shown(value: Any) -> str:
    """A value as the user wrote it, shortened to one line."""
    value_text = repr(value)
    return value_text if len(value_text) <= 60 else value_text[:57] + "..."


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """The valid name most like this one, or an empty text."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return close[0] if close else ""


def unknown(
    name: str,
    names: Iterable[str],
    *,
    kind: str = "setting",
    prefix: str = "",
    where: str = "",
    advice: str = "python -m sdxl_nb.train --help lists them all",
) -> ConfigError:
    """The error for a name that does not exist."""
    if name == "hub_token":
        return ConfigError(NO_TOKEN)
    close = nearest(name.replace("-", "_"), names)
    if close:
        advice = f"did you mean {prefix}{close}?"
    refused = ConfigError(f"unknown {kind} {prefix}{name}{where}: {advice}")
    refused.problems = {name: str(refused)}
    return refused


def check_names(values: Iterable[Any], names: Iterable[str], *, where: str = "") -> None:
    """Raise ConfigError for the first name that is not one of names."""
    names = set(names)
    for name in values:
        if name not in names:
            raise unknown(str(name), sorted(names), where=where)
