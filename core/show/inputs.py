"""The inputs of ``ovs-show``: mask files and folders of label maps side by side, and the ground truth beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.formats.labels.named_maps import NamedMaps
    from ovskit.core.formats.photographs.options import PhotographsAt
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.show.agreement import SameClasses
    from ovskit.core.show.categories import Categories
    from ovskit.core.show.mask_files import MaskFile
    from ovskit.core.show.options import ShowInputs
    from ovskit.core.show.scene import Column, TruthColumn
    from ovskit.core.show.scenes import Scenes


@dataclass(frozen=True, slots=True)
class OpenedInputs:
    """The scenes, what their panels show, and the colours of categories."""

    scenes: Scenes
    columns: Sequence[Column]  # a ground truth of label maps is the last
    truth: TruthColumn | None
    categories: Categories


@contextmanager
def open_inputs(given: ShowInputs, at: PhotographsAt, workers: int, failures: Failures) -> Iterator[OpenedInputs]:
    """The files that ``given`` names, opened as long as the context lasts. Raises UsageError, InputError and MissingInputError for what
    cannot be used."""
    from ovskit.core.formats.labels.named_maps import chosen_space, open_named_maps
    from ovskit.core.formats.photographs.photographs import Photographs
    from ovskit.core.formats.streams.masks import open_masks
    from ovskit.core.formats.truth.ground_truth import open_ground_truth
    from ovskit.core.runtime.output import open_input
    from ovskit.core.show.categories import Categories, space_of
    from ovskit.core.show.mask_files import open_map_folder, open_mask_file
    from ovskit.core.show.scenes import Scenes

    files = given.files
    names = file_names(files)
    folders = {k for k, file in enumerate(files) if file != "-" and os.path.isdir(file)}
    # A pipe is read once, from front to back; a folder is open_inputs when it is known where its photographs are.
    lead = files.index("-") if "-" in files else None if 0 in folders else 0
    space, void = chosen_space(given.layout, given.names), given.void
    with ExitStack() as stack:
        found: dict[int, MaskFile] = {}
        for k, file in enumerate(files):
            if k != lead and k not in folders:
                found[k] = stack.enter_context(open_mask_file(file, failures))
        maps = (
            open_named_maps(str(given.gt), layout=given.layout, space=space, void=void, partial=True, failures=failures)
            if given.gt_is_maps
            else None
        )
        if maps is not None:
            maps.check()
        truth = None if given.gt is None or maps is not None else open_ground_truth(given.gt, segments=given.segments, failures=failures)
        headers = {k: file.header for k, file in found.items()}
        sets: Any = iter(())
        if lead is not None:
            headers[lead], sets = open_masks(stack.enter_context(open_input(files[lead])), names[lead], failures)
        known = [headers[k].root for k in sorted(headers, key=lambda k: (k != lead, k)) if headers[k].root is not None]
        root = at.root if at.root is not None else next(iter(known), None)
        if root is None:
            next(sets, None)  # if the file is broken, that is the first thing to say
            raise UsageError(f"{names[lead or 0]} does not say where its images are: add --root DIR")
        for k in folders:
            own = open_named_maps(
                files[k], layout=None if given.gt is not None else given.layout, space=space, void=void, partial=True, failures=failures
            )
            own.check()
            found[k] = open_map_folder(files[k], own, root, failures)
            headers[k] = found[k].header
        columns, truth_column = _columns(given, [headers[k] for k in range(len(files))], names, folders, maps, truth)
        others = [k for k in range(len(files)) if k != lead]
        exif = _exif(given, at, headers, names, truth, folders)
        roots = [at.root or headers[k].root or root for k in ([] if lead is None else [lead]) + others]
        below = {folder: Photographs(folder, max_pixels=at.max_pixels, exif=exif) for folder in roots}
        scenes = Scenes(
            sets, names[lead or 0], photographs=[below[folder] for folder in roots],
            failures=failures, others=[found[k] for k in others], place=lead,
            named=lead is None or headers[lead].named, truth=truth, at=given.match_iou, maps=maps,
            same=_same(columns, maps), workers=workers,
        )  # fmt: skip
        spaces = [s for s in (space, *map(space_of, headers.values())) if s is not None]
        every = [*columns, *([] if truth_column is None else [truth_column])]
        yield OpenedInputs(scenes, columns, truth_column, Categories(every, spaces))


def _exif(
    given: ShowInputs, at: PhotographsAt, headers: Mapping[int, MasksHeader], names: Sequence[str], truth: Any, folders: set[int]
) -> str:
    """How the photographs' orientations are treated: as the files state, which must not contradict each other."""
    from ovskit.core.formats.photographs.photographs import UNKNOWN, settled_exif

    said = [(headers[k].exif, names[k]) for k in headers if k not in folders]
    if truth is not None:
        said.append((truth.exif, truth.what))
    known = [(exif, name) for exif, name in said if exif != UNKNOWN]
    for exif, name in known:
        if exif != known[0][0]:
            raise UsageError(
                f"{name} was made with --exif {exif}, {known[0][1]} with --exif {known[0][0]}: they are not of the same pixels"
            )
        settled_exif(at.exif, exif, name)
    if at.exif is not None:
        return str(at.exif)
    if known and known[0][0] != "apply":
        return known[0][0]
    doubtful = bool(folders) or given.gt_is_maps or len(known) < len(said)
    return UNKNOWN if doubtful else "apply"


def file_names(files: Sequence[str]) -> list[str]:
    """The files' names for messages."""
    from ovskit.core.formats.paths import show_path

    return ["stdin" if file == "-" else show_path(file) for file in files]


def titles(names: Sequence[str]) -> list[str]:
    """The files' names without their folders, where that tells them apart."""
    short = [os.path.basename(name.rstrip("/")) or name for name in names]
    return short if len(set(short)) == len(names) else list(names)


def _columns(
    given: ShowInputs, headers: Sequence[MasksHeader], names: Sequence[str], folders: set[int], maps: NamedMaps | None, truth: Any
) -> tuple[list[Column], TruthColumn | None]:
    """What each panel shows. Where a file is coloured by category, so is a ground truth with several, for comparison at a glance."""
    from ovskit.core.show.categories import speaks_of_categories
    from ovskit.core.show.scene import Column, TruthColumn

    def asked(is_about: bool) -> bool:
        return given.colour == "category" or (given.colour == "auto" and is_about)

    def listed(header: MasksHeader) -> Any:
        """The categories of a file; the numbers of a results list, which has no categories, are taken to be the ground truth's, as in
        scores."""
        classes = maps if maps is not None else truth
        believed = header.results and given.colour == "category" and classes is not None
        return classes.categories if believed else header.categories

    columns = [
        Column(title, listed(header), header.pg, by_category=asked(k in folders or speaks_of_categories(header)))
        for k, (title, header) in enumerate(zip(titles(names), headers, strict=True))
    ]
    if maps is not None:
        return [*columns, Column("Ground truth", maps.categories, by_category=asked(True), is_map=True)], None
    if truth is None:
        return columns, None
    compared = any(column.by_category for column in columns) and len(truth.categories) > 1
    return columns, TruthColumn("Ground truth", truth.categories, by_category=asked(compared), at=given.match_iou)


def _same(columns: Sequence[Column], maps: NamedMaps | None) -> list[SameClasses | None]:
    """For each file, which of its categories are the classes of the ground truth's label maps."""
    from ovskit.core.show.agreement import same_classes

    if maps is None:
        return []
    *files, truth = columns
    return [same_classes(file.all_names, truth.all_names, maps.space) for file in files]
