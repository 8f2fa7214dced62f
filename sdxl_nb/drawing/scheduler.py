"""The scheduler that LoRAs are drawn with: their base's own, told what their headers say they were trained for.

In: the headers of LoRA files and a pipeline's scheduler. Out: a scheduler. A header's settings are believed where they
say something else than the base does; what another program merely notes of its base is compared, and said.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.header import Objective, objective_flags
from ..config.prompts import SAMPLERS
from ..models.objective.base_objective import FLOW, configuration, made, with_flags
from ..system.errors import ConfigError

SPELLED = {"v": "v_prediction", "eps": "epsilon", "flow_prediction": "flow"}  # ModelSpec's words, and diffusers'


def scheduler_for(headers: Sequence[Mapping[str, str]], own: Any) -> Any:
    """`own`, or one that draws as the LoRAs were trained. ConfigError where they were trained for different things."""
    flags = {found for header in headers if (found := objective_flags(header))}
    if len(flags) > 1:
        raise ConfigError("generate: these LoRAs were trained to predict different things: draw with one at a time.")
    if flags:
        return redrawn(own, next(iter(flags)))
    predicted = "flow" if type(own).__name__ in FLOW else own.config.get("prediction_type", "epsilon")
    predicted = SPELLED.get(predicted, predicted)
    for header in headers:
        said = header.get("modelspec.prediction_type") or predicted
        said = SPELLED.get(said, said)
        if (
            said in ("epsilon", "v_prediction", "flow")
            and said != predicted
            and not type(own).__name__.startswith("EDM")
        ):
            warnings.warn(
                f"The LoRA was trained on a base that predicts {said}, and this one predicts {predicted}: it is drawn "
                "as this base is; draw with the base that it was trained on.",
                stacklevel=4,
            )
    return own


def sampled_by(own: Any, sampler: str) -> Any:
    """A scheduler by its name among `SAMPLERS`, of the same noise schedule as `own`. ConfigError where it has none."""
    if type(own).__name__ in FLOW or type(own).__name__.startswith("EDM"):
        raise ConfigError(f"--ss {sampler} is for bases that predict noise or velocity: leave it out for this base")
    name, told = SAMPLERS[sampler]
    return made({**configuration(own), **told, "_class_name": name})


def redrawn(own: Any, flags: Objective) -> Any:
    """A scheduler of the same kind that draws as these settings say."""
    wanted = with_flags(configuration(own), flags.prediction_type, flags.rescale_betas_zero_snr, flags.flow_shift)
    if wanted["_class_name"] == type(own).__name__ and wanted["_class_name"] not in FLOW:
        return type(own).from_config(wanted)
    return made(wanted)
