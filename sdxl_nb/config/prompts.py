"""Prompts with options of their own, as people draw them with kohya's scripts: read, checked, and written again.

    a red cup on a table --n blurry, text --w 832 --h 1216 --d 42 --l 6.5 --s 28 --ss euler_a

In: a file (.txt, one a line, # begins a remark; TOML, YAML or JSON, a list of texts or of groups) or such lines. Out:
SamplePrompts; what is left out of one is None, and is the run's. Nothing here imports torch.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .messages import nearest, shown

FILES = (".txt", ".toml", ".yaml", ".yml", ".json")
SAMPLERS: dict[
    str, tuple[str, dict[str, Any]]
] = {  # names of --ss: the scheduler in diffusers, and what it is told beside the base's own configuration
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm_2": ("KDPM2DiscreteScheduler", {}),
    "dpm_2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpmsolver": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpmsingle": ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),  # this and those below are other trainers'
    "dpmsolver++_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
}
KARRAS = ("euler", "dpmsolver++", "dpmsolver++_sde", "unipc")  # that are drawn with Karras' sigmas too
SAMPLERS |= {f"{name}_karras": (SAMPLERS[name][0], {**SAMPLERS[name][1], "use_karras_sigmas": True}) for name in KARRAS}
ALIASES = {f"k_{name}": name for name in ("euler", "euler_a", "dpm_2", "dpm_2_a")}
ALIASES |= {  # ComfyUI's, A1111's and diffusers' own names, as diffusers' documentation pairs them
    "euler_ancestral": "euler_a",
    "dpm_2_ancestral": "dpm_2_a",
    "dpm2": "dpm_2",
    "dpm2_a": "dpm_2_a",
    "uni_pc": "unipc",
    "plms": "pndm",
}
ALIASES |= {"euler-a": "euler_a", "dpm++": "dpmsolver++"}  # SimpleTuner's
ALIASES |= {f"dpmpp{end}": f"dpmsolver++{end}" for end in ("", "_karras", "_sde", "_sde_karras")}  # OneTrainer's
ALIASES |= {  # ComfyUI's and A1111's
    f"{name}{end}": f"dpmsolver++{end}"
    for name in ("dpmpp_2m", "dpm++_2m")
    for end in ("", "_karras", "_sde", "_sde_karras")
}
NAMED = [(name, made) for name, (made, _) in SAMPLERS.items() if name != "dpmsolver"]
ALIASES |= {made.lower(): name for name, made in reversed(NAMED)}  # of one class the plainest
OPTIONS = {"n": "negative", "w": "width", "h": "height", "d": "seed", "l": "guidance", "s": "steps", "ss": "sampler"}
KEYS = {  # of groups: names of kohya's, of ours, of OneTrainer's samples and of ai-toolkit's
    "prompt": "prompt",
    "negative_prompt": "negative",
    "negative": "negative",
    "width": "width",
    "height": "height",
    "seed": "seed",
    "scale": "guidance",
    "guidance_scale": "guidance",
    "guidance": "guidance",
    "sample_steps": "steps",
    "steps": "steps",
    "sample_sampler": "sampler",
    "sampler": "sampler",
    "scheduler": "sampler",
    "neg": "negative",
    "diffusion_steps": "steps",
    "num_inference_steps": "steps",
    "cfg_scale": "guidance",
    "noise_scheduler": "sampler",
}
PASSED_OVER = (  # of OneTrainer's samples: what it takes from elsewhere, and what is of other models
    *("__version", "enabled", "random_seed", "frames", "length", "force_last_timestep", "prior_attention_mask"),
    *("transformer_attention_mask", *(f"text_encoder_{number}_layer_skip" for number in (1, 2, 3, 4))),
    *("base_image_path", "mask_image_path"),
)
BEGINS = re.compile(r"(?:^|\s)--(?=[a-zA-Z])")  # an option in a line
OTHER_MODELS = ("g", "fs", "cn", "ctr", "rcfg", "am")
# an option with other hyphens than two, as word processors and translators write them
DASHES = "\u2010-\u2015\u2212\ufe58\ufe63\uff0d"
HYPHENS = re.compile(rf"(?:^|\s)((?:[{DASHES}][-{DASHES}]?|-[{DASHES}]?|--\s)(?:[whdls]\s*-?\d|(?:n|ss)\s)\S*)")
OF_A1111 = re.compile(r"Negative prompt:|Steps: *\d+, *Sampler:")  # what it writes below its pictures
BOUNDS: dict[str, tuple[float, float]] = {
    "width": (32, 4096),
    "height": (32, 4096),
    "seed": (0, 2**32 - 1),
    "guidance": (0, 100),
    "steps": (1, 1000),
}


class SamplePrompt(NamedTuple):
    """One prompt to draw, with what it says of itself."""

    prompt: str
    negative: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    guidance: float | None = None
    steps: int | None = None
    sampler: str | None = None

    def line(self) -> str:
        """The prompt as a line with its options."""
        said = [(option, getattr(self, name)) for option, name in OPTIONS.items()]
        return " ".join([self.prompt, *(f"--{option} {_plain(value)}" for option, value in said if value is not None)])


class Drawing(NamedTuple):
    """One picture to draw: `number` counts prompts, `line` is what it is called."""

    number: int
    line: str
    prompt: str
    negative: str
    width: int
    height: int
    seed: int
    steps: int
    guidance: float
    sampler: str | None


def read_prompts(given: Any) -> list[SamplePrompt]:
    """The prompts in a file, in lines, or in groups. ValueError with one sentence, which names the line."""
    if isinstance(given, str) and given.lower().endswith(FILES) and "\n" not in given:
        return _of_file(Path(given))
    items = given.splitlines() if isinstance(given, str) else given
    if not isinstance(items, list | tuple):
        raise ValueError(f"prompts must be lines or a file, not {shown(given)}: give one a line")
    return [read_prompt(item, f"prompt {number}") for number, item in enumerate(items, 1) if _says(item)]


def _of_file(path: Path) -> list[SamplePrompt]:
    try:
        text = path.expanduser().read_text("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    if path.suffix.lower() == ".txt":
        lines = enumerate(text.splitlines(), 1)
        found = [read_prompt(line, f"line {number} of {path.name}") for number, line in lines if _says(line)]
    else:
        items = _items(text, path)
        numbered = [(number, item) for number, item in enumerate(items, 1) if _says(item) and is_enabled(item)]
        found = [read_prompt(item, f"prompt {number} of {path.name}") for number, item in numbered]
    if not found:
        raise ValueError(f"{path.name} holds no prompt: write one a line")
    return found


def is_enabled(item: Any) -> bool:
    """Whether one of OneTrainer's samples is to be drawn, as everything else is."""
    return not isinstance(item, Mapping) or bool(item.get("enabled", True))


