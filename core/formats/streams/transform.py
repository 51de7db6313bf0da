"""A function applied to the masks of every image of a stream, as every command between ``ovs-cluster`` and ``ovs-show`` does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map


def transform_masks(
    sets: Iterable[MaskSet],
    work: Callable[[MaskSet], MaskSet],
    failures: Failures,
    *,
    workers: int,
    done: frozenset[int] = frozenset(),
) -> Iterator[MaskSet]:
    """The results of ``work`` for every image's masks, in order whatever the number of ``workers``; several images at a time.

    Images whose id is in ``done`` are passed over. An image at which ``work`` raises InputError or MissingInputError goes
    to ``failures``; a damaged stream raises InputError whatever ``failures`` says.
    """

    def attempt(masks: MaskSet) -> MaskSet | InputError | MissingInputError | None:
        if masks.image.id in done:
            return None
        try:
            return work(masks)
        except (InputError, MissingInputError) as error:
            return error

    for result in ordered_map(attempt, sets, workers):
        if isinstance(result, MaskSet):
            yield result
        elif result is not None:
            failures.handle(result)
