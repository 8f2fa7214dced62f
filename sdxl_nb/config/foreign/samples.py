"""What other trainers draw on the way, as sample prompts: each with its size, seed, steps, guidance and sampler.

In: the Draft of a configuration, and its path, as the file with the samples lies beside it or above. Out: in the Draft
sample_prompts, and when they are drawn. As OneTrainer (SampleConfig.py) has it at 23df383, ai-toolkit (SampleConfig
and its prompts' flags) at 27a03a9, SimpleTuner (validation.py, its prompt libraries) at bc8e6ab.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import formats
from ..messages import shown
from ..prompts import ALIASES, KEYS, SAMPLERS, is_enabled, read_prompt
from .keys import Draft

MAX_BYTES = 10_000_000  # of a file with samples
NOT_RANDOM = "seeds are fixed, so that pictures can be compared"
ONETRAINER = {  # what a sample is for SDXL where it does not say
    **{"width": 1024, "height": 1024, "seed": 42, "diffusion_steps": 30, "cfg_scale": 7.5},
    "noise_scheduler": "EULER_A",
}
FLAGS = {"n": "neg", "w": "width", "h": "height", "d": "seed", "seed": "seed", "l": "guidance", "cfg": "guidance"}
FLAGS |= {"s": "steps", "steps": "steps"}  # in ai-toolkit's prompts
STRENGTHS = ("m", "network_multiplier", "adapter_strength")
ASKS_NOTHING = (None, "", False, 0, 1, "1.0")


# OneTrainer


def of_onetrainer(draft: Draft, path: Path) -> None:
    """Samples in the configuration, or in the file that it names."""
    key = "samples" if draft.get("samples") else "sample_definition_file_name"
    items = draft.get("samples") or _file(draft, key, path)
    groups = [
        _rounded({**ONETRAINER, **item}, 64) if isinstance(item, Mapping) else item
        for item in (items if isinstance(items, list) else [items])
        if is_enabled(item)
    ]
    if any(isinstance(group, Mapping) and group.get("random_seed") for group in groups):
        draft.differs("random_seed of samples", NOT_RANDOM)
    unit, often = draft.text("sample_after_unit"), draft.number("sample_after") or 0
    if unit == "NEVER" or (unit in ("EPOCH", "STEP") and not often):
        if groups:
            draft.differs(f"sample_after {often:g} {unit}", "its samples are not drawn")
        return
    if _put(draft, key, groups):
        _when(draft, unit, often)


def _when(draft: Draft, unit: str, often: float) -> None:
    """Every so many epochs, or batches, which accumulation makes fewer steps of; a clock is none here."""
    if unit == "EPOCH":
        draft.set("validation_epochs", int(often), "sample_after")
    elif unit == "STEP":
        batches = draft.whole("gradient_accumulation_steps") or 1
        draft.set("validation_steps", max(1, int(often) // batches), "sample_after")
    else:
        why = f"it is in {unit}: samples are drawn after each epoch, or give --validation_steps"
        draft.drop("sample_after", why, draft.get("sample_after"))


# ai-toolkit


def of_ai_toolkit(draft: Draft) -> None:
    """Prompts with flags of their own, or samples, below what the block says for all; [trigger] is the trigger word."""
    key = "sample.samples" if draft.get("sample.samples") else "sample.prompts"
    items = draft.get(key) or []
    if draft.switch("train.disable_sampling") or not items:
        return
    common: dict[str, Any] = {
        name: draft.get(f"sample.{name}") for name in ("width", "height", "guidance_scale", "sample_steps")
    }
    common |= {"neg": draft.get("sample.neg") or None, "sampler": _sampler(draft)}
    first = draft.whole("sample.seed") or 0
    seed: Any = first
    groups = []
    for number, item in enumerate(items if isinstance(items, list) else [items]):
        own = dict(item) if isinstance(item, Mapping) else {"prompt": str(item)}
        seed = first + number if draft.switch("sample.walk_seed") else seed
        seed = seed if own.get("seed") is None else own["seed"]  # which holds for those after it too
        for name in [name for name in own if name not in KEYS]:
            _say_of(draft, key, name, own.pop(name))
        groups.append(_seeded(draft, _layered(common, own, {"seed": seed}, _flags(draft, key, own))))
    if _put(draft, key, [_rounded(group, 8) for group in groups]):
        draft.set("validation_epochs", None, key)
        draft.set("validation_steps", draft.get("sample.sample_every"), "sample.sample_every")


def _sampler(draft: Draft) -> str | None:
    """The name here of its sampler; k_ is Karras' sigmas there."""
    name = draft.text("sample.sampler")
    ours = f"{name[2:]}_karras" if name.startswith("k_") else name
    if ours in SAMPLERS:
        return ours
    draft.drop("sample.sampler", "the base's own kind of scheduler draws", name)
    return None


def _layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """One group of several, whose names for one thing may differ; a later one's holds."""
    return {KEYS[name]: value for layer in layers for name, value in layer.items()}


