"""``--skip-existing``: an output that is there already is left alone if it is what this run would write, and refused if it is not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovskit.cli.command import log
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.formats.streams.curated import CuratedHeader
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.formats.streams.image_labels import ImageLabelsHeader
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.runtime.failures import Failures


def is_there(
    output: str,
    header: FeatureHeader | MasksHeader | CuratedHeader | ImageLabelsHeader,
    *,
    chosen: Sequence[Source] | None = None,
    failures: Failures | None = None,
    categories: bool = True,
) -> bool:
    """Whether the file ``output`` is whole and begins with ``header`` (masks', but for its ``categories``, if these are not known yet).

    ``chosen`` are the images it should have; those that it lacks must have been skipped, and are reported as then. Raises UsageError or
    InputError for a file that is not what this run would write, PartialError if ``failures`` has some.
    """
    from ovskit.core.formats.paths import show_path
    from ovskit.core.formats.streams.existing import check_existing
    from ovskit.core.runtime.failures import PartialError

    if output == "-" or not os.path.isfile(output):
        return False
    found = check_existing(output, header, categories=categories)
    what = show_path(output)
    if chosen is not None:
        strangers = found - {source.id for source in chosen}
        if strangers:
            raise UsageError(
                f"--skip-existing: {what} has image {min(strangers)}, which is not among this run's; remove it to have it made again"
            )
        lacking = [source for source in chosen if source.id not in found]
        if lacking:
            said = f"{len(lacking)} of {len(chosen)} images, such as {show_path(lacking[0].file_name)}"
            if failures is None or not failures.skips:
                raise UsageError(f"--skip-existing: {what} lacks {said}; remove it to have it made again, or add --on-error skip")
            raise PartialError(f"{what} is there already; it lacks {said}, which were skipped when it was made")
    log.info("%s is there already", what)
    if failures is not None:
        failures.report(len(found))
    return True
