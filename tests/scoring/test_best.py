"""The star and its reason: gains over the base, a person's own scorer; where ours decide, never a stage that copies."""

from sdxl_nb.scoring.best import ALONE, Choice, choose, copies, gains
from sdxl_nb.scoring.intervals import Score
from sdxl_nb.scoring.registry import registered
from sdxl_nb.scoring.scorer import Scorer

OURS = registered()
OWN = dict(OURS) | {"checker": Scorer("checker", len)}


def table(**columns):
    """Steps 0, 10, 20, 30 with the means given for each metric."""
    rows = {step: {} for step in (0, 10, 20, 30)}
    for name, values in columns.items():
        for step, value in zip(rows, values, strict=True):
            rows[step][name] = value if isinstance(value, Score) else Score(value)
    return rows


def test_the_base_does_not_compete():
    assert choose(table(likeness=[0.9, 0.1, 0.2, 0.15]), OURS).step == 20
    assert choose({0: {}}, OURS) == Choice(None, "there is no LoRA yet")


def test_ours_decide_by_the_mean_of_gains_and_ties_go_to_the_earlier():
    found = choose(table(likeness=[0, 0.1, 0.2, 0.3], heldout_loss=[1, 0.5, 0.4, 0.6]), OURS)
    assert found.step == 20
    assert found.reason == "likeness 0.200 is number 2 of 3; heldout_loss 0.400 is the lowest of 3"
    assert choose(table(likeness=[0, 0.1, 0.2, 0.3], prompt=[9, 3, 2, 1]), OURS).step == 10


def test_a_gain_is_over_the_base_and_a_share_of_the_largest():
    loss = table(heldout_loss=[0.5, 0.1, 0.3, 4])
    assert gains("heldout_loss", loss, (10, 20, 30), OURS["heldout_loss"]) == {10: 1, 20: 0.5, 30: -1}
    worse = table(prompt=[9, 3, 2, 1])  # none gains: the worst is 0
    assert gains("prompt", worse, (10, 20, 30), OURS["prompt"]) == {10: 1, 20: 0.5, 30: 0}
    assert gains("prompt", table(prompt=[9, 3, 3, 3]), (10, 20, 30), OURS["prompt"]) == {10: 1, 20: 1, 30: 1}


def test_where_likeness_and_the_held_out_loss_both_grow_the_star_is_at_the_bend():
    """Ranks would be equal at every step, and the least trained one would win."""
    overfit = table(likeness=[-0.5, 0.1, 0.65, 0.75], heldout_loss=[0.12, 0.05, 0.052, 0.08])
    assert choose(overfit, OURS).step == 20
    fallen = table(likeness=[-0.5, 0.1, 0.65, 0.79], heldout_loss=[0.12, 0.06, 0.083, 0.116])  # paper without ink
    assert choose(fallen, OURS).step == 20


def test_a_stage_that_copies_does_not_compete_where_ours_decide():
    shares = [Score(0.1, 0.05, 0.2), Score(0.05, 0, 0.1), Score(0.3, 0.2, 0.4), Score(0.9, 0.8, 1)]
    shown = table(likeness=[0, 0.1, 0.2, 0.3], copying=shares, checker=[0, 0.5, 0.7, 0.9])
    assert copies(shown) == [20, 30]
    assert choose(shown, OURS) == Choice(
        10, f"likeness 0.100 is the highest of 1; steps 20, 30 copy training pictures and did not compete; {ALONE}"
    )
    own = choose(shown, OWN)
    assert own.step == 30 and own.reason.endswith("it copies training pictures: draw some, and look")
    assert choose(shown, OWN, ["likeness"]).step == 30
    everyone = table(likeness=[0, 0.1, 0.2, 0.3], copying=[Score(0, 0, 0), *[Score(0.9, 0.8, 1)] * 3])
    assert choose(everyone, OURS).step == 30  # all copy, so all compete


def test_what_the_bare_base_does_too_is_no_copying():
    assert copies(table(copying=[Score(0.4, 0.3, 0.5), *[Score(0.5, 0.35, 0.6)] * 3])) == []


def test_chance_and_equals_are_said():
    near = [Score(0), Score(0.5, 0.4, 0.6), Score(0.7, 0.55, 0.8), Score(0.2, 0.1, 0.3)]
    assert choose(table(checker=near), OWN).reason == (
        "checker 0.700 is the highest of 3 (by chance, perhaps: its interval overlaps that of step 10)"
    )
    assert choose(table(checker=[0, 0.7, 0.7, 0.2]), OWN) == Choice(
        10, "checker 0.700 is the highest of 3, as at step 20, and earlier"
    )


def test_without_what_chooses_it_is_the_last():
    assert choose(table(drift=[0, 1, 2, 3]), OURS) == Choice(
        30, "it is the last, and nothing was measured to choose by"
    )