def _flags(draft: Draft, key: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt without its flags, and what they say."""
    word = str(draft.values.get("trigger_word") or "")
    text = str(own.get("prompt") or "").replace("[trigger]", word).replace("[name]", word)
    prompt, *flags = text.split("--")
    said: dict[str, Any] = {"prompt": _one_line(prompt)}
    for flag in flags:
        name, _, value = flag.partition(" ")
        if name in FLAGS:
            said[FLAGS[name]] = value.strip()
        else:
            _say_of(draft, key, f"--{name}", value.strip())
    return said


# SimpleTuner


def of_simpletuner(draft: Draft, path: Path) -> None:
    """validation_prompt and the library of prompts, each at every resolution, with as many seeds as it has pictures."""
    prompts = _library(draft, path)
    if (single := draft.text("validation_prompt")) not in ("", "None"):
        prompts.append(single)
    key = "validation_prompt" if single else "user_prompt_library"
    if draft.switch("validation_disable") or not prompts:
        for often in ("validation_step_interval", "validation_steps", "validation_epoch_interval"):
            if often in draft.said:
                draft.drop(often, "nothing is drawn", draft.get(often))
        return
    seed = draft.whole("validation_seed") or draft.whole("seed") or 0
    count = draft.whole("num_validation_images") or 1
    if count > 1:
        draft.differs("num_validation_images", "each further picture of a prompt has the next seed")
    common = {"neg": draft.text("validation_negative_prompt"), "sampler": draft.get("validation_noise_scheduler")}
    if common["sampler"] and str(common["sampler"]) not in {*SAMPLERS, *ALIASES}:
        draft.drop("validation_noise_scheduler", "the base's own kind of scheduler draws", common.pop("sampler"))
    common |= {"guidance": draft.get("validation_guidance"), "steps": draft.get("validation_num_inference_steps")}
    common["neg"] = None if common["neg"].strip().lower() == "none" else common["neg"]
    groups = [
        _rounded({**common, "prompt": _one_line(prompt), **size, "seed": seed + i}, 16)
        for prompt in prompts
        for size in _sizes(draft)
        for i in range(count)
    ]
    if _put(draft, key, groups):
        older = "validation_steps" in draft.said and "validation_step_interval" not in draft.said
        every = "validation_steps" if older else "validation_step_interval"
        draft.set("validation_epochs", None, key)
        draft.set("validation_steps", draft.get(every), every)


def _library(draft: Draft, path: Path) -> list[str]:
    """The texts of its library, which has a short name for each."""
    said = _file(draft, "user_prompt_library", path)
    texts = []
    for name, entry in said.items() if isinstance(said, Mapping) else ():
        group = entry if isinstance(entry, Mapping) else {"prompt": entry}
        texts.append(str(next((group[key] for key in ("prompt", "caption", "tags") if group.get(key)), "")))
        for key, value in group.items():
            if key not in ("prompt", "caption", "tags"):
                _say_of(draft, "user_prompt_library", f"{name}.{key}", value)
    return texts


def _sizes(draft: Draft) -> list[dict[str, Any]]:
    """Width and height of validation_resolution: a side or WIDTHxHEIGHT, several with commas; below 128 megapixels."""
    if "validation_resolution" not in draft.said:
        return [{}]
    sizes = []
    for part in draft.text("validation_resolution").lower().split(","):
        width, _, height = part.strip().partition("x")
        if not height and re.fullmatch(r"\d+(\.\d*)?", width) and float(width) < 128:
            width = str(1024 if int(float(width)) == 1 else int(float(width)) * 1000)
        sizes.append({"width": width, "height": height or width})
    return sizes


# of all three


def _put(draft: Draft, key: str, groups: Iterable[Any]) -> bool:
    """Take groups as sample prompts, and say which cannot be drawn. Whether there is any."""
    lines = []
    for number, group in enumerate(groups, 1):
        try:
            lines.append(read_prompt(group, f"sample {number}").line())
        except ValueError as error:
            draft.say(f"{key} in {draft.file}: {error}; it is not drawn.")
    if lines:
        draft.set("sample_prompts", lines, key)
    return bool(lines)


def _file(draft: Draft, key: str, path: Path) -> Any:
    """What a JSON file holds that the configuration names; it lies here, or beside the configuration or above it."""
    name = draft.text(key).replace("\\", "/")
    if key not in draft.said:
        return []
    places = (Path(name), *(folder / name for folder in path.absolute().parents[:3]))
    try:
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise ValueError("there is no such file")
        if found.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return formats.parse(found.read_text("utf-8-sig"), ".json")
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:150]
        draft.drop(key, f"it cannot be read ({why}), give --sample_prompts", draft.text(key))
        return []


def _rounded(group: dict[str, Any], step: int) -> dict[str, Any]:
    """The same with sides that are multiples, as that program makes them."""
    made = dict(group)
    for side in ("width", "height"):
        value = str(group.get(side, ""))
        if value.isdecimal():
            made[side] = round(int(value) / step) * step
    if "prompt" in made:
        made["prompt"] = _one_line(made["prompt"])
    return made


def _seeded(draft: Draft, group: dict[str, Any]) -> dict[str, Any]:
    """The same without a seed below 0, which is a random one there."""
    if not str(group["seed"]).strip().startswith("-"):
        return group
    draft.differs(f"seed {group['seed']} of samples", NOT_RANDOM)
    return {name: value for name, value in group.items() if name != "seed"}


def _say_of(draft: Draft, key: str, name: str, value: Any) -> None:
    """Say that something of a sample is nothing here, where it asks for anything."""
    if value not in ASKS_NOTHING and name != "fps":
        strength = name.removeprefix("--").rpartition(".")[2] in STRENGTHS
        why = "the LoRA draws at its full strength" if strength else "no picture is drawn so"
        draft.drop(f"{name} of {key}", why, shown(value) if isinstance(value, dict | list) else value)


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())
