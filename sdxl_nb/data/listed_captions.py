"""The captions of a Listing as training reads them: which of several, clean tags, trigger word, prefix and suffix.

In: a Listing as its source gives it, and a TrainConfig. Out: the same Listing; what was written stays in `written`.
"""

from ..config.train_config import TrainConfig
from .captions import dressed, is_alone
from .sources.listing import Listing, Note, Texts, counts
from .words.trigger import with_trigger

TRIGGER_ALONE = "trigger_word_alone"  # a kind of Note


def choose_captions(listing: Listing, config: TrainConfig) -> None:
    """Of several captions of a picture keep those that `caption_choice` asks for, and say so."""
    if listing.further is None:
        return
    often = counts(listing.further)
    several, every = int((often > 0).sum()), int(often.sum()) + len(listing) - listing.captions.null_count
    told = f"{several} of {len(listing)} pictures have several captions"
    if config.caption_choice == "first":
        listing.further = None
        listing.notes.append(f"{told}, of which the first is used; --caption_choice random uses all {every}.")
    else:
        listing.notes.append(
            f"{told} ({every} in all): one is drawn anew each time; --caption_choice first keeps to the first."
        )


def as_trained(listing: Listing, config: TrainConfig, led: bool = True) -> Listing:
    """The Listing with captions as training reads them: clean tags, trigger word (if `led`), prefix and suffix.

    A missing caption becomes the trigger word. A Note counts the pictures that are left with the trigger word alone,
    which may be a mistake.
    """
    word = config.trigger_word if led else None
    about = (word, config.clean_tags, config.caption_prefix, config.caption_suffix, config.keep_tokens_separator)
    if any(about):
        listing.written, listing.written_further = listing.captions, listing.further
        listing.caption_each(lambda _, text: dressed(text, config, word))
    if word:
        alone = sum(is_alone(with_trigger(text or "", word), word) for text in Texts[str | None](listing.written))
        if alone:
            told = f"{alone} of {len(listing)} pictures have no caption but the trigger word '{word}'"
            listing.notes.append(Note(f"{told}: describe what is seen, unless that is meant.", TRIGGER_ALONE))
    return listing
