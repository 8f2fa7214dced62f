"""What a base was trained to predict: read once from what it says of itself, and believed by all that use it.

In: a Source, and the settings that say otherwise. Out: a BaseObjective, or ModelError with one sentence for what cannot
be trained. Who says it, by rank: the user's flags; of one file its marker tensors, then its header; the configuration
of the scheduler, whatever its class; and of latents the VAE's. Training, class pictures, validation, `generate`, the
playground, a LoRA's header and the card ask here and nowhere else.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...config.train_config import TrainConfig
from ...system.errors import ConfigError, ModelError
from ..inpainting import inpaints
from ..lock import ALONE
from ..quiet import hushed
from ..refusals.kinds import check_base
from ..sources import Source, find, locate, read_json, vae_subfolder
from .latent_scaling import LatentScaling
from .markers import ZERO, Statement, in_file

SCHEDULER = "scheduler/scheduler_config.json"
SCHEDULE = {"beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type"}
DISCRETE = {  # diffusers' schedulers of the schedule that DDPM has: alpha_bar at a thousand timesteps
    *("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("DPMSolverSDEScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"),
    *("LCMScheduler", "TCDScheduler"),
}
EDM = {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"}
FLOW = {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"}
FLOW_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
FEW_STEPS = {"LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler"}
INPAINTING = (
    "This base inpaints: each step hides another part of each picture, so pictures are encoded anew at each step and "
    "the VAE stays in memory, whatever cache_latents says. Prompts are drawn as if all of the picture were to be "
    "painted."
)
WORDS = {
    "epsilon": "predicts the noise (epsilon)",
    "v_prediction": "predicts v",
    "edm": "is an EDM model",
    "flow": "predicts the flow (rectified flow)",
}


@dataclass(frozen=True)
class BaseObjective:
    """A base's objective: `prediction` is epsilon, v_prediction, edm or flow.

    `scheduler` is the complete configuration of the diffusers scheduler, `_class_name` among it, that it draws with;
    `zero_snr` says that its last timestep has no signal; `latents` how the VAE's latents become the U-Net's;
    `zeros_for_empty` that an empty prompt is zeros, not encoded; `inpaints` that the U-Net takes a mask and the masked
    picture too. `why` tells who said so, `remarks` what to know.
    """

    prediction: str
    scheduler: Mapping[str, Any]
    zero_snr: bool
    latents: LatentScaling
    zeros_for_empty: bool
    why: str
    remarks: tuple[str, ...] = ()
    inpaints: bool = False

    @property
    def flow_shift(self) -> float:
        """The shift of a flow's timesteps."""
        return float(self.scheduler.get("flow_shift", self.scheduler.get("shift", 1.0)))

    def __str__(self) -> str:
        """One line for people."""
        zero = " with zero terminal SNR" if self.zero_snr else ""
        task = " and inpaints" if self.inpaints else ""
        draws = f"It draws with {self.scheduler['_class_name']}."
        return f"The base {WORDS[self.prediction]}{zero}{task}: {self.why}. {draws}"


def of_config(config: TrainConfig) -> BaseObjective:
    """The objective that a run trains: its base's, with the settings that say otherwise."""
    flags = (config.prediction_type, config.rescale_betas_zero_snr, config.flow_shift)
    return of(Source.of(config), *flags)


def of(
    source: Source,
    prediction: str | None = None,
    rescale_zero_snr: bool = False,
    flow_shift: float | None = None,
) -> BaseObjective:
    """The objective of a base, and what `prediction`, `rescale_zero_snr` and `flow_shift` make of it.

    Raises ModelError for a base that cannot be trained, ConfigError for settings that do not fit it.
    """
    check_base(source)
    found, said = _stated(source)
    latents, remarks = _latents(source, said), list(said.remarks)
    index = source.config("model_index.json") or {}
    objective = _described(source, found, said.why or f"its {SCHEDULER} says so", latents, index, remarks)
    if prediction == "flow" or objective.prediction == "flow":
        return _as_flow(source, objective, prediction, rescale_zero_snr, flow_shift)
    return _overridden(source, objective, prediction, rescale_zero_snr)


