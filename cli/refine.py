"""``ovs-refine``: masks whose boundaries follow the image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.expand import Choice
from ovskit.cli.groups import Common, Compute, MasksIn, PhotographsAt, StreamOut
from ovskit.cli.output import StreamOutput, check_stream
from ovskit.core.refine.methods import REFINE
from ovskit.core.refine.options import RefineOptions
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import ChosenMethod

if TYPE_CHECKING:
    from ovskit.core.formats.photographs.photographs import Photographs
    from ovskit.core.formats.streams.masks import MasksHeader

app = OvsApp(
    "ovs-refine",
    examples=[
        ("the best unsupervised refiner, in the pipeline", "ovs-extract imgs/ | ovs-cluster | ovs-refine > refined.json"),
        ("another method; the photographs have moved", "ovs-refine --method guided --root /data/imgs masks.json -o refined.json"),
        ("two methods, one after the other", "ovs-refine --method snap,convcrf masks.json -o refined.json"),
        ("a fully connected CRF over whole partitions", "ovs-refine --method crf --joint masks.json -o refined.json"),
        ("a setting of a method", "ovs-refine --method guided --set guided.radius=8 masks.json -o refined.json"),
        ("only drop what is too large, and clean up specks", "ovs-refine --method none masks.json -o cleaned.json"),
    ],
)


@app.ovs_command()
def refine(
    ctx: typer.Context,
    methods: Annotated[
        tuple[ChosenMethod, ...],
        Choice(REFINE, "snap,guided", "Methods, applied in turn; none runs only what comes after the methods. Any of:", several=True),
    ],
    options: RefineOptions,
    source: MasksIn,
    at: PhotographsAt,
    out: StreamOut,
    compute: Compute,
    common: Common,
) -> None:
    """Move the boundaries of masks to the edges of their images, and drop masks that change too much.

    Works at the images' own resolution, on a crop around each mask. What was dropped, and why, is counted on stderr. The images are
    found below the root that the masks name, or below --root.
    """
    check_stream(out)

    from ovskit.core.formats.streams.mask_inputs import MaskInputs
    from ovskit.core.formats.streams.masks import MasksWriter
    from ovskit.core.formats.streams.transform import transform_masks
    from ovskit.core.refine.job import RefineJob
    from ovskit.core.refine.refinement import Refinement

    refinement = Refinement(methods, options, RefineJob(compute.device))
    failures = source.failures()
    output = StreamOutput(out, MasksWriter, "refining", failures)

    def say_dropped() -> None:
        dropped = refinement.dropped()
        if dropped is not None:
            log.warning("%s", dropped)

    with MaskInputs(source.masks or ("-",), failures) as inputs:
        work = refinement.of(_photographs(at, inputs.header, needed=bool(methods)))
        names = ", ".join(chosen.name for chosen in methods)
        header = replace(
            inputs.header,
            description=f"masks refined by {names or 'nothing but their size'}",
            pg=provenance(ctx, inputs.header.pg, arguments=source.masks, **refinement.facts()),
            root=inputs.header.root if at.root is None else at.root,
            exif=inputs.header.exif if at.exif is None else at.exif,
        )
        if not output.is_there(header):
            output.write(
                header,
                lambda done: transform_masks(inputs.sets(), work, failures, workers=compute.threads(), done=done),
                at_end=say_dropped,
            )


def _photographs(at: PhotographsAt, header: MasksHeader, *, needed: bool) -> Photographs | None:
    """The photographs of the masks, None where the stream does not say where they are and they are not ``needed``.

    Raises UsageError where it does not and they are, or where it was made with another --exif, InputError for images without names.
    """
    from ovskit.core.formats.photographs.photographs import Photographs, check_named, settled_exif

    root = at.root if at.root is not None else header.root
    if needed:
        if root is None:
            raise UsageError("the masks do not say where their images are: add --root DIR")
        check_named(header.named, "the masks")
    exif = settled_exif(at.exif, header.exif, "the masks stream")
    return None if root is None else Photographs(root, max_pixels=at.max_pixels, exif=exif)
