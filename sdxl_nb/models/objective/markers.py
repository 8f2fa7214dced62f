"""What one checkpoint file says of its objective: marker tensors, and its header.

In: a Source of one file. Out: a Statement: what of a scheduler's configuration it decides, and who says so. The markers
are those that ComfyUI, AUTOMATIC1111 and Forge read (comfy/supported_models.py, AUTOMATIC1111 #16567): `v_pred` and
`ztsnr` of NoobAI's kind, `edm_mean` and `edm_std` of Playground 2.5, `edm_vpred.sigma_max` of CosXL.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ...system.errors import ModelError
from ..sources import Source, opened
from .latent_scaling import LatentScaling

V_MARKER, ZERO_MARKER = "v_pred", "ztsnr"
EDM_MARKERS = ("edm_mean", "edm_std")
COSXL_MARKERS = ("edm_vpred.sigma_max", "edm_vpred.sigma_min")
EPSILON, SAMPLE, V = ({"prediction_type": kind} for kind in ("epsilon", "sample", "v_prediction"))
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
PLAYGROUND = {"_class_name": "EDMDPMSolverMultistepScheduler"}  # whose defaults are Playground's: 0.002 to 80
COSXL = {"_class_name": "EDMEulerScheduler", "sigma_data": 1.0, "sigma_schedule": "exponential", **V}
PLAYGROUND_FACTOR = 0.5
PLAYGROUND_MEAN = (-1.6574, 1.886, -1.383, 2.5155)  # its vae/config.json
PLAYGROUND_STD = (8.4927, 5.9022, 6.5498, 5.2299)
HEADERS = ("modelspec.prediction_type", "modelspec.predict_key")  # ModelSpec's, and ComfyUI's own
SPELLINGS = (  # of what a header says, without hyphens and blanks
    (EPSILON, ("eps", "epsilon", "epsilonprediction")),
    (V, ("v", "vpred", "vprediction", "velocity")),
    (FLOW, ("flow", "flowprediction", "flowmatching", "rectifiedflow", "rf")),
    (SAMPLE, ("sample", "x0", "x0prediction")),
)


@dataclass(frozen=True)
class Statement:
    """Fields of a scheduler's configuration (with `_class_name` all that it is), latents if they are said, and who."""

    scheduler: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    latents: LatentScaling | None = None
    remarks: tuple[str, ...] = ()


def in_file(source: Source) -> Statement:
    """What the file says; markers go before the header. ModelError for a file that is none."""
    with opened(source.location, source.name, "pt") as file:
        header = file.metadata() or {}
        names = {*EDM_MARKERS, *COSXL_MARKERS, V_MARKER, ZERO_MARKER} & set(file.keys())
        values = {name: file.get_tensor(name).float().flatten().tolist() for name in names}
    stated = next((header[name] for name in HEADERS if header.get(name)), None)
    return _marked(values, stated) or _headed(source, stated, values)


def _marked(values: Mapping[str, list[float]], header: str | None) -> Statement | None:
    """What marker tensors say, if there are any."""
    if values.keys() >= set(EDM_MARKERS):
        mean, std = (tuple(values[name]) for name in EDM_MARKERS)
        known = len(mean) == len(std) == 4
        latents = LatentScaling(PLAYGROUND_FACTOR, mean if known else PLAYGROUND_MEAN, std if known else PLAYGROUND_STD)
        return Statement(PLAYGROUND, "its tensors edm_mean and edm_std say so", latents)
    if COSXL_MARKERS[0] in values:
        sigmas = {name.partition(".")[2]: values[name][0] for name in COSXL_MARKERS if values.get(name)}
        return Statement({**COSXL, "sigma_max": 120.0, **sigmas}, f"its tensor {COSXL_MARKERS[0]} says so")
    if V_MARKER not in values:
        return None
    zero = ZERO_MARKER in values
    why = f"its tensors {V_MARKER} and {ZERO_MARKER} say so" if zero else f"its tensor {V_MARKER} says so"
    remarks = []
    if header and _spelled(header) != V:
        remarks.append(f"Its header says {header[:40]!r} all the same: the tensor {V_MARKER} is believed.")
    return Statement({**V, **(ZERO if zero else {})}, why, None, tuple(remarks))


def _headed(source: Source, stated: str | None, values: Mapping[str, list[float]]) -> Statement:
    """What the header says, and where it says nothing that it is SDXL's usual epsilon."""
    remarks, found = [], _spelled(stated) if stated else {}
    zero = ZERO if ZERO_MARKER in values and found == V else {}
    if ZERO_MARKER in values and not zero:
        remarks.append(
            f"{source.name} has the tensor {ZERO_MARKER} without {V_MARKER}: zero terminal SNR belongs to v-prediction "
            "and is left out, as ComfyUI does; give --prediction_type v_prediction --rescale_betas_zero_snr if it is "
            "that."
        )
    if stated is None:
        if re.search(r"v[-_ ]?pred", PurePath(source.name).name, re.IGNORECASE):
            remarks.append(
                f"{source.name} is called a v-prediction model, but nothing in it says so: it is trained as epsilon; "
                "give --prediction_type v_prediction if it is one."
            )
        return Statement({}, "SDXL's own way, for the file says nothing else", None, tuple(remarks))
    if found is None:
        raise ModelError(
            f"{source.name} says in its header that it predicts {stated[:40]!r}, which is unknown: give a base that "
            "predicts epsilon, v or the flow."
        )
    return Statement({**found, **zero}, f"its header says {stated[:40]}", None, tuple(remarks))


def _spelled(stated: str) -> Mapping[str, Any] | None:
    text = re.sub(r"[-_ ]", "", stated.lower())
    return next((fields for fields, spellings in SPELLINGS if text in spellings), None)
