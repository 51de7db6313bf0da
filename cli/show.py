"""``ovs-show``: look at masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.records import MaskSet
    from ovskit.core.show.scene import Scene, TruthColumn
    from ovskit.core.show.sheet import SheetColumn

app = OvsApp(
    "ovs-show",
    examples=[
        ("one page to open in a browser", "ovs-show masks.json --root imgs/ -o page.html"),
        ("one PNG overlay per image", "ovs-show masks.json --root imgs/ -o overlays/"),
        ("straight from the pipeline", "ovs-extract imgs/ | ovs-cluster | tee masks.json | ovs-show -o page.html"),
        ("what is found of the ground truth", "ovs-show masks.json --root imgs/ --gt instances.json -o page.html"),
        ("two methods side by side", "ovs-show a.json b.json --root imgs/ -o page.html"),
        ("a contact sheet of twenty images, by level", "ovs-show forest.json --limit 20 --view depth:0,depth:1 --sheet sheet.png"),
    ],
)

_PAGE_SIDE, _SHEET_SIDE = 1024, 320


@app.ovs_command()
def show(
    ctx: typer.Context,
    masks: Annotated[
        list[str] | None, typer.Argument(metavar="MASKS.json", help="Masks streams or any COCO files, shown side by side; - is stdin.")
    ] = None,
    gt: Annotated[
        str | None,
        typer.Option("--gt", metavar="GT", help="Ground truth to compare with: COCO, LVIS, panoptic or SA-1B (also its folder)."),
    ] = None,
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
            help="Masks of a PNG: auto (about 16 of one level, or matched with --gt), all, matched, T or threshold:T, count:N, level:N "
            "or depth:N (0 for wholes). A sheet has a column for each of several, apart by commas.",
        ),
    ] = "auto",
    opacity: Annotated[float, typer.Option("--opacity", min=0.0, max=1.0, metavar="X", help="Of the colours in PNGs.")] = 0.55,
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
    side, the same image found by its name.
    """
    files = masks or ["-"]
    folder = sheet is None and (output.endswith("/") or os.path.isdir(output))
    _check_options(files, gt, segments, sheet, output, folder)
    if sheet is not None and output != "-":
        raise UsageError("--sheet and -o are two outputs: give one of them")
    views = [_parse_view(text, gt is not None) for text in view.split(",")]
    if len(views) > 1 and sheet is None:
        raise UsageError(f"--view {view}: several views are the columns of a --sheet; give one")

    from ovskit.core.formats.ground_truth import open_ground_truth
    from ovskit.core.formats.masks import open_masks
    from ovskit.core.formats.sources import show_path
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.output import check_output, open_input, open_output
    from ovskit.core.runtime.progress import track
    from ovskit.core.runtime.workers import default_workers
    from ovskit.core.show.mask_files import open_mask_file
    from ovskit.core.show.scene import Column, TruthColumn
    from ovskit.core.show.scenes import Scenes

    if not folder:
        check_output(output if sheet is None else sheet, binary=sheet is not None)
    names = ["stdin" if file == "-" else show_path(file) for file in files]
    lead = files.index("-") if "-" in files else 0  # a pipe is read once, from front to back
    failures = Failures(skip=on_error is opt.OnError.skip)
    with ExitStack() as opened:
        others = [opened.enter_context(open_mask_file(file)) for k, file in enumerate(files) if k != lead]
        truth = None if gt is None else open_ground_truth(gt, segments=segments)
        header, sets = open_masks(opened.enter_context(open_input(files[lead])), names[lead])
        headers = [header, *(other.header for other in others)]
        known = [h.root for h in headers if h.root is not None] if root is None else [root]
        if not known:
            next(sets, None)  # if the file is broken, that is the first thing to say
            raise UsageError(f"{names[lead]} does not say where its images are: add --root DIR")
        roots = [root or h.root or known[0] for h in headers]
        scenes = Scenes(
            sets, names[lead], roots=roots, failures=failures, others=others, place=lead, truth=truth, at=match_iou,
            workers=workers or default_workers(), max_pixels=max_pixels,
        )  # fmt: skip
        headers.insert(lead, headers.pop(0))
        columns = [Column(t, h.categories, h.pg) for t, h in zip(_titles(names), headers, strict=True)]
        truth_column = None if truth is None else TruthColumn("Ground truth", truth.categories, at=match_iou)
        shown = track(islice(scenes, limit), "drawing")
        if folder:
            done = _write_overlays(shown, output, views[0][1], opacity)
        elif sheet is not None:
            picked = _sheet_columns([c.title for c in columns], views)
            done = _write_sheet(shown, sheet, picked, truth_column, side=max_side or _SHEET_SIDE, opacity=opacity)
        else:
            from ovskit.core.show.page import write_page

            said = title or f"Masks of {_listed(names if len(names) == 1 else [c.title for c in columns])}"
            with open_output(output) as out:
                done = write_page(shown, out, title=said, columns=columns, truth=truth_column, max_side=max_side or _PAGE_SIDE)
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


