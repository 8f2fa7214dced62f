"""The metrics that we bring: likeness, prompt, diversity, copying, drift, held-out loss, aesthetic.

In: an Evidence. Out: values [prompt][seed]; see scorer.py. All but the drift and the loss go by cosines of embeddings.
"""

import numpy as np

from .evidence import Evidence
from .intervals import Values
from .scorer import scorer


@scorer("likeness", "higher", ("pictures", "image", "training"), ours=True)
def likeness(evidence: Evidence) -> Values:
    """How like the training pictures: mean cosine to all of them (CLIP-I and DINO of DreamBooth, arXiv 2208.12242)."""
    return (evidence.image @ evidence.training.embedded.T).mean(-1).tolist()


@scorer("prompt", "higher", ("pictures", "text"), ours=True)
def prompt(evidence: Evidence) -> Values | tuple[Values, str]:
    """CLIP score (arXiv 2104.08718), agreement with the prompt: 100 times the cosine of picture and text, from 0 on."""
    encoder = evidence.text_encoder
    assert encoder is not None
    texts, cut = encoder.texts(evidence.prompts)
    values = (100 * (evidence.text * texts[:, None]).sum(-1).clip(0)).tolist()
    few = f"{cut} of {len(texts)} prompts are longer than {encoder.name} reads: it saw their beginnings."
    return (values, few) if cut else values


@scorer("diversity", "higher", ("pictures", "image", "two seeds"), ours=True)
def diversity(evidence: Evidence) -> Values:
    """How different the pictures of one prompt are: one minus the mean cosine to those of the other seeds."""
    between = np.einsum("psd,ptd->pst", evidence.image, evidence.image)
    own = np.einsum("pss->ps", between)
    return (1 - (between.sum(-1) - own) / (len(evidence.seeds) - 1)).tolist()


@scorer("copying", "lower", ("pictures", "image", "two training"), ours=True)
def copying(evidence: Evidence) -> tuple[Values, str]:
    """Share of pictures nearer to a training picture than 95 % of those are to each other (after arXiv 2004.05675).

    Pictures that are as new as the training pictures themselves have about 0.05.
    """
    cosines = evidence.image @ evidence.training.embedded.T
    nearest = cosines.max(-1)
    row, column = np.unravel_index(nearest.argmax(), nearest.shape)
    name = evidence.training.names[int(cosines[row, column].argmax())]
    remark = (
        f"Nearest to a training picture is seed {evidence.seeds[column]} of {evidence.prompts[row]!r}: to {name}, "
        f"cosine {nearest[row, column]:.3f}; {evidence.training.usual:.3f} is usual between training pictures."
    )
    return (nearest > evidence.training.usual).astype(float).tolist(), remark


@scorer("drift", "lower", ("plain",), ours=True)
def drift(evidence: Evidence) -> Values:
    """How far plain prompts have moved from the bare base's pictures: mean absolute difference of pixels, 0-255."""
    pairs = zip(evidence.plain, evidence.plain_base, strict=True)
    return [[_difference(one, other) for one, other in zip(*rows, strict=True)] for rows in pairs]


def _difference(one: object, other: object) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@scorer("heldout_loss", "lower", ("heldout",), ours=True)
def heldout_loss(evidence: Evidence) -> Values:
    """The held-out loss that the run measured, on pictures that it never trained on."""
    return [[loss] for loss in evidence.losses]


@scorer("aesthetic", "higher", ("pictures", "text", "aesthetic"), ours=True)
def aesthetic(evidence: Evidence) -> Values:
    """What a head of linear layers on the text encoder's picture embeddings says, as LAION's predictors do."""
    assert evidence.aesthetic_head is not None
    return evidence.aesthetic_head(evidence.text).tolist()
