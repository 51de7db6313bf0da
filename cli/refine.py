"""``ovs-refine``: masks whose boundaries follow the image."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log
from ovskit.cli.stage import run_mask_stage
from ovskit.cli.values import parse_fraction
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.records import MaskSet
    from ovskit.core.refine.refiner import Refiner

app = OvsApp(
    "ovs-refine",
    examples=[
        ("the best unsupervised refiner, in the pipeline", "ovs-extract imgs/ | ovs-cluster | ovs-refine > refined.json"),
        ("another one; the photographs have moved", "ovs-refine --method guided --root /data/imgs masks.json -o refined.json"),
        ("two, one after the other", "ovs-refine --method snap,convcrf masks.json -o refined.json"),
        ("a fully connected CRF over whole partitions", "ovs-refine --method crf --joint masks.json -o refined.json"),
        ("a setting of a method", "ovs-refine --method guided --set guided.radius=8 masks.json -o refined.json"),
        ("only drop what is too large, and clean up specks", "ovs-refine --method none masks.json -o cleaned.json"),
    ],
)


@app.ovs_command()
def refine(
    ctx: typer.Context,
    masks: opt.MaskFiles = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME,…",
            help="snap, guided, convcrf or crf; cascadepsp, which is supervised; none; several are applied in turn.",
        ),
    ] = "snap,guided",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METHOD.NAME=X", help="A setting of a method, as in guided.radius=8; may be given several times."),
    ] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="crf: all masks of a partition at once, instead of each against its background.")
    ] = False,
    min_iou: Annotated[
        float, typer.Option("--min-iou", min=0.0, max=1.0, metavar="IOU", help="Drop a mask whose IoU with what it was is below this.")
    ] = 0.5,
    max_area: Annotated[
        float, typer.Option("--max-area", min=0.0, max=1.0, metavar="SHARE", help="Drop a mask that covers more of its image than this.")
    ] = 0.9,
    min_component: Annotated[
        str,
        typer.Option("--min-component", metavar="SHARE", help="Remove specks and fill holes below this share of the image; 0 keeps them."),
    ] = "1/16384",
    fill_holes: Annotated[bool, typer.Option("--fill-holes/--no-fill-holes", help="Fill small holes, or leave them.")] = True,
    root: opt.Root = None,
    weights: opt.Weights = None,
    exif: opt.Exif = None,
    max_pixels: opt.MaxPixels = 178_956_970,
    on_error: opt.OnErrorOption = opt.OnError.fail,
    output: opt.Output = "-",
    resume: opt.Resume = False,
    skip_existing: opt.SkipExisting = False,
    device: opt.Device = "auto",
    workers: opt.Workers = None,
    no_pg: opt.NoPg = False,
    config: opt.Config = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = 0,
    version: opt.Version = False,
) -> None:
    """Move the boundaries of masks to the edges of their images, and drop the masks that do not survive it.

    Works at the images' own resolution, on a crop around each mask. What was dropped, and why, is counted on stderr. The images are
    found below the root that the masks name, or below --root.
    """
    names = [] if method == "none" else [name.strip() for name in method.split(",")]
    small = 0.0 if min_component in ("0", "0.0") else parse_fraction(min_component, "--min-component")
    if joint and "crf" not in names:
        raise UsageError("--joint is a way of --method crf")

    from ovskit.cli.method_settings import parse_settings
    from ovskit.core.formats.photographs.photographs import Photographs, check_named, settled_exif
    from ovskit.core.refine.pipeline import Dropped, RefineOptions, refine_masks
    from ovskit.core.refine.registry import load_refiner, options_of

    settings = parse_settings(setting or [], {name: options_of(name) for name in names})
    if joint:
        settings["crf"]["joint"] = True
    refiners = [load_refiner(name, settings[name], device=device, weights=weights) for name in names]
    options = RefineOptions(min_iou=min_iou, max_area=max_area, min_component=small, fill_holes=fill_holes)
    dropped, lock = Dropped(), threading.Lock()

    def make_work(header: MasksHeader) -> Callable[[MaskSet], MaskSet]:
        where = root if root is not None else header.root
        if where is None and refiners:
            raise UsageError("the masks do not say where their images are: add --root DIR")

        if refiners:
            check_named(header.named, "the masks")
        orientations = settled_exif(exif, header.exif, "the masks stream")
        photographs = None if where is None else Photographs(where, max_pixels=max_pixels, exif=orientations)

        def work(found: MaskSet) -> MaskSet:
            pixels: Any = None if photographs is None or not (refiners and found.masks) else photographs.load(found.image)
            refined, gone = refine_masks(found, pixels, refiners if found.masks else [], options)
            with lock:
                dropped.add(gone)
            return refined

        return work

    def say_dropped() -> None:
        reasons = [(dropped.moved, f"moved below IoU {min_iou:g}"), (dropped.large, f"larger than {max_area:g} of the image")]
        said = ", ".join(f"{number:,} {why}" for number, why in [*reasons, (dropped.vanished, "vanished")] if number)
        if said:
            log.warning("dropped %s of %s masks: %s", f"{dropped.total:,}", f"{dropped.masks:,}", said)

    run_mask_stage(
        ctx,
        masks or [],
        make_work,
        description=f"masks refined by {', '.join(names) or 'nothing but their size'}",
        doing="refining",
        output=output,
        resume=resume,
        skip_existing=skip_existing,
        on_error=on_error,
        workers=workers,
        facts=_facts(refiners),
        root=root,
        exif=exif,
        at_end=say_dropped,
    )


def _facts(refiners: list[Refiner]) -> dict[str, Any]:
    """What the provenance says of a refiner with weights; of several, the last."""
    facts: dict[str, Any] = {}
    for refiner in refiners:
        if refiner.supervised or refiner.weights_sha256 is not None:
            facts = {"model": refiner.name, "model_sha256": refiner.weights_sha256, "supervised": refiner.supervised}
    return facts