def _says(item: Any) -> bool:
    """Whether this is more than an empty line or a remark."""
    return item is not None and not (isinstance(item, str) and item.lstrip()[:1] in ("", "#"))


def _items(text: str, path: Path) -> list[Any]:
    """The prompts of a TOML, YAML or JSON file; kohya's TOML has them as prompt.subset, below what holds for all.

    SimpleTuner's library has a short name for each.
    """
    from .formats import parse

    try:
        said = parse(text, path.suffix.lower())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read ({' '.join(str(error).split())[:150]}): correct it") from None
    common: dict[str, Any] = {}
    if isinstance(said, Mapping):
        said = next((said[key] for key in ("prompt", "prompts", "samples") if key in said), said)
    if isinstance(said, Mapping) and said and not {*said} & {*KEYS, "subset"}:
        said = list(said.values())
    if isinstance(said, Mapping) and isinstance(said.get("subset"), list):
        common = {key: value for key, value in said.items() if key != "subset"}
        said = said["subset"]
    if not isinstance(said, list):
        raise ValueError(f"{path.name} holds no list of prompts: write them as a list")
    return [{**common, **item} if isinstance(item, Mapping) else item for item in said]


def read_prompt(item: Any, place: str) -> SamplePrompt:
    """One prompt, of a line or a group. ValueError with one sentence, which begins with `place`."""
    if isinstance(item, SamplePrompt):
        return item
    if isinstance(item, Mapping):
        return _of_group(item, place)
    if not isinstance(item, str):
        raise ValueError(f"{place} must be text, not {shown(item)}: write a prompt")
    if OF_A1111.match(item.strip()):
        raise ValueError(
            f"{place} is what AUTOMATIC1111 writes below its pictures: write one line a prompt, its settings behind it "
            "as --n blurry --s 25 --l 7 --d 42 --w 832 --h 1216"
        )
    if found := HYPHENS.search(item):
        raise ValueError(f"{place}: {shown(found[1])} looks like an option, and those begin with two hyphens: write --")
    prompt, *options = BEGINS.split(item.strip())
    said: dict[str, Any] = {}
    for option in options:
        name, value = [*option.split(maxsplit=1), "", ""][:2]
        if name.lower() in OTHER_MODELS:
            raise ValueError(f"{place}: --{name} is for other models than SDXL: take it out")
        if name.lower() not in OPTIONS:
            known = " ".join(f"--{each}" for each in OPTIONS)
            raise ValueError(f"{place}: --{name[:20]} is no option of a prompt: there are {known}")
        _set(said, OPTIONS[name.lower()], value.strip(), place)
    return _checked(prompt.strip(), said, place)