def _stated(source: Source) -> tuple[dict[str, Any], Statement]:
    """The scheduler's complete configuration, and what one file says that has made it so."""
    index = source.config("model_index.json") or {}
    found = source.config(SCHEDULER)
    if found is None:
        raise ModelError(f"{source.name} has no {SCHEDULER}: give a whole SDXL model.")
    said = in_file(source) if source.is_single_file else Statement()
    if said.scheduler.get("_class_name"):
        found = {}
    elif "_class_name" not in found:
        found = {**found, "_class_name": (index.get("scheduler") or [None, None])[1]}
    return complete(source.name, {**found, **said.scheduler}), said


def complete(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration with its class's own defaults for what it does not say. ModelError if unknown."""
    kind = str(config.get("_class_name"))
    if kind not in DISCRETE | EDM | FLOW:
        raise ModelError(
            f"{name} draws with {kind}, a scheduler that cannot be trained for here: give a base with one of DDPM's "
            "schedule, EDM or flow matching."
        )
    if kind in DISCRETE and config.keys() >= SCHEDULE:
        return dict(config)
    return configuration(made(config))


def configuration(scheduler: Any) -> dict[str, Any]:
    """A live scheduler's whole configuration, `_class_name` among it.

    Without diffusers' list of the fields that nobody gave: those would be defaults again, whatever is put in them.
    """
    fields = {name: value for name, value in scheduler.config.items() if name != "_use_default_values"}
    return {**fields, "_class_name": type(scheduler).__name__}


def made(config: Mapping[str, Any]) -> Any:
    """A diffusers scheduler of this configuration, of its own class."""
    with hushed(), ALONE:
        theirs = getattr(importlib.import_module("diffusers"), str(config["_class_name"]))
        scheduler = theirs.from_config(dict(config))
    if config["_class_name"] in FLOW:  # SDXL's pipeline asks for both, and a flow's latents are what they are
        scheduler.init_noise_sigma = 1.0
        scheduler.scale_model_input = lambda sample, timestep=None: sample
    return scheduler


def _described(
    source: Source,
    scheduler: dict[str, Any],
    why: str,
    latents: LatentScaling,
    index: Mapping[str, Any],
    remarks: list[str],
) -> BaseObjective:
    kind, predicted = scheduler["_class_name"], scheduler.get("prediction_type", "epsilon")
    if kind in FLOW or predicted == "flow_prediction" or scheduler.get("use_flow_sigmas"):
        prediction = "flow"
    elif predicted not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"{source.name} predicts {predicted} ({why}), which cannot be trained here: give a base that predicts "
            "epsilon, v_prediction or the flow, or an EDM model."
        )
    else:
        prediction = "edm" if kind in EDM else predicted
    betas = scheduler.get("trained_betas")
    zero = prediction in ("epsilon", "v_prediction") and bool(
        scheduler.get("rescale_betas_zero_snr") or (betas and betas[-1] >= 1)
    )
    if zero and prediction == "epsilon":
        remarks.append(
            f"{source.name} says zero terminal SNR and epsilon, which exclude each other: at the last timestep its "
            "pictures are noise alone, and the noise says nothing of them. If it predicts v, give --prediction_type "
            "v_prediction."
        )
    if kind in FEW_STEPS or (not zero and scheduler.get("timestep_spacing") == "trailing" and prediction == "epsilon"):
        remarks.append(
            f"{source.name} draws with {kind} in few steps, as distilled models (LCM, Turbo, Lightning) do: training "
            "is the same, but draw with 1 to 8 steps and a guidance scale near 1, and expect the LoRA to undo some of "
            "the distillation."
        )
    zeros = bool(index.get("force_zeros_for_empty_prompt", True))
    painting = inpaints(source.config("unet/config.json") or {})
    if painting:
        remarks.append(INPAINTING)
    return BaseObjective(prediction, scheduler, zero, latents, zeros, why, tuple(remarks), painting)


