"""The sentences for a part of a base that cannot be loaded: what is wrong with it, and what to do.

In: `what` sentences call the part ("the unet of X"), and what was found or raised. Out: one sentence.
"""

import re
from collections.abc import Collection, Sequence

from ..sources import WEIGHTS, Source, broken, first_line, has_weights, unreachable

SHAPES = re.compile(r"(\S+) expected shape torch\.Size\(\[(.*?)\]\), but got torch\.Size\(\[(.*?)\]\)")  # diffusers'


def reason(error: BaseException, source: Source, part: str, what: str, other: bool) -> str:
    """Of an error of the libraries, which tell one fault in many ways; `other` is a VAE of another model."""
    if among(error, "SafetensorError"):
        return capital(broken(what))
    if among(error, "ConnectError", "ConnectTimeout", "ConnectionError", "LocalEntryNotFoundError"):
        return capital(unreachable(what))
    if part in WEIGHTS and not other and not source.is_single_file and not has_weights(source, part):
        return no_weights(source, what)
    if "meta tensor" in str(error):  # where a file left a weight empty
        return capital(f"{what} lacks tensors that SDXL has: download it again, or give another.")
    if found := SHAPES.search(str(error)):
        wanted, shape = (tuple(map(int, filter(str.strip, text.split(",")))) for text in found.groups()[1:])
        return misfit(what, found.group(1), shape, wanted, source.is_single_file)
    return capital(f"Cannot load {what}: {first_line(error)}")


def no_weights(source: Source, what: str) -> str:
    """Of a part without safetensors."""
    if source.variant:
        return capital(f"{what} has no {source.variant} weights as safetensors: give another --variant, or none.")
    return capital(f"{what} has no safetensors weights, and pickled ones (.bin) are never read: give a model that has.")


def lacking(what: str, missing: Collection[str]) -> str:
    """Of tensors that are not there."""
    return capital(f"{what} lacks {len(missing)} of its tensors, {min(missing)} first: download it again.")


def misfit(what: str, name: str, shape: Sequence[int], wanted: Sequence[int], single: bool) -> str:
    """Of a tensor of another shape; one file, a `single`, is of SDXL's own."""
    asks = "SDXL has" if single else "its config.json says"
    sizes = [" x ".join(map(str, each)) for each in (shape, wanted)]
    return capital(
        f"{what} has {name} of {sizes[0]} numbers where {asks} {sizes[1]}: download it again, or give another."
    )


def quantised(name: str, why: str) -> str:
    """Of weights that are codes of another program."""
    return f"{name} holds quantised weights ({why}), whose scales would be lost: give the fp16, bf16 or fp32 model."


def capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def among(error: BaseException | None, *names: str) -> bool:
    """Whether an error, or one that led to it, is of a class with one of these names."""
    while error is not None:
        if {kind.__name__ for kind in type(error).__mro__} & set(names):
            return True
        error = error.__cause__ or error.__context__
    return False
