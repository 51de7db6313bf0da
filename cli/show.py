"""``ovs-show``: look at masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError

if TYPE_CHECKING:
    from ovskit.core.records import MaskSet, UInt8
    from ovskit.core.runtime.failures import Failures

app = OvsApp(
    "ovs-show",
    examples=[
        ("one page to open in a browser", "ovs-show masks.json --root imgs/ -o page.html"),
        ("one PNG overlay per image", "ovs-show masks.json --root imgs/ -o overlays/"),
        ("straight from the pipeline", "ovs-extract imgs/ | ovs-cluster | tee masks.json | ovs-show -o page.html"),
        ("the first twenty images of a COCO file", "ovs-show instances.json --root train2017/ --limit 20 -o page.html"),
    ],
)


@app.ovs_command()
def show(
    ctx: typer.Context,
    masks: Annotated[str, typer.Argument(metavar="MASKS.json", help="A masks stream or any COCO file; - (the default) is stdin.")] = "-",
    root: opt.Root = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Show only the first N images.")] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="The page's title.")] = None,
    max_side: Annotated[int, typer.Option("--max-side", min=64, max=8192, metavar="N", help="Photographs on the page fit this.")] = 1024,
    view: Annotated[
        str, typer.Option("--view", metavar="auto|all|T", help="Masks of a PNG: about 16 of one level, all, or those of threshold T.")
    ] = "auto",
    opacity: Annotated[float, typer.Option("--opacity", min=0.0, max=1.0, metavar="X", help="Of the colours in PNG overlays.")] = 0.55,
    max_pixels: opt.MaxPixels = 178_956_970,
    on_error: opt.OnErrorOption = opt.OnError.fail,
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
    """Draw masks over their images: one self-contained HTML page, or PNG overlays.

    Photographs are found below the root that the masks stream names, or below --root.
    """
    folder = output.endswith("/") or os.path.isdir(output)
    if not folder and output != "-" and not output.lower().endswith((".html", ".htm")):
        raise UsageError(f"-o {output}: name a page (PAGE.html) or a folder with a closing slash ({output}/)")

    from ovskit.core.formats.masks import open_masks
    from ovskit.core.formats.sources import show_path
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.output import check_output, open_input, open_output
    from ovskit.core.runtime.progress import track
    from ovskit.core.runtime.workers import default_workers

    if not folder:
        check_output(output, binary=False)
    what = "stdin" if masks == "-" else show_path(masks)
    failures = Failures(skip=on_error is opt.OnError.skip)
    with open_input(masks) as stream:
        header, sets = open_masks(stream, what)
        where = root if root is not None else header.root
        if where is None:
            next(sets, None)  # if the file is broken, that is the first thing to say
            raise UsageError(f"{what} does not say where its images are: add --root DIR")
        pairs = _with_photographs(sets, where, failures, workers or default_workers(), max_pixels)
        shown = track(islice(pairs, limit), "drawing")
        if folder:
            done = _write_overlays(shown, output, _chooser(view), opacity)
        else:
            from ovskit.core.show.page import write_page

            with open_output(output) as out:
                done = write_page(
                    shown, out, title=title or f"Masks of {what}", max_side=max_side, pg=header.pg, categories=header.categories
                )
    log.info("%d images", done)
    failures.report(done)


def _with_photographs(
    sets: Iterator[MaskSet], root: str, failures: Failures, workers: int, max_pixels: int
) -> Iterator[tuple[MaskSet, UInt8]]:
    from ovskit.core.formats.photographs import load_photograph
    from ovskit.core.runtime.workers import ordered_map

    def load(masks: MaskSet) -> Any:
        try:
            return masks, load_photograph(masks.image, root, max_pixels=max_pixels)
        except (InputError, MissingInputError) as error:
            return error

    for result in ordered_map(load, sets, workers):
        if isinstance(result, tuple):
            yield result
        else:
            failures.handle(result)


def _chooser(view: str) -> Callable[[MaskSet], MaskSet]:
    """What ``--view`` picks of an image's masks: drawn all at once, a pool of several granularities is a mess."""
    from ovskit.core.show.views import legible_view, view_of

    if view == "auto":
        return legible_view
    if view == "all":
        return lambda masks: masks
    try:
        threshold = float(view)
    except ValueError:
        raise UsageError(f"--view {view}: give auto, all or a threshold such as 0.4") from None
    return lambda masks: view_of(masks, "threshold", threshold)


def _write_overlays(pairs: Iterator[tuple[MaskSet, UInt8]], folder: str, choose: Callable[[MaskSet], MaskSet], opacity: float) -> int:
    from PIL import Image as Pillow

    from ovskit.core.runtime.errors import OutputError
    from ovskit.core.runtime.output import open_output
    from ovskit.core.show.names import overlay_name
    from ovskit.core.show.overlay import overlay

    done = 0
    for masks, pixels in pairs:
        path = os.path.join(folder, overlay_name(masks.image.file_name))
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make folder {os.path.dirname(path)}: {error.strerror}") from None
        with open_output(path) as out:
            _save_png(Pillow.fromarray(overlay(pixels, choose(masks), opacity=opacity)), out)
        done += 1
    return done


def _save_png(picture: Any, out: BinaryIO) -> None:
    import io

    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    out.write(buffer.getbuffer())