def _of_group(item: Mapping[str, Any], place: str) -> SamplePrompt:
    said: dict[str, Any] = {}
    if item.get("sample_inpainting"):
        raise ValueError(f"{place} draws into another picture (sample_inpainting), which is not done here: take it out")
    for key, value in item.items():
        if key in (*PASSED_OVER, "sample_inpainting") or (key == "seed" and item.get("random_seed")):
            continue
        if key not in KEYS:
            close = nearest(str(key), KEYS)
            advice = f"did you mean {close}?" if close else f"there are {', '.join(KEYS)}"
            raise ValueError(f"{place}: {key} is nothing of a prompt: {advice}")
        if value is not None:
            _set(said, KEYS[key], value, place)
    return _checked(" ".join(str(said.pop("prompt", "")).split()), said, place)


def _set(said: dict[str, Any], name: str, value: Any, place: str) -> None:
    if name in said:
        raise ValueError(f"{place} says its {name} twice: keep one of them")
    said[name] = value


def _checked(prompt: str, said: Mapping[str, Any], place: str) -> SamplePrompt:
    """The prompt with its options as numbers, within their bounds. Raises ValueError."""
    if not prompt:
        raise ValueError(f"{place} has no prompt: write what to draw before its options")
    if "\0" in prompt or "\n" in prompt:
        raise ValueError(f"{place} holds a line break or a NUL: write it as one line")
    for text in (prompt, str(said.get("negative") or "")):
        if option := BEGINS.search(text):  # of a group, which is written as a line
            word = text[option.start() :].split()[0]
            raise ValueError(f"{place}: {word[:20]} would begin an option: take its dashes away")
    if prompt.lower().endswith(FILES) and not said:
        raise ValueError(f"{place} ends like the name of a file: give it an option, such as --s 25")
    found: dict[str, Any] = {}
    for name, value in said.items():
        if name == "negative":
            found[name] = " ".join(str(value).split())
        elif name == "sampler":
            found[name] = _sampler(str(value), place)
        else:
            found[name] = _number(name, value, place)
    return SamplePrompt(prompt, **{name: value for name, value in found.items() if value != ""})


def _sampler(value: str, place: str) -> str:
    name = "_".join(value.lower().split())
    name = ALIASES.get(name, name)
    if name not in SAMPLERS:
        close = nearest(name, [*SAMPLERS, *ALIASES])
        advice = f"did you mean {close}?" if close else f"there are {', '.join(SAMPLERS)}"
        raise ValueError(f"{place}: there is no sampler {shown(value)}: {advice}")
    return name


def _number(name: str, value: Any, place: str) -> float | int:
    least, most = BOUNDS[name]
    kind = float if name == "guidance" else int
    try:
        number = kind(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        number = None
    if number is None or (isinstance(value, float) and number != value):
        raise ValueError(f"{place}: {name} must be a {'' if kind is float else 'whole '}number, not {shown(value)}")
    if name == "seed" and number == -1:
        raise ValueError(
            f"{place}: seed -1, a new one each time, shows no progress: leave it out, then it is the run's"
        )
    if not least <= number <= most:
        raise ValueError(f"{place}: {name} must be from {least} to {most}, not {shown(value)}")
    if name in ("width", "height") and number % 8:
        below = int(number // 8 * 8)
        raise ValueError(f"{place}: {name} must be a multiple of 8, not {number}: use {below} or {below + 8}")
    return number


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
