"""What a method of ``ovs-cluster`` is given beside its options, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.methods import GivenBy
from ovskit.core.runtime.progress import Watch, unwatched

if TYPE_CHECKING:
    from ovskit.core.cluster.streams import RootedFeatures
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.formats.streams.numpy_features import NumpyFeatures
    from ovskit.core.records import FeatureMap, MaskSet
    from ovskit.core.runtime.failures import Failures


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ClusterJob:
    """A run of ``ovs-cluster`` but for its method.

    ``paths`` are what was named, ``-`` for stdin; ``sources`` the same to be read, as one. What is opened is closed with ``stack``. Images
    that cannot be used go to ``failures``. ``root``, ``exif`` and ``max_pixels`` say where photographs are and how they are read, for
    methods that look at them. ``provenance`` makes the entries of a file that the method writes beside the masks, from those of the
    stream; ``output`` is the masks' file, which no other file may be. ``given`` says which options were said by whom; the others have
    their defaults.
    """

    paths: Sequence[str]
    sources: Sequence[str | NumpyFeatures]
    stack: ExitStack
    failures: Failures
    workers: int = 1
    device: str = "auto"
    root: str | None = None
    exif: str | None = None
    max_pixels: int = 178_956_970
    output: str = "-"
    watch: Watch = unwatched
    provenance: Callable[[FeatureHeader], list[dict[str, Any]]] = lambda header: []
    given: Mapping[str, GivenBy] = field(default_factory=dict)


class Clustered(NamedTuple):
    """What a method makes: masks of the images that are not ``done`` yet, in order, and the categories that they have, if they mean the
    same in every image."""

    header: FeatureHeader
    masks: Callable[[frozenset[int]], Iterator[MaskSet]]
    categories: tuple[dict[str, Any], ...] | None = None


def left_of(records: Iterable[RootedFeatures], done: frozenset[int]) -> Iterator[RootedFeatures]:
    """The records of images that are not done yet."""
    return (record for record in records if record.features.image.id not in done)


def each_image(work: Callable[[FeatureMap, Any], MaskSet]) -> Callable[[ClusterJob, Any], Clustered]:
    """A method's ``run`` out of a function from one image's features and the options to its masks, which must depend on nothing else.

    It is called from several threads at once. An InputError or MissingInputError that it raises is of its image.
    """

    def run(job: ClusterJob, options: Any) -> Clustered:
        from ovskit.core.cluster.streams import FeatureInputs
        from ovskit.core.runtime.workers import ordered_map

        streams = job.stack.enter_context(FeatureInputs(job.sources))

        def one(record: RootedFeatures) -> MaskSet | InputError | MissingInputError:
            try:
                return work(record.features, options)
            except (InputError, MissingInputError) as error:
                return error

        def masks(done: frozenset[int]) -> Iterator[MaskSet]:
            for result in ordered_map(one, left_of(streams.records(), done), job.workers):
                if isinstance(result, InputError | MissingInputError):
                    job.failures.handle(result)
                else:
                    yield result

        return Clustered(streams.header, masks)

    return run
