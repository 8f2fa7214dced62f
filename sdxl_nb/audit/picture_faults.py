"""What is wrong with pictures: one small function for each kind.

In: names, upright sizes, digests and Measures of pictures, and the Buckets that they would be trained in. Out:
Findings (findings.py).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ..data.buckets import Buckets
from ..data.decoding import Fault
from ..data.listed_captions import TRIGGER_ALONE
from ..data.masks import Masks
from ..data.plugins import EXTRA
from ..data.sources.listing import Note
from . import duplicates
from .caption_faults import MISSING_CAPTION
from .findings import ERROR, NOTE, WARNING, Finding, counted, found
from .measures import Header, Measure

UNUSABLE = "unusable_data"
UNREADABLE = "unreadable"
TOO_LARGE = "decompression_bomb"
UNSUPPORTED = "unsupported_format"
MISSING_PLUGIN = "plugin_not_installed"
UNREADABLE_CAPTION = "unreadable_caption"
NOT_LISTED = "not_in_metadata"
BAD_NAME = "bad_name"
TWO_CAPTIONS = "two_caption_files"
ORPHAN_CAPTION = "caption_without_picture"
REMARK = "remark"
TOO_SMALL = "too_small"
EXTREME_ASPECT = "extreme_aspect"
CROPPED = "cropped_away"
ALONE = "bucket_of_few"
ROTATED = "exif_rotated"
COLOURS = "colours_not_honoured"
HIGH_RANGE = "high_dynamic_range"
TRANSPARENT = "transparent"
SEVERAL_FRAMES = "several_frames"
BLURRED = "blurred"
BLANK = "nearly_blank"
EXACT_DUPLICATE = "exact_duplicate"
NEAR_DUPLICATE = "near_duplicate"
OVERLAP = "validation_overlap"
MASKS = "masks"
UNUSABLE_MASK = "unusable_mask"

RATIO = 3.0  # sides beyond 3:1 are hardly ever meant
ENLARGED = 1.05  # less is not seen
LOST = 0.4  # share of the area that is worth a word: a square of a 3:2 photograph loses a third
SHARP = 0.46  # see measures.sharpness_of: photographs blurred by 2.5 pixels have 0.45 and less
FLAT = 4.0  # see measures.contrast_of
KINDS_OF_FAULT = (  # how data/dataset.py's sentences end or what they hold -> kind, severity
    ("has no caption", MISSING_CAPTION, WARNING),
    ("is not named in", NOT_LISTED, WARNING),
    ("in a format that cannot be read", UNSUPPORTED, WARNING),
    (EXTRA, MISSING_PLUGIN, WARNING),
    ("its caption file", UNREADABLE_CAPTION, WARNING),
    ("lone surrogate", UNREADABLE_CAPTION, WARNING),
    ("has more cells in", UNREADABLE_CAPTION, WARNING),
    ("a name that is not UTF-8", BAD_NAME, WARNING),
    ("million pixels", TOO_LARGE, WARNING),
    ("is an HDR picture", HIGH_RANGE, WARNING),
)
MESSAGES = {
    MISSING_CAPTION: ("{n} without a caption, left out of training.", "Add captions, or remove the pictures."),
    NOT_LISTED: ("{n} that no metadata file names, left out of training.", "Add a line for each, or remove them."),
    UNSUPPORTED: ("{n} in a format that cannot be read, left out of training.", "Save them as JPEG, PNG or WebP."),
    MISSING_PLUGIN: ("{n} in HEIC or JPEG XL, left out of training.", f"Read them with {EXTRA}, or save them as JPEG."),
    UNREADABLE_CAPTION: ("The captions of {n} cannot be read; left out of training.", "Save them as UTF-8 text."),
    BAD_NAME: ("{n} with a name that is not UTF-8, left out of training.", "Rename the files."),
    TOO_LARGE: ("{n} with more pixels than is safe to decode, left out of training.", "Make them smaller."),
    HIGH_RANGE: (
        "{n} in HDR, whose brightness sRGB cannot hold, left out of training.",
        "Export them as SDR, in sRGB: a tone mapping is a choice for the eye.",
    ),
    UNREADABLE: ("{n} that cannot be read, left out of training.", "Replace or remove the files."),
}
OF_FILES = {  # kinds of data's Notes that name files
    TWO_CAPTIONS: ("{n} with two captions, of which one is used.", "Keep the one that is right."),
    ORPHAN_CAPTION: (
        "Caption files without a picture of their name.",
        "Give picture and caption the same name, or remove what is left over.",
    ),
}


def left_out(faults: Sequence[Fault]) -> list[Finding]:
    """Findings for pictures that data/dataset.py leaves out, by kind, each with its sentence."""
    by_kind: dict[tuple[str, str], dict[str, str]] = {}
    for fault in faults:
        kinds = ((kind, severity) for mark, kind, severity in KINDS_OF_FAULT if mark in fault.sentence)
        by_kind.setdefault(next(kinds, (UNREADABLE, WARNING)), {})[fault.name] = fault.sentence
    return [f for (kind, grade), told in by_kind.items() for f in found(kind, grade, told, *MESSAGES[kind])]


def unusable(sentence: str) -> Finding:
    """The one finding about data that training would refuse; the sentence says what to do."""
    return Finding(UNUSABLE, ERROR, [], "Training would refuse these data.", sentence)


def noted(notes: Sequence[str]) -> list[Finding]:
    """What data/dataset.py remarks on its own: its sentences are short, and complete."""
    findings = []
    for note in notes:
        kind = note.kind if isinstance(note, Note) else REMARK
        if isinstance(note, Note) and kind in OF_FILES:
            findings += found(kind, WARNING, note.files, *OF_FILES[kind])
        elif kind != TRIGGER_ALONE:  # of which caption_faults tells
            findings.append(Finding(REMARK, NOTE, [], str(note), ""))
    return findings


def too_small(names: Sequence[str], buckets: Buckets, resolutions: Sequence[int]) -> list[Finding]:
    """Pictures that are enlarged to cover their training shape, and how much."""
    small = np.flatnonzero(buckets.upscaled > ENLARGED).tolist()
    remarks = {names[i]: f"enlarged {buckets.upscaled[i]:.1f} times" for i in small}
    sizes = " or ".join(map(str, sorted(set(resolutions))))
    message = f"{{n}} too small for {sizes} px, and enlarged."
    return found(TOO_SMALL, WARNING, remarks, message, "Use larger originals, or lower --resolution: enlarging blurs.")


def extreme_aspect(names: Sequence[str], sizes: np.ndarray) -> list[Finding]:
    """Pictures whose sides differ more than RATIO to 1."""
    long, short = sizes.max(axis=1), np.maximum(sizes.min(axis=1), 1)
    remarks = {names[i]: f"{sizes[i][1]}x{sizes[i][0]}" for i in np.flatnonzero(long / short > RATIO).tolist()}
    message = f"{{n}} with sides of more than {RATIO:g} to 1."
    return found(EXTREME_ASPECT, WARNING, remarks, message, "Crop them by hand to what matters.")


def cropped_away(names: Sequence[str], buckets: Buckets, buckets_on: bool) -> list[Finding]:
    """Pictures of which training never sees a large part at once."""
    remarks = {names[i]: f"loses {1 - buckets.kept[i]:.0%}" for i in np.flatnonzero(buckets.kept < 1 - LOST).tolist()}
    advice = "Crop them by hand" + ("." if buckets_on else ", or train with --aspect_ratio_buckets.")
    return found(CROPPED, NOTE if buckets_on else WARNING, remarks, f"{{n}} lose over {LOST:.0%} of the area.", advice)


def few_in_bucket(names: Sequence[str], buckets: Buckets, batch: int) -> list[Finding]:
    """Shapes with fewer pictures than a batch: such batches are filled up with other shapes and slower."""
    counts = buckets.counts()
    rare = [number for number, count in enumerate(counts) if count < min(batch, 2)]
    if len(counts) < 2 or len(names) < 2 * batch or not rare:
        return []
    alone = np.flatnonzero(np.isin(buckets.assignment, rare)).tolist()
    members = {names[i]: "{1}x{0}".format(*buckets.shape(i)) for i in alone}
    advice = "Nothing needs to be done; cropping them to a common shape saves steps."
    return found(ALONE, NOTE, members, "{n} alone in a shape.", advice)


def frames(names: Sequence[str], headers: Sequence[Header]) -> list[Finding]:
    """Animations: the first frame is used."""
    remarks = {n: f"{h.frames} frames" for n, h in zip(names, headers, strict=True) if h.frames > 1}
    return found(SEVERAL_FRAMES, NOTE, remarks, "{n} with several frames.", "The first one is used.")


def rotated(names: Sequence[str], headers: Sequence[Header]) -> list[Finding]:
    """Pictures stored turned or mirrored, with a tag that says so."""
    remarks = {name: "" for name, header in zip(names, headers, strict=True) if header.rotated}
    advice = "Training turns them upright; look whether they are, since the tag may be wrong."
    return found(ROTATED, NOTE, remarks, "{n} turned by EXIF orientation.", advice)


def colours(names: Sequence[str], headers: Sequence[Header]) -> list[Finding]:
    """Pictures that say of their colours what cannot be honoured."""
    remarks = {name: header.colours for name, header in zip(names, headers, strict=True) if header.colours}
    message = "{n} with colours that cannot be taken as the file says."
    return found(COLOURS, WARNING, remarks, message, "Look at them, and save them in sRGB with a picture editor.")


def masks(known: Masks) -> list[Finding]:
    """How many pictures have a mask that masked_loss uses, and which masks cannot be used."""
    faults = {fault.name: fault.sentence for fault in known.faults}
    advice = "Save each in its picture's shape, or remove it: training refuses them."
    missing = "" if known.kinds.any() else "Training would refuse the data: add masks, or drop --masked_loss."
    grade = ERROR if missing else NOTE
    return [
        *found(UNUSABLE_MASK, ERROR, faults, "The masks of {n} cannot be used.", advice),
        Finding(MASKS, grade, [], str(known), missing),
    ]


def transparent(names: Sequence[str], measures: Sequence[Measure]) -> list[Finding]:
    remarks = {name: "" for name, measure in zip(names, measures, strict=True) if measure.transparent}
    advice = (
        "They are put on white, which the LoRA then learns: choose --alpha_background, or train what is opaque alone, "
        "--masked_loss."
    )
    return found(TRANSPARENT, WARNING, remarks, "{n} with transparency.", advice)


def blank(names: Sequence[str], measures: Sequence[Measure]) -> list[Finding]:
    remarks = {name: "" for name, measure in zip(names, measures, strict=True) if is_blank(measure)}
    return found(BLANK, WARNING, remarks, "{n} nearly blank.", "Remove them: they teach an empty plane.")


def is_blank(measure: Measure) -> bool:
    return measure.contrast < FLAT


def blurred(names: Sequence[str], measures: Sequence[Measure]) -> list[Finding]:
    """Pictures out of focus, moved or enlarged before, at the resolution of training."""
    remarks = {
        name: f"sharpness {measure.sharpness:.2f}"
        for name, measure in zip(names, measures, strict=True)
        if measure.sharpness < SHARP and not is_blank(measure)
    }
    message = f"{{n}} blurred (sharpness below {SHARP:g}; photographs in focus have 0.65 and more)."
    return found(BLURRED, WARNING, remarks, message, "Remove them, or find sharper originals: blur is learned too.")


def exact_duplicates(names: Sequence[str], digests: Sequence[bytes], captions: Sequence[object]) -> list[Finding]:
    """Files with the same bytes; a remark says where their captions disagree."""
    remarks = {}
    for group in duplicates.equal(list(digests)):
        differ = len({captions[i] for i in group}) > 1
        for i in group:
            others = ", ".join(names[j] for j in group[:4] if j != i)
            remarks[names[i]] = f"as {others}" + ("; captions differ" if differ else "")
    message = f"{{n}} are exact copies, in {counted(len(duplicates.equal(list(digests))), 'group')}."
    return found(EXACT_DUPLICATE, WARNING, remarks, message, "Keep one of each: copies count double.")


def near_duplicates(names: Sequence[str], measures: Sequence[Measure]) -> list[Finding]:
    """Pictures that look alike without being the same file; flat ones all look alike and are left out."""
    seen: set[bytes] = set()
    kept = []
    for i, measure in enumerate(measures):
        if not is_blank(measure) and measure.digest not in seen:
            seen.add(measure.digest)
            kept.append(i)
    if not kept:
        return []
    hashes, colours = looks([measures[i] for i in kept])
    groups = duplicates.groups(duplicates.near(hashes, colours))
    remarks = {
        names[kept[i]]: f"like {', '.join(names[kept[j]] for j in group[:4] if j != i)}"
        for group in groups
        for i in group
    }
    message = f"{{n}} look nearly the same, in {counted(len(groups), 'group')}."
    return found(
        NEAR_DUPLICATE, WARNING, remarks, message, "Keep the best of each group: likenesses are learned first."
    )


def looks(measures: Sequence[Measure]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (N,) uint64 and thumbnails (N, 192) uint8."""
    hashes = np.array([measure.hash for measure in measures], dtype=np.uint64)
    colours = np.frombuffer(b"".join(measure.colours for measure in measures), np.uint8)
    return hashes, colours.reshape(len(measures), -1)


def overlap(names: Sequence[str], measures: Sequence[Measure], others: Mapping[str, Measure]) -> list[Finding]:
    """Pictures that the validation set holds too, as the same file or nearly."""
    if not measures or not others:
        return []
    digests = {measure.digest: name for name, measure in others.items()}
    alike = duplicates.across(*_crossed(measures, list(others.values())))
    remarks = {}
    for i, (name, measure) in enumerate(zip(names, measures, strict=True)):
        if measure.digest in digests:
            remarks[name] = f"is {digests[measure.digest]}"
        elif alike[i] and not is_blank(measure):
            remarks[name] = "looks like one of them"
    advice = "Take them out of one of the two: the held-out loss would be too good."
    return found(OVERLAP, WARNING, remarks, "{n} are in the validation set too.", advice)


def _crossed(ours: Sequence[Measure], theirs: Sequence[Measure]) -> tuple[np.ndarray, ...]:
    (our_hashes, our_colours), (their_hashes, their_colours) = looks(ours), looks(theirs)
    return our_hashes, their_hashes, our_colours, their_colours
