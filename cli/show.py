"""``ovs-show``: look at masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from typing import Annotated

import typer

from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log
from ovskit.core.runtime.errors import UsageError
from ovskit.core.show.inputs import Colour, Wish, file_names, opened, titles
from ovskit.core.show.pictures import write_overlays, write_sheet_file
from ovskit.core.show.selections import parse_view, sheet_columns

app = OvsApp(
    "ovs-show",
    examples=[
        ("one page to open in a browser", "ovs-show masks.json --root imgs/ -o page.html"),
        ("one PNG overlay per image", "ovs-show masks.json --root imgs/ -o overlays/"),
        ("straight from the pipeline", "ovs-extract imgs/ | ovs-cluster | tee masks.json | ovs-show -o page.html"),
        ("what is found of the ground truth", "ovs-show masks.json --root imgs/ --gt instances.json -o page.html"),
        ("two methods side by side", "ovs-show a.json b.json --root imgs/ -o page.html"),
        ("classes in their colours, with a legend", "ovs-show named.json --root imgs/ -o overlays/"),
        ("beside a ground truth of label maps", "ovs-show named.json --root imgs/ --gt VOC2012 --layout voc -o page.html"),
        ("label maps by themselves", "ovs-show maps/ --names voc-21 --root imgs/ -o page.html"),
        ("a contact sheet of twenty images, by level", "ovs-show forest.json --limit 20 --view depth:0,depth:1 --sheet sheet.png"),
    ],
)

_PAGE_SIDE, _SHEET_SIDE = 1024, 320


@app.ovs_command()
def show(
    ctx: typer.Context,
    masks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MASKS.json", help="Masks streams, any COCO files, or folders of label maps, shown side by side; - is stdin."
        ),
    ] = None,
    gt: Annotated[
        str | None,
        typer.Option(
            "--gt", metavar="GT", help="Ground truth to compare with: COCO, LVIS, panoptic, SA-1B (also its folder), or label maps."
        ),
    ] = None,
    layout: Annotated[
        str | None, typer.Option("--layout", metavar="NAME", help="How a folder of label maps is kept, --gt's if there is one: voc, ade, …")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            "--names",
            metavar="SPACE",
            show_default="the layout's",
            help="The label space of label maps: voc-21, a file, or names with commas.",
        ),
    ] = None,
    void: Annotated[
        str | None,
        typer.Option(
            "--void",
            metavar="ID,…|none",
            show_default="the layout's or the label space's, else 255",
            help="Ids of label maps that are not drawn, where no layout says them.",
        ),
    ] = None,
    colour: Annotated[
        Colour,
        typer.Option(
            "--colour",
            help="A colour for each mask, or for each category; auto: by category where the file says that its masks are about them.",
        ),
    ] = Colour.auto,
    segments: Annotated[str | None, typer.Option("--segments", metavar="DIR", help="PNG files of a panoptic --gt.")] = None,
    match_iou: Annotated[
        float, typer.Option("--match-iou", min=0.01, max=1.0, metavar="IOU", help="At this IoU a mask of the ground truth is found.")
    ] = 0.5,
    root: opt.Root = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Show only the first N images.")] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="The page's title.")] = None,
    max_side: Annotated[
        int | None,
        typer.Option("--max-side", min=64, max=8192, metavar="N", show_default="1024; 320 in a sheet", help="Photographs fit this."),
    ] = None,
    view: Annotated[
        str,
        typer.Option(
            "--view",
            metavar="VIEW",
            help="Masks of a PNG: auto (all where coloured by category, matched with --gt, or about 16 of one level), all, matched, T or "
            "threshold:T, count:N, level:N or depth:N (0 for wholes). A sheet has a column for each of several, apart by commas.",
        ),
    ] = "auto",
    no_legend: Annotated[bool, typer.Option("--no-legend", help="Leave the legend of categories out of PNGs.")] = False,
    opacity: Annotated[float, typer.Option("--opacity", min=0.0, max=1.0, metavar="X", help="Of the colours in PNGs.")] = 0.55,
    exif: opt.Exif = None,
    max_pixels: opt.MaxPixels = 178_956_970,
    on_error: opt.OnErrorOption = opt.OnError.fail,
    sheet: Annotated[
        str | None,
        typer.Option("--sheet", metavar="SHEET.png", help="Instead of a page, one PNG of all images, a row each; - is stdout."),
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="PAGE.html|DIR/",
            help="A page, or a folder (closing /) of PNG overlays; - is a page on stdout.",
        ),
    ] = "-",
    workers: opt.Workers = None,
    config: opt.Config = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = 0,
    version: opt.Version = False,
) -> None:
    """Draw masks over their images: one self-contained HTML page, PNG overlays, or a contact sheet.

    Photographs are found below the root that the masks stream names, or below --root. Several files are shown side by
    side, the same image found by its name. Semantic maps have a colour for each class, the same everywhere, and a legend.
    """
    files = masks or ["-"]
    folder = sheet is None and (output.endswith("/") or os.path.isdir(output))
    _check_options(files, gt, segments, sheet, output, folder)
    if sheet is not None and output != "-":
        raise UsageError("--sheet and -o are two outputs: give one of them")

    from ovskit.core.formats.paths import show_path
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.output import check_output, open_output
    from ovskit.core.runtime.progress import track
    from ovskit.core.runtime.workers import default_workers

    wish = Wish(files, gt, segments, layout, names, void, root, colour, match_iou, workers or default_workers(), max_pixels, exif)
    wish.check()
    judged = gt is not None and not wish.gt_is_maps
    texts = view.split(",")
    for text in texts:
        parse_view(text, judged, ())  # what makes no sense is said before anything is read
    if len(texts) > 1 and sheet is None:
        raise UsageError(f"--view {view}: several views are the columns of a --sheet; give one")
    if not folder:
        check_output(output if sheet is None else sheet, binary=sheet is not None)
    failures = Failures(skip=on_error is opt.OnError.skip)
    with opened(wish, failures) as shown:
        scenes, columns = shown.scenes, shown.columns
        views = [parse_view(text, judged, [column.by_category for column in columns]) for text in texts]
        drawn = track(islice(scenes, limit), "drawing")
        if folder:
            done = write_overlays(drawn, output, views[0][1], opacity, columns[0], shown.categories, legend=not no_legend)
        elif sheet is not None:
            picked, side = sheet_columns(columns, views), max_side or _SHEET_SIDE
            done = write_sheet_file(drawn, sheet, picked, shown.truth, shown.categories, side=side, opacity=opacity, legend=not no_legend)
        else:
            from ovskit.core.show.page import write_page

            said = title or f"Masks of {_listed(file_names(files) if len(files) == 1 else titles(file_names(files)))}"
            side = max_side or _PAGE_SIDE
            with open_output(output) as out:
                done = write_page(drawn, out, title=said, columns=columns, truth=shown.truth, max_side=side, categories=shown.categories)
    if scenes.lacking:
        log.warning("%s has no ground truth for %d of %d images", show_path(gt or ""), scenes.lacking, done)
    if scenes.unused:
        log.warning("%d images of %s have no masks to compare and are not shown", scenes.unused, show_path(gt or ""))
    log.info("%d images", done)
    failures.report(done)


def _check_options(files: Sequence[str], gt: str | None, segments: str | None, sheet: str | None, output: str, folder: bool) -> None:
    if files.count("-") > 1:
        raise UsageError("stdin can be one of the files, not several")
    if segments is not None and gt is None:
        raise UsageError("--segments is the folder of a panoptic --gt: add --gt PANOPTIC.json")
    if sheet is not None:
        if sheet.endswith("/") or os.path.isdir(sheet) or (sheet != "-" and not sheet.lower().endswith(".png")):
            raise UsageError(f"--sheet {sheet}: a sheet is one picture; name a file SHEET.png")
    elif folder and (len(files) > 1 or gt is not None):
        raise UsageError(f"-o {output}: overlays show one mask file; for several, or with --gt, write a page (PAGE.html) or a --sheet")
    elif not folder and output != "-" and not output.lower().endswith((".html", ".htm")):
        raise UsageError(f"-o {output}: name a page (PAGE.html) or a folder with a closing slash ({output}/)")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
