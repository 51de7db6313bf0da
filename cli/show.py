"""``ovs-show``: look at masks."""

from __future__ import annotations

import typer

from ovskit.cli.command import OvsApp, log
from ovskit.cli.groups import Common, Faults, PhotographsAt, Workers
from ovskit.core.show.options import Drawing, ShowInputs

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


@app.ovs_command()
def show(
    ctx: typer.Context, given: ShowInputs, at: PhotographsAt, faults: Faults, drawing: Drawing, threads: Workers, common: Common
) -> None:
    """Draw masks over their images: one self-contained HTML page, PNG overlays, or a contact sheet.

    Photographs are found below the root that the masks stream names, or below --root. Several files are shown side by
    side, the same image found by its name. Semantic maps have a colour for each class, the same everywhere, and a legend.
    """
    drawing.check_with(given)

    from ovskit.core.formats.paths import show_path
    from ovskit.core.runtime.output import check_output
    from ovskit.core.runtime.progress import track
    from ovskit.core.show.drawing import draw
    from ovskit.core.show.inputs import open_inputs
    from ovskit.core.show.selections import parse_view

    for text in drawing.view.split(","):
        parse_view(text, given.judged, ())  # what makes no sense is said before anything is read
    if not drawing.folder:
        check_output(drawing.output if drawing.sheet is None else drawing.sheet, binary=drawing.sheet is not None)
    failures = faults.failures()
    with open_inputs(given, at, threads.threads(), failures) as shown:
        done = draw(shown, given, drawing, lambda scenes: track(scenes, "drawing"))
    if shown.scenes.lacking:
        log.warning("%s has no ground truth for %d of %d images", show_path(given.gt or ""), shown.scenes.lacking, done)
    if shown.scenes.unused:
        log.warning("%d images of %s have no masks to compare and are not shown", shown.scenes.unused, show_path(given.gt or ""))
    log.info("%d images", done)
    failures.report(done)
