"""Segments from masks: a segmentation of a photograph for each of several sizes, out of whatever masks there are of it.

Masks of entities and their parts overlap. At a size, a place belongs to the smallest mask that holds it and is at least that
share of the photograph; where there is none, to what is left over. Nested masks, as ``ovs-cluster`` makes them at
several numbers of regions, so give nested segmentations, coarser with the share. [choice: no paper prescribes it]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ovskit.core.formats.image_names import ImageNames
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import IGNORE, UNKNOWN, check_named, settled_exif
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.formats.streams.masks import open_masks
from ovskit.core.masks.paint import topmost
from ovskit.core.masks.runs import chosen, table_of
from ovskit.core.records import MaskSet, UInt8
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.output import open_input

log = get_logger("train")


def mask_segments(masks: MaskSet, shares: Sequence[float], height: int, width: int) -> UInt8:
    """The number, modulo 256, of each place's segment: (height, width, levels) uint8, a level for each of ``shares``.

    ``shares`` are of the photograph's area, in [0, 1]; places are the middles of height × width equal cells. 0 is what no mask
    holds. If two masks have one area, the later one of the stream counts as the smaller. Raises InputError for a malformed mask.
    """
    order = sorted(range(len(masks.masks)), key=lambda k: -masks.masks[k].area)
    out = np.zeros((height, width, len(shares)), np.uint8)
    if not order:
        return out
    table = chosen(table_of(masks), order)
    rows = ((np.arange(height) * 2 + 1) * table.height) // (2 * height)
    cols = ((np.arange(width) * 2 + 1) * table.width) // (2 * width)
    for level, share in enumerate(shares):
        large = int(np.count_nonzero(table.areas >= share * table.height * table.width))
        out[..., level] = topmost(table, large)[np.ix_(rows, cols)] % 256
    return out


def with_masks(sources: Sequence[Source], path: Path) -> Iterator[tuple[Source, MaskSet | InputError]]:
    """Every source with its masks out of a masks file, in the order of the file; then those that it lacks, with an error.

    Names need not be the same as long as one is the end of the other (``ImageNames``). Masks of photographs that are not
    among ``sources`` are counted in a warning. One photograph's masks are in memory. Raises InputError for a damaged
    file, or if it has none of the photographs; MissingInputError if it is not there.
    """
    what = show_path(str(path))
    names = ImageNames(sources, "the photographs given")
    found = np.zeros(len(sources), np.bool_)
    others = 0
    with open_input(str(path)) as stream:
        header, sets = open_masks(stream, what)
        check_named(header.named, what)
        sources = [replace(source, exif=settled_exif(source.exif, header.exif, what)) for source in sources]
        if header.exif == UNKNOWN:  # to be warned of
            sources = [source if source.exif == IGNORE else replace(source, exif=UNKNOWN) for source in sources]
        for masks in sets:
            place = names.find(masks.image.file_name)
            if place is None:
                others += 1
                continue
            if found[place[0]]:
                raise InputError(f"{what}: two images fit {show_path(sources[place[0]].file_name)}")
            found[place[0]] = True
            yield sources[place[0]], masks
    if not found.any():
        raise InputError(f"{what}: has none of the photographs given; its names are like those that ovs-extract gives the same IMAGES")
    if others:
        log.warning("%s: %d images are not among the photographs given and are left out", what, others)
    for k in np.flatnonzero(~found).tolist():
        yield sources[k], InputError(f"{show_path(sources[k].file_name)}: has no masks in {what}")
