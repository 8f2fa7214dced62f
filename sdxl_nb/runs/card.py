"""The model card of a run: README.md of its folder, in the hub's form."""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from ..config.header import safe_config
from ..config.layout import drawings
from ..config.train_config import TrainConfig
from ..lora.files.file import LoraFile
from ..lora.files.readers import KeyTable
from ..models.objective import base_objective
from ..models.objective.base_objective import BaseObjective
from ..system.errors import SdxlNbError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_card(
    config: TrainConfig,
    folder: Path,
    *,
    steps: int,
    pictures: int,
    loss: float | None,
    tables: Mapping[str, KeyTable] | None = None,
    objective: BaseObjective | None = None,
) -> Path:
    """Write README.md: what the LoRA is, how to use it, what came out, how it was trained.

    `tables` are the KeyTables of the LoRA files by name, `objective` is what was trained, where they are known already.
    """
    settings = safe_config(config.model_dump(mode="json"))
    base = settings["pretrained_model_name_or_path"]
    front = {"base_model": base} if HUB_ID.fullmatch(base) else {}  # the hub takes nothing else for a base model
    front |= {
        "library_name": "diffusers",
        "tags": ["stable-diffusion-xl", "lora", "text-to-image", "sdxl_nb"],
    }
    if config.trigger_word:
        front["instance_prompt"] = config.trigger_word
    lines = ["---", *(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in front.items()), "---", ""]
    lines += [
        f"# {config.lora_name()}",
        "",
        f"A rank-{config.rank} LoRA for `{base}`: {steps} steps on {pictures} pictures.",
        "",
    ]
    if config.trigger_word:
        lines += [f"Trigger word: <code>{_escaped(config.trigger_word)}</code>", ""]
    if below := settings.get("base_lora"):
        named = ", ".join(f"`{each}`" for each in below)
        lines += [f"Trained on top of {named}, frozen in the base (FILE:SCALE): load it too, at that scale.", ""]
    if config.clip_skip != 2:
        lines += [
            f"Captions were read at layer {config.clip_skip} of the text encoders, counted from the end: draw with "
            f"CLIP Set Last Layer -{config.clip_skip} in ComfyUI, or as below.",
            "",
        ]
    lines += _ranks(config)
    lines += _slider(config)
    lines += _pictures(config, folder)
    lines += _usage(config, objective or _objective(config))
    lines += _readers(config, folder, tables or {})
    lines += ["## Settings", "", f"Final training loss: {loss:.4f}" if loss is not None else "", "", "```json"]
    lines += [json.dumps({k: v for k, v in settings.items() if v is not None}, indent=1, ensure_ascii=False), "```", ""]
    path = folder / "README.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _ranks(config: TrainConfig) -> list[str]:
    """How ranks were masked, if they were."""
    if config.tlora_min_rank is None:
        return []
    return [
        f"Trained as T-LoRA (arXiv 2507.05964): {config.tlora_min_rank} ranks at the noisiest timestep, all at the "
        f"clearest, exponent {config.tlora_alpha:g}. The file is a plain LoRA: readers draw with all ranks at all "
        "timesteps.",
        "",
    ]


def _slider(config: TrainConfig) -> list[str]:
    """What strengths mean of a slider, if it is one."""
    if config.slider_positive is not None:
        more = [f"<code>{_escaped(text)}</code>" for text in (config.slider_positive, config.slider_negative or "")]
        what = f"strength 1 draws more of {more[0]}, -1 less"
        what += f" of it and more of {more[1]}" if config.slider_negative else " of it"
    elif config.slider_negative_dir is not None:
        what = f"strength {config.slider_strength:g} draws as the training pictures are, -{config.slider_strength:g} as"
        what += " their opposites, of which it learned in pairs"
    else:
        return []
    return [f"A concept slider: {what}; 0 is the base.", ""]


def _pictures(config: TrainConfig, folder: Path) -> list[str]:
    """A table of the last validation pictures beside those of step 0."""
    steps = list(drawings(folder))
    first = {drawing.number: drawing for drawing in reversed(config.drawings())}  # of each prompt
    if not steps or not first:
        return []
    shown = [steps[0], steps[-1]] if len(steps) > 1 else steps
    lines = ["| prompt | " + " | ".join(f"step {s}" for s in shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for number, drawing in sorted(first.items()):
        cells = [f"![](validation/step-{step}/{number:02d}-{drawing.seed}.png)" for step in shown]
        lines.append("| " + " | ".join([_escaped(drawing.line), *cells]) + " |")
    return [*lines, ""]


def _escaped(text: str) -> str:
    """A prompt in a Markdown table: no markup, no cell or line breaks."""
    import html

    return html.escape(" ".join(text.split())).replace("|", "&#124;").replace("`", "&#96;").replace("[", "&#91;")


def _readers(config: TrainConfig, folder: Path, tables: Mapping[str, KeyTable]) -> list[str]:
    """How many keys of each file every reader knows, checked when the file was written."""
    lines = ["## Who reads it", ""]
    for name in ("pytorch_lora_weights", config.lora_name()):
        path = folder / f"{name}.safetensors"
        if path.is_file():
            table = tables[path.name] if path.name in tables else LoraFile(path).check()
            lines += [f"`{path.name}`", "", table.markdown(), ""]
    return lines


def _objective(config: TrainConfig) -> BaseObjective | None:
    """What was trained; None where the base cannot be asked any more."""
    with contextlib.suppress(SdxlNbError):
        return base_objective.of_config(config)
    return None


def _scheduler(config: TrainConfig, objective: BaseObjective | None) -> tuple[str, list[str]]:
    """The class to import and the lines that set the scheduler, where diffusers does not find it by itself."""
    single = config.pretrained_model_name_or_path.endswith(".safetensors")
    flags = config.prediction_type or config.rescale_betas_zero_snr or config.flow_shift is not None
    if objective is None or not (flags or (single and objective.prediction != "epsilon")):
        return "", []
    known = {name: value for name, value in objective.scheduler.items() if name[0] != "_" and value is not None}
    kind = objective.scheduler["_class_name"]
    return kind, [
        f"pipe.scheduler = {kind}.from_config({json.dumps(known)})".replace("false", "False").replace("true", "True")
    ]


def _usage(config: TrainConfig, objective: BaseObjective | None) -> list[str]:
    prompt = json.dumps((config.drawn_prompts() or [config.trigger_word or "a picture"])[0], ensure_ascii=False)
    single = config.pretrained_model_name_or_path.endswith(".safetensors")
    load, what = ("from_single_file", "file") if single else ("from_pretrained", "model")
    scheduler, lines = _scheduler(config, objective)
    return [
        "## Use",
        "",
        *([str(objective), ""] if objective else []),
        "```python",
        f"from diffusers import {', '.join(sorted(filter(None, ['StableDiffusionXLPipeline', scheduler])))}",
        "",
        f"pipe = StableDiffusionXLPipeline.{load}(BASE)  # the base {what} named above",
        *lines,
        'pipe.load_lora_weights("THIS FOLDER")',
        f"pipe({prompt}{f', clip_skip={config.clip_skip - 2}' if config.clip_skip != 2 else ''}).images[0]",
        "```",
        "",
        f"For ComfyUI, AUTOMATIC1111 and Forge put `{config.lora_name()}.safetensors` into the LoRA folder.",
        "",
    ]
