"""What the methods that name patches share: from a job and options to ``Predicted``, with what each of them does in between."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from ovskit.core.formats.labels.map_folder import MapFolder
from ovskit.core.formats.labels.spaces import LabelClass, LabelSpace, open_label_space, templates
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import settled_exif
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.formats.streams.mask_inputs import MaskInputs
from ovskit.core.formats.text_files import decode_utf8, read_small
from ovskit.core.models.backbones.dense import DenseTower
from ovskit.core.models.families import has_dense, has_words, names_with_dense
from ovskit.core.models.registry import load_dense
from ovskit.core.models.words import USUAL_BACKGROUND, NameOptions, Words, load_words, name_categories
from ovskit.core.predict.dense.decisions import Decisions
from ovskit.core.predict.dense.judged_thresholds import JudgedThresholds
from ovskit.core.predict.dense.masks_beside import MasksBeside
from ovskit.core.predict.dense.namer import PatchNamer
from ovskit.core.predict.dense.options import WHOLE, NamingOptions
from ovskit.core.predict.dense.protocols import Protocol, protocol
from ovskit.core.predict.dense.run import Look, NameRun
from ovskit.core.predict.job import Predicted, PredictJob
from ovskit.core.records import MaskSet
from ovskit.core.runtime.device import choose_device
from ovskit.core.runtime.errors import InputError, UsageError


def name_patches(job: PredictJob, options: NamingOptions, method: str, open_namer: Callable[[DenseTower], PatchNamer]) -> Predicted:
    """Names on pixels by ``method``, whose ``open_namer`` is given the image tower.

    What a person got wrong is said before weights are looked for. Raises UsageError for options that do not go together or a model that
    cannot do it, and what opening the label space, masks and weights raises.
    """
    space = open_label_space(options.names)
    preset = protocol(options.protocol, space.name, method)
    prompts = _templates(options.templates or preset.templates, space)
    background = _background_words(options.background_words, space, usual=preset.background)
    model = _model(job)
    given = _given_masks(job, options)
    maps = None if options.maps is None else MapFolder(options.maps, space)
    judged = None if options.sweep is None else JudgedThresholds(str(options.sweep), options.layout, space, job.failures)
    device = choose_device(job.device)
    tower = load_dense(model, weights=job.weights, device=device, dtype=dtype_of(options.precision, device))
    namer = open_namer(tower)

    def read() -> Words:
        def watch(classes: Iterable[LabelClass]) -> Iterable[LabelClass]:
            return job.watch(classes, "reading names", total=len(space.classes))

        return load_words(space, tower.spec, weights=job.weights, device=device, watch=watch, templates=prompts, background=background)

    def masks(sources: Sequence[Source]) -> Iterator[MaskSet]:
        if maps is not None:
            maps.check(sources)
        if not sources:
            return
        run = _name_run(job, options, preset, namer, read())
        beside = ((source, None) for source in sources) if given is None else MasksBeside(given, sources, _what(options))
        yield from replace(run, maps=maps, judge=None if judged is None else judged.judge).masks(beside)

    labels = {"name": space.name, "version": space.version, "hash": space.hash}
    return Predicted(
        tower.spec.model,
        tower.spec.weights_sha256,
        masks,
        name_categories(space),
        labels,
        pg=() if given is None else given.header.pg,
        report=None if judged is None else judged.report,
    )


def _name_run(job: PredictJob, options: NamingOptions, preset: Protocol, namer: PatchNamer, words: Words) -> NameRun:
    """The options with the protocol's values where none are given."""
    min_prob = preset.min_prob if options.min_prob is None else options.min_prob
    window = preset.window if options.window is None else options.window
    decisions = Decisions(words, scale=options.scale or preset.scale, over_classes=options.softmax == "classes", device=namer.device)
    return NameRun(
        namer,
        decisions,
        Look(options.short_side or preset.short_side, None if window == WHOLE else window, options.stride or preset.stride),
        job.failures,
        min_prob=min_prob,
        correct=options.correct,
        top=NameOptions(options.top_k, min_prob) if options.write == "masks" else None,
        batch_size=options.batch_size,
        workers=job.workers,
        max_pixels=job.max_pixels,
    )


def _model(job: PredictJob) -> str:
    if job.model is None:
        raise UsageError(f"no model: name one that knows words with --model, {names_with_dense()}")
    if not has_dense(job.model):
        why = "has no image tower whose patches can be named" if has_words(job.model) else "knows no words"
        raise UsageError(f"--model {job.model} {why}: name {names_with_dense()}")
    return job.model


def _given_masks(job: PredictJob, options: NamingOptions) -> MaskInputs | None:
    if options.masks is None:
        return None
    given = job.stack.enter_context(MaskInputs([options.masks], job.failures))
    settled_exif(job.exif, given.header.exif, _what(options))
    return given


def _what(options: NamingOptions) -> str:
    assert options.masks is not None
    return "stdin" if options.masks == "-" else show_path(options.masks)


def _templates(name: str, space: LabelSpace) -> tuple[str, ...]:
    return space.templates if name == "space" else templates(name)


def _background_words(text: str | None, space: LabelSpace, *, usual: bool) -> tuple[str, ...]:
    """The words of ``--background-words``. Raises UsageError for a space without a background, and for no word at all."""
    if text is None:
        return USUAL_BACKGROUND if usual and space.background is not None else ()
    if text == "none":
        return ()
    if space.background is None:
        raise UsageError(f"--background-words: the label space {space.name} has no background that they could stand for")
    if text == "usual":
        return USUAL_BACKGROUND
    if os.path.exists(text) or text.endswith(".txt"):
        where = show_path(text)
        lines = decode_utf8(read_small(text, "a list of words"), where).splitlines()
        words = tuple(" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#"))
        if not words:
            raise InputError(f"{where}: no word in it; write one a line")
        return words
    words = tuple(" ".join(word.split()) for word in text.split(",") if word.strip())
    if not words:
        raise UsageError("--background-words: give words with commas between them, a file with a word a line, usual or none")
    return words


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """The type to compute in that ``--precision`` asks for."""
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32
