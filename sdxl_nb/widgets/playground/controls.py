"""The controls of a playground, each tied to a trait: what is typed is taken or refused, what code sets is shown.

In: a widget with bounded traits, and a control for each. Out: nothing but the tie, and a sentence beside the controls
about what was refused, until something is taken again.
"""

from collections.abc import Callable
from typing import Any

import traitlets

from .sliders import Slider


def bind(owner: Any, name: str, control: Any, say: Callable[[str], Any], place: int | None = None) -> None:
    """Keep a trait of `owner`, or its member at `place`, and a control alike; `say` hears of refusals, or "".

    What the trait refuses is taken back from the control.
    """

    def value() -> Any:
        whole = getattr(owner, name)
        return whole if place is None else whole[place]

    def show(change: Any = None) -> None:
        if isinstance(control, Slider):
            control.show(value())
        else:
            control.value = value()

    def typed(change: Any) -> None:
        new = change["new"]
        try:
            setattr(owner, name, new if place is None else with_member(getattr(owner, name), place, new))
            say("")
        except traitlets.TraitError:
            show()
            say(refusal(control.description, owner.traits()[name], new))

    show()
    control.observe(owner._notice.guard(typed), "value")
    owner.observe(show, name)


def with_member(whole: tuple, place: int, value: Any) -> tuple:
    """The tuple with another member at `place`."""
    return (*whole[:place], value, *whole[place + 1 :])


def refusal(what: str, trait: Any, value: float) -> str:
    """One sentence about a number beyond the bounds of its trait, as HTML."""
    said = f"{what} must be from {written(trait.min)} to {written(trait.max)}: {written(value)} was not taken."
    return f'<div class="sdxl-nb-hint sdxl-nb-error" role="alert">{said}</div>'


def written(number: float) -> str:
    """A number in full, without a trailing .0."""
    return str(number).removesuffix(".0")
