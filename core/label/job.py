"""What a method of ``ovs-label`` is given beside its options, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ovskit.core.label.encoder import Encoder
from ovskit.core.label.inputs import LabelInputs
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.progress import Watch, unwatched

if TYPE_CHECKING:
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.label.crops import CropOptions
    from ovskit.core.label.mask_vectors import MaskVectors
    from ovskit.core.models.backbones.interface import Backbone, BackboneSpec
    from ovskit.core.records import MaskSet
    from ovskit.core.runtime.failures import Failures

log = get_logger("label")

Records = Callable[[frozenset[int]], Iterator["MaskSet"]]
"""The masks of all images but those whose ids are given, since they are done."""


@dataclass(frozen=True, slots=True)
class LabelJob:
    """A run of ``ovs-label`` but for its method.

    What is opened is closed with ``stack``. Images that cannot be used go to ``failures``. ``encoder`` opens the model that encodes the
    masks. ``root``, ``exif`` and ``max_pixels`` say where photographs are and how they are read, if the masks do not. ``output`` is the
    masks' file, which no other file may be. ``provenance`` makes the entries of what is written from the header of the masks that are read
    and the model.
    """

    inputs: LabelInputs
    stack: ExitStack
    failures: Failures
    encoder: Encoder
    workers: int = 1
    root: str | None = None
    exif: str | None = None
    max_pixels: int = 178_956_970
    output: str = "-"
    watch: Watch = unwatched
    provenance: Callable[[MasksHeader, BackboneSpec], list[dict[str, Any]]] = lambda header, spec: []

    def root_of(self, header: MasksHeader) -> str:
        """The images' root. Raises UsageError where it is not stated, InputError if the masks do not name their images."""
        from ovskit.core.formats.photographs.photographs import check_named

        check_named(header.named, "the masks")
        features = self.inputs.features
        found = self.root or header.root or (None if features is None else features.root)
        if found is None:
            raise UsageError("the masks do not say where their images are: add --root DIR")
        return found

    def header(self, header: MasksHeader, backbone: Backbone, **changes: Any) -> MasksHeader:
        """The header of the output: the masks' own with ``changes``, this run's provenance, and where the images are."""
        pg = self.provenance(header, backbone.spec)
        return replace(header, pg=pg, root=self.root_of(header), exif=self.exif or header.exif, **changes)

    def encode(
        self,
        sets: Iterable[MaskSet],
        backbone: Backbone,
        crop: CropOptions,
        header: MasksHeader,
        done: frozenset[int] = frozenset(),
    ) -> Iterator[MaskVectors]:
        """The vectors of every image's masks; warns of masks without a pixel, which are dropped."""
        from ovskit.core.formats.photographs.photographs import settled_exif
        from ovskit.core.label.mask_vectors import EncodeOptions, encode_masks

        exif = settled_exif(self.exif, header.exif, "the masks stream")
        encoding = EncodeOptions(crop, self.root_of(header), self.encoder.options.batch_size, self.workers, self.max_pixels, exif)
        empty = 0

        def counted() -> Iterator[MaskSet]:
            nonlocal empty
            for masks in sets:
                empty += sum(mask.area == 0 for mask in masks.masks)
                yield masks

        yield from encode_masks(counted(), backbone, encoding, self.failures, done=done)
        if empty:
            log.warning("dropped %s without a pixel", "1 mask" if empty == 1 else f"{empty:,} masks")


@dataclass(frozen=True, slots=True)
class Labelled:
    """The result of a method: the header of the output, and ``start``, which does the work before the first image and returns the masks."""

    header: MasksHeader
    start: Callable[[], Records]

    def masks(self) -> Records:
        """The masks; warns if the whole output has no mask."""
        records = self.start()

        def noted(done: frozenset[int]) -> Iterator[MaskSet]:
            number = len(done)
            for masks in records(done):
                number += len(masks.masks)
                yield masks
            if not number:
                log.warning("the output has no masks")

        return noted
