"""python -m sdxl_nb.audit: what is wrong with a data set, before money is spent on it.

    python -m sdxl_nb.audit --train_data_dir pictures
    python -m sdxl_nb.audit --train_data_dir pictures --resolution 768 --trigger_word sks --json findings.json

In: the settings of a run (--help lists them), of which those about data, resolution, buckets and the base's tokenizers
matter. Out: an AuditReport. `audit_dataset` decodes every picture once; `quick_findings` looks at names, sizes,
captions and hashes only, and is what training does by itself. Exit code: 0, 1 when training would refuse the data,
2 for a setting that cannot work.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..config.flags import read_flags, train_parser
from ..config.train_config import TrainConfig
from ..data import buckets
from ..data.captions import is_alone
from ..data.dataset import CaptionedPictures, Faults, open_dataset
from ..data.decoding import Fault, PictureError
from ..data.masks import Masks
from ..data.sources.listing import counts
from ..data.words.trigger import calls, with_trigger
from ..system.errors import ConfigError, DataError, ModelError, SdxlNbError
from ..system.threads import ahead
from . import caption_faults, picture_faults
from .findings import NOTE, AuditReport, Finding, Part
from .measures import Header, Measure, measure, read_header

TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
UNCHECKED = "not_checked"
Looked = Header | Measure  # what is known of a picture
FIRST = 10_000  # pictures that a start of training looks at: captions of more would take seconds


def audit_dataset(
    config: TrainConfig, *, quick: bool = False, progress: bool | Callable[[int, int], object] = True
) -> AuditReport:
    """Everything that is wrong with the pictures and captions that a TrainConfig names, as an AuditReport.

    Every picture is decoded once, by as many threads as there are cores, and let go; what stays is some 300 bytes a
    picture. `quick` reads headers instead. `progress` shows a bar, or is called with how many were looked at and how
    many there are. Data that training would refuse are a finding of severity error, not an exception; ConfigError and
    ModelError can still come from a configuration that names no base model.
    """
    try:
        pictures = open_dataset(config)
    except DataError as error:
        return AuditReport(_source(config), 0, [picture_faults.unusable(str(error))], full=not quick)
    look: Callable[[int], Looked | Fault]
    look = partial(_header if quick else _measured, pictures, config)
    looked, faults = _examined(pictures, look, progress)
    good = [index for index, one in enumerate(looked) if one is not None]
    if not good:
        finding = picture_faults.unusable(f"None of the {len(pictures)} pictures can be used: replace them.")
        listed = picture_faults.left_out([*pictures.faults, *faults])
        return AuditReport(pictures.source, 0, [finding, *listed], full=not quick, pictures=pictures)
    used = pictures.select(good)
    names, kept = list(used.names), [one for one in looked if one is not None]
    measures = [one for one in kept if isinstance(one, Measure)]
    headers = [one.header if isinstance(one, Measure) else one for one in kept]
    sizes = np.array([header.size for header in headers])
    tokenizers, notes = _tokenizers(config)
    findings = [*picture_faults.left_out([*pictures.faults, *faults]), *picture_faults.noted(pictures.notes), *notes]
    findings += [*_about_sizes(config, used, sizes), *_about_headers(names, headers)]
    findings += _about_captions(config, used, tokenizers)
    findings += picture_faults.masks(Masks(used)) if config.masked_loss else []
    if not quick:
        findings += [*_about_pixels(used, measures), *_overlap(config, used, names, measures)]
    if config.masked_loss or config.alpha_background != "white":  # transparency is seen to
        findings = [finding for finding in findings if finding.kind != picture_faults.TRANSPARENT]
    shapes = buckets.of(config, sizes, folders=used.folders).summary(names=names)
    return AuditReport(pictures.source, len(good), findings, shapes, full=not quick, pictures=pictures)


def quick_findings(
    config: TrainConfig,
    pictures: CaptionedPictures,
    sizes: np.ndarray,
    digests: Sequence[bytes] = (),
    tokenizers: Sequence[Any] = (),
) -> AuditReport:
    """The audit that training does by itself, of pictures that are open and whose upright sizes (N, 2) are known.

    `digests` are their SHA-256. Nothing is read or decoded.
    """
    names = list(pictures.names)
    findings = picture_faults.left_out(pictures.faults) + _about_sizes(config, pictures, np.asarray(sizes))
    findings += _about_captions(config, pictures, dict(zip(TOKENIZERS, tokenizers, strict=False)))
    if len(digests):
        texts, once = _all_texts(pictures), _each_file_once(pictures)
        own, seen = [names[index] for index in once], [bytes(digests[index]) for index in once]
        findings += picture_faults.exact_duplicates(own, seen, [texts[index] for index in once])
    return AuditReport(pictures.source, len(pictures), findings, full=False, pictures=pictures)


def quick_summary(config: TrainConfig, pictures: CaptionedPictures, sizes: np.ndarray) -> str:
    """One line of `quick_findings` for the start of training; of very many pictures the first are looked at.

    Class pictures come last, and are not looked at: they may have the names of others.
    """
    own = len(pictures) - pictures.class_pictures
    each = np.ones(len(pictures), np.int64) if pictures.further is None else 1 + counts(pictures.further)
    some = pictures.select(range(min(own, int(np.searchsorted(np.cumsum(each), FIRST, side="right")))))
    report = quick_findings(config, some, np.asarray(sizes)[: len(some)])
    more = f" Of {own} pictures the first were looked at." if len(some) < own else ""
    advice = " python -m sdxl_nb.audit says which, and looks at the pixels too." if report.findings else ""
    return report.summary() + advice + more


def _source(config: TrainConfig) -> str:
    return str(config.train_data_dir or config.dataset_name)


# Reading the pictures.


def _header(pictures: CaptionedPictures, config: TrainConfig, index: int) -> Header | Fault:
    try:
        return read_header(pictures.picture_bytes(index), pictures.names[index])
    except PictureError as error:
        return Fault(pictures.names[index], str(error))


def _measured(pictures: CaptionedPictures, config: TrainConfig, index: int) -> Measure | Fault:
    resolution = pictures.config(index, config).resolution
    try:
        return measure(pictures.picture_bytes(index), pictures.names[index], resolution)
    except PictureError as error:
        return Fault(pictures.names[index], str(error))


def _examined(
    pictures: CaptionedPictures, look: Callable[[int], Looked | Fault], progress: bool | Callable[[int, int], object]
) -> tuple[list[Looked | None], list[Fault]]:
    """What `look` says of each picture, None for one that cannot be used, and the Faults."""
    from ..system.progress import progress_bar

    seen: list[Looked | None] = []
    faults: list[Fault] = []
    with progress_bar(
        total=len(pictures), desc="looking at pictures", disable=progress is not True, leave=False
    ) as bar:
        for result in ahead(look, range(len(pictures))):
            if isinstance(result, Fault):
                faults.append(result)
            seen.append(None if isinstance(result, Fault) else result)
            bar.update()
            if callable(progress):
                progress(len(seen), len(pictures))
    return seen, faults


# The parts of an audit.


def _about_sizes(config: TrainConfig, pictures: CaptionedPictures, sizes: np.ndarray) -> list[Finding]:
    names, configs = list(pictures.names), pictures.configs(config)
    shapes = buckets.of(config, sizes, folders=pictures.folders)
    return [
        *picture_faults.too_small(names, shapes, [each.resolution for each in configs]),
        *picture_faults.extreme_aspect(names, sizes),
        *picture_faults.cropped_away(names, shapes, all(each.uses_buckets() for each in configs)),
        *picture_faults.few_in_bucket(names, shapes, config.train_batch_size),
    ]


def _each_file_once(pictures: CaptionedPictures) -> list[int]:
    """The pictures, of those that a data file has twice (at two resolutions, say) the first: they are no copies."""
    if pictures.folders is None:
        return list(range(len(pictures)))
    files: dict[str, int] = {}
    for index in range(len(pictures)):
        files.setdefault(pictures.stamp(index) or f"number {index}", index)
    return list(files.values())


def _about_headers(names: Sequence[str], headers: Sequence[Header]) -> list[Finding]:
    looks = (picture_faults.rotated, picture_faults.frames, picture_faults.colours)
    return [finding for look in looks for finding in look(names, headers)]


def _about_pixels(pictures: CaptionedPictures, measures: Sequence[Measure]) -> list[Finding]:
    names, captions, once = list(pictures.names), _all_texts(pictures), _each_file_once(pictures)
    own, seen = [names[index] for index in once], [measures[index] for index in once]
    return [
        *picture_faults.exact_duplicates(own, [one.digest for one in seen], [captions[index] for index in once]),
        *picture_faults.near_duplicates(own, seen),
        *picture_faults.blank(names, measures),
        *picture_faults.blurred(names, measures),
        *picture_faults.transparent(names, measures),
    ]


def _about_captions(config: TrainConfig, pictures: CaptionedPictures, tokenizers: Mapping[str, Any]) -> list[Finding]:
    """Captions as they are written; what the tokenizers cut is told of captions with the trigger word in front."""
    captions, written, own = _labelled(pictures, config)
    alone: list[Finding] = []
    covered: list[Finding] = []
    described = dict(written)
    for word in dict.fromkeys(each.trigger_word for each in own.values()):
        led = [name for name, caption in captions.items() if own[name].trigger_word == word and calls(caption, word)]
        only = dict.fromkeys((name for name in led if word and is_alone(with_trigger(written[name], word), word)), "")
        alone += caption_faults.trigger_alone(only, word)
        covered += caption_faults.trigger_coverage(written, word, led)
        described = {name: text for name, text in described.items() if name not in only}
    tags = {name: text for name, text in written.items() if not own[name].clean_tags}
    return [
        *alone,
        *caption_faults.check_captions(described),
        *caption_faults.booru_tags(tags, config, tokenizers),
        *caption_faults.cut_captions(captions, tokenizers, config.chunks()),
        *covered,
    ]


def _labelled(
    pictures: CaptionedPictures, config: TrainConfig
) -> tuple[dict[str, str], dict[str, str], dict[str, TrainConfig]]:
    """All captions as training reads them, as they are written, and the configuration of their picture, by name, or by
    Part where a picture has several."""
    trained, told, own = dict[str, str](), dict[str, str](), dict[str, TrainConfig]()
    for index, name in enumerate(pictures.names):
        texts = pictures.alternatives(index)
        parts = [Part(name, number, len(texts)) for number in range(1, len(texts) + 1)] if texts[1:] else [name]
        trained |= zip(parts, texts, strict=True)
        told |= zip(parts, pictures.written_alternatives(index) or [""], strict=True)
        own |= dict.fromkeys(parts, pictures.config(index, config))
    return trained, told, own


def _all_texts(pictures: CaptionedPictures) -> Sequence[object]:
    """Of each picture what it is captioned with, to be compared."""
    if pictures.further is None:
        return list(pictures.captions)
    return [tuple(pictures.alternatives(index)) for index in range(len(pictures))]


def _tokenizers(config: TrainConfig) -> tuple[dict[str, Any], list[Finding]]:
    """The base's tokenizers by text encoder, or a note that says why captions cannot be counted in tokens."""
    from ..models.loading import load
    from ..models.sources import Source

    try:
        return {encoder: load(Source.of(config), part) for encoder, part in TOKENIZERS.items()}, []
    except ModelError as error:
        message = f"The length of captions in tokens was not checked: {error}"
        return {}, [Finding(UNCHECKED, NOTE, [], message, "")]