def _titles(names: Sequence[str]) -> list[str]:
    """The files' names without their folders, where that tells them apart."""
    short = [os.path.basename(name) for name in names]
    return short if len(set(short)) == len(names) else list(names)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# What --view picks of one file's masks in a scene: drawn all at once, a pool of several granularities is a mess.
Choice = Callable[["Scene", int], "MaskSet"]
_DEPTHS = {0: "entities", 1: "parts", 2: "subparts"}


def _parse_view(text: str, judged: bool) -> tuple[str, Choice]:
    """A view's name, for the head of its column, and what it picks."""

    def masks_of(scene: Scene, panel: int) -> MaskSet:
        found = scene.panels[panel]
        assert found is not None  # whoever draws a panel has seen that it is there
        return found

    def standing(key: str, value: float) -> Choice:
        def choose(scene: Scene, panel: int) -> MaskSet:
            from ovskit.core.show.views import view_of

            return view_of(masks_of(scene, panel), key, value)

        return choose

    def legible(scene: Scene, panel: int) -> MaskSet:
        from ovskit.core.show.views import legible_view

        return legible_view(masks_of(scene, panel))

    def matched(scene: Scene, panel: int) -> MaskSet:
        from ovskit.core.show.found import matched_masks

        return matched_masks(masks_of(scene, panel), scene.truths[0].found[panel]) if scene.truths else legible(scene, panel)

    if text == "auto":
        return "", matched if judged else legible
    if text == "all":
        return "all", masks_of
    if text == "matched" and not judged:
        raise UsageError("--view matched: there is nothing to match; add --gt GT")
    if text == "matched":
        return "matched", matched
    key, _, number = text.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if key not in ("", "threshold", "count", "level", "depth") or value != value:
        raise UsageError(f"--view {text}: give auto, all, matched, a threshold such as 0.4, or level:0, depth:1, count:50")
    name = _DEPTHS.get(int(value), f"depth {value:g}") if key == "depth" else f"{key or 'threshold'} {value:g}"
    return name, standing(key or "threshold", value)


def _write_overlays(scenes: Iterable[Scene], folder: str, choose: Choice, opacity: float) -> int:
    from PIL import Image as Pillow

    from ovskit.core.runtime.errors import OutputError
    from ovskit.core.runtime.output import open_output
    from ovskit.core.show.names import overlay_name
    from ovskit.core.show.overlay import overlay

    done = 0
    for scene in scenes:
        path = os.path.join(folder, overlay_name(scene.image.file_name))
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make folder {os.path.dirname(path)}: {error.strerror}") from None
        with open_output(path) as out:
            _save_png(Pillow.fromarray(overlay(scene.pixels, choose(scene, 0), opacity=opacity)), out)
        done += 1
    return done


def _save_png(picture: Any, out: BinaryIO) -> None:
    import io

    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    out.write(buffer.getbuffer())


def _sheet_columns(titles: Sequence[str], views: Sequence[tuple[str, Choice]]) -> list[SheetColumn]:
    """A column for each view of each file, the views of one beside each other."""
    from ovskit.core.show.sheet import SheetColumn

    columns = []
    for panel, title in enumerate(titles):
        for name, choose in views:
            picked = lambda scene, choose=choose, panel=panel: choose(scene, panel)  # noqa: E731
            head = name.capitalize() if len(titles) == 1 else f"{title}, {name}"
            columns.append(SheetColumn(head if name else title, panel, picked))
    return columns


def _write_sheet(
    scenes: Iterator[Scene], path: str, columns: Sequence[SheetColumn], truth: TruthColumn | None, *, side: int, opacity: float
) -> int:
    from ovskit.core.formats.sources import show_path
    from ovskit.core.runtime.output import open_output
    from ovskit.core.show.sheet import write_sheet

    with open_output(path) as out:
        made = write_sheet(scenes, out, columns=columns, truth=truth, side=side, opacity=opacity)
    if made.left_out is not None:
        log.warning(
            "%d images are on the sheet; those from %s on did not fit: use --limit, or a smaller --max-side",
            made.shown,
            show_path(made.left_out),
        )
    return made.shown