def _overridden(source: Source, base: BaseObjective, prediction: str | None, rescale_zero_snr: bool) -> BaseObjective:
    """The objective with the user's flags on top, and with what they contradict among the remarks."""
    if prediction is None and not rescale_zero_snr:
        return base
    flags = [f"--prediction_type {prediction}"] if prediction else []
    flags += ["--rescale_betas_zero_snr"] if rescale_zero_snr else []
    if base.prediction in ("edm", "flow"):
        raise ConfigError(f"{flags[0]} does not fit {source.name}, which {WORDS[base.prediction]}: drop it.")
    said = prediction or base.prediction
    remarks = list(base.remarks) if said == base.prediction else []
    if said != base.prediction:
        remarks.append(_contradiction(source, base, "--prediction_type", said))
    zero = base.zero_snr or rescale_zero_snr
    if rescale_zero_snr and said == "epsilon" and not base.zero_snr:
        remarks.append(
            "--rescale_betas_zero_snr with epsilon: at the last timestep there is noise alone, which says nothing of "
            "the picture (arXiv 2305.08891 wants v_prediction), so pictures are drawn on the schedule as it was."
        )
    why = " and ".join(flags) + (" says so" if len(flags) == 1 else " say so")
    scheduler = with_flags({**base.scheduler, "prediction_type": said}, prediction, rescale_zero_snr)
    return replace(base, prediction=said, scheduler=scheduler, zero_snr=zero, why=why, remarks=tuple(remarks))


def with_flags(
    scheduler: Mapping[str, Any],
    prediction: str | None = None,
    rescale_zero_snr: bool = False,
    flow_shift: float | None = None,
) -> dict[str, Any]:
    """A scheduler's configuration, `_class_name` among it, as these settings make it.

    Zero terminal SNR is left out for epsilon: of noise alone epsilon says nothing, and the picture would be a blot.
    """
    found = dict(scheduler)
    if found["_class_name"] in EDM:  # made for another base: its sigmas stay
        return found
    flows = found["_class_name"] in FLOW or found.get("prediction_type") == "flow_prediction"
    if prediction == "flow" and not flows:
        found, flows = complete("", FLOW_SCHEDULER), True
    if flows:
        shift = "flow_shift" if "flow_shift" in found else "shift"
        return found if flow_shift is None else found | {shift: flow_shift}
    if prediction:
        found["prediction_type"] = prediction
    if rescale_zero_snr and found["prediction_type"] == "v_prediction":
        found |= ZERO
    return found


def _contradiction(source: Source, base: BaseObjective, flag: str, said: str) -> str:
    return (
        f"{source.name} {WORDS[base.prediction]}, {base.why}, and {flag} {said} says otherwise: it is trained and "
        f"drawn as one that {WORDS[said]}."
    )


def _as_flow(
    source: Source, base: BaseObjective, prediction: str | None, rescale_zero_snr: bool, shift: float | None
) -> BaseObjective:
    """The objective of a base that predicts the flow, because it says so or the user does."""
    if base.prediction == "edm" or rescale_zero_snr or prediction in ("epsilon", "v_prediction"):
        flag = "--rescale_betas_zero_snr" if rescale_zero_snr else f"--prediction_type {prediction}"
        raise ConfigError(f"{flag} does not fit {source.name}, which {WORDS[base.prediction]}: drop it.")
    if base.prediction == "flow":
        scheduler, why, remarks = dict(base.scheduler), base.why, base.remarks
    else:
        scheduler = with_flags(base.scheduler, "flow")
        why, remarks = "--prediction_type flow says so", (_contradiction(source, base, "--prediction_type", "flow"),)
    for name in ("use_dynamic_shifting", "invert_sigmas", "shift_terminal"):
        if scheduler.get(name):
            raise ModelError(f"{source.name} has a flow with {name}, which cannot be trained here: give another base.")
    scheduler = with_flags(scheduler, "flow", flow_shift=shift)
    return replace(base, prediction="flow", scheduler=scheduler, zero_snr=False, why=why, remarks=remarks)


def _latents(source: Source, said: Statement) -> LatentScaling:
    """How latents are shifted and scaled: as one file's markers say, else as the configuration of the VAE."""
    if said.latents is not None:
        return said.latents
    if source.vae is None or source.vae.endswith(".safetensors"):
        config = source.config("vae/config.json") or {}
    else:
        file = "/".join(filter(None, [vae_subfolder(source), "config.json"]))
        config = read_json(find(locate(source.vae), file, None, source.cache_dir), source.vae) or {}
    if fault := LatentScaling.fault(config):
        raise ModelError(f"The VAE of {source.vae or source.name} has {fault} in its config.json: download it again.")
    return LatentScaling.of(config)
