"""The kinds of value that a setting can have, and the groups that settings are shown in.

In: pydantic. Out: annotated types (Text, Whole, Number, ...) and one field maker for each group; settings/ lists the
settings themselves.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from .checks import (
    background,
    image_columns,
    loras,
    modules,
    not_bool,
    one_or_two,
    optimizer,
    optimizer_args,
    patterns,
    prompts,
    rates,
    samples,
    text,
    two_numbers,
    weights,
    yaml_no,
)

MANY = 10**9  # more than any run needs, few enough for every counter

Text = Annotated[str, AfterValidator(text)]
Whole = Annotated[int, BeforeValidator(not_bool)]
Number = Annotated[float, BeforeValidator(not_bool), Field(allow_inf_nan=False)]
Prompts = Annotated[list[Text] | None, BeforeValidator(prompts)]
Samples = Annotated[list[Text] | None, BeforeValidator(samples)]
Loras = Annotated[list[Annotated[Text, AfterValidator(loras)]] | None, BeforeValidator(prompts)]
Modules = Annotated[str | list[str], BeforeValidator(modules)]
Mapped = Annotated[dict[Text, dict[str, Text]] | None, BeforeValidator(image_columns)]
Ranks = Annotated[
    dict[Text, Annotated[int, BeforeValidator(not_bool), Field(ge=1, le=1024)]] | None, BeforeValidator(patterns)
]
Alphas = Annotated[
    dict[Text, Annotated[float, BeforeValidator(not_bool), Field(gt=0, allow_inf_nan=False)]] | None,
    BeforeValidator(patterns),
]
Rates = Annotated[
    dict[Text, Annotated[float, BeforeValidator(not_bool), Field(ge=0, le=10, allow_inf_nan=False)]] | None,
    BeforeValidator(rates),
]
EncoderRates = Annotated[
    list[Annotated[float, BeforeValidator(not_bool), Field(ge=0, le=10, allow_inf_nan=False)]] | None,
    BeforeValidator(one_or_two),
]
TwoNumbers = Annotated[
    list[Annotated[float, BeforeValidator(not_bool), Field(ge=-100, le=100, allow_inf_nan=False)]] | None,
    BeforeValidator(two_numbers),
]
FolderWeights = Annotated[
    dict[Text, Annotated[float, BeforeValidator(not_bool), Field(ge=0, allow_inf_nan=False)]] | None,
    BeforeValidator(weights),
]
Colour = Annotated[Text, AfterValidator(background)]
Precision = Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(yaml_no)]
Optimizer = Annotated[Text, AfterValidator(optimizer)]
Arguments = Annotated[list[Text] | None, BeforeValidator(optimizer_args)]
Schedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "warmup_stable_decay",
    "rex",
]
Interpolation = Literal["nearest", "nearest_exact", "bilinear", "bicubic", "box", "hamming", "lanczos"]
Tracker = Literal["tensorboard", "wandb", "mlflow", "comet_ml", "all", "none"]


def group(name: str) -> Callable[..., Any]:
    """A field of this group; weights=False marks a field that cannot change the trained weights.

    later=True marks one that came after the first runs, which trained as its default says: only another value is part
    of a run's identity, so that the fingerprints of those runs stay, and they can be resumed.
    """

    def field(default: Any, sentence: str, *, weights: bool = True, later: bool = False, **bounds: Any) -> Any:
        extra: JsonDict = {"group": name, "weights": weights, "later": later}
        return Field(default, description=sentence, json_schema_extra=extra, **bounds)

    return field


def about(field: FieldInfo) -> Mapping[str, Any]:
    """What `group` noted of a field: its `group`, and whether it can change the `weights`."""
    noted = field.json_schema_extra
    return noted if isinstance(noted, dict) else {}


data, training, lora = group("model & data"), group("training"), group("LoRA")
optimization, memory = group("optimization"), group("memory")
validation, log = group("validation"), group("logging")


def schema_types(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types in one property's schema; those of a list's items count too."""
    parts = [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]
    return (
        {schema["type"]}.union(*map(schema_types, parts))
        if "type" in schema
        else set().union(*map(schema_types, parts))
    )