def _overlap(
    config: TrainConfig, used: CaptionedPictures, names: Sequence[str], measures: Sequence[Measure]
) -> list[Finding]:
    """Pictures to train on that the held-out ones hold too: as the same file, or nearly."""
    by_folder = used.folders is not None and used.folders.held_out().any()
    if not config.validation_data_dir and not config.validation_split and not by_folder:
        return []
    from ..data.split import divide

    try:
        kept, held_out = divide(
            config, used, lambda opened: Faults()
        )  # those that cannot be read are passed over below
    except SdxlNbError as error:
        return [Finding(UNCHECKED, NOTE, [], f"The validation pictures cannot be looked at: {error}", "")]
    known = dict(zip(names, measures, strict=True))
    if config.validation_data_dir:
        others = dict(_all_measured(held_out, config))
    else:
        others = {name: known[name] for name in held_out.names}
    mine = list(kept.names)
    return picture_faults.overlap(mine, [known[name] for name in mine], others)


def _all_measured(pictures: CaptionedPictures, config: TrainConfig) -> Iterator[tuple[str, Measure]]:
    looked = ahead(partial(_measured, pictures, config), range(len(pictures)))
    for name, result in zip(pictures.names, looked, strict=True):
        if isinstance(result, Measure):
            yield name, result


def main(argv: Sequence[str] | None = None) -> int:
    """Audit as argv says; prints the report. Errors a user can mend are one sentence on stderr."""
    parser = train_parser("python -m sdxl_nb.audit", "Look for faults in pictures and captions.")
    parser.add_argument("--json", metavar="FILE", help="write the findings as a JSON list too")
    parser.add_argument("--quick", action="store_true", help="read names, sizes and captions only, decode nothing")
    try:
        config, asked = read_flags(parser, argv)
        report = audit_dataset(config, quick=asked.quick)
        if asked.json:
            report.save(asked.json)
        print(str(report).encode(errors="backslashreplace").decode())
    except SdxlNbError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 1 if report.fails else 0
