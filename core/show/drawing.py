"""What ``ovs-show`` draws from its opened inputs: a page, overlays or a sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from ovskit.core.runtime.output import open_output
from ovskit.core.show.inputs import OpenedInputs, file_names, titles
from ovskit.core.show.options import PAGE_SIDE, SHEET_SIDE, Drawing, ShowInputs
from ovskit.core.show.page import write_page
from ovskit.core.show.pictures import write_overlays, write_sheet_file
from ovskit.core.show.scene import Scene
from ovskit.core.show.selections import parse_view, sheet_columns


def draw(shown: OpenedInputs, given: ShowInputs, drawing: Drawing, watch: Callable[[Iterable[Scene]], Iterable[Scene]]) -> int:
    """Write the page, the overlays or the sheet; ``watch`` sees the scenes pass by. Returns how many images are in it.

    Raises UsageError for an invalid view, OutputError, and what making the scenes raises.
    """
    columns = shown.columns
    views = [parse_view(text, given.judged, [column.by_category for column in columns]) for text in drawing.view.split(",")]
    scenes = watch(islice(shown.scenes, given.limit))
    legend = not drawing.no_legend
    if drawing.folder:
        return write_overlays(scenes, drawing.output, views[0][1], drawing.opacity, columns[0], shown.categories, legend=legend)
    if drawing.sheet is not None:
        return write_sheet_file(
            iter(scenes), drawing.sheet, sheet_columns(columns, views), shown.truth, shown.categories,
            side=drawing.max_side or SHEET_SIDE, opacity=drawing.opacity, legend=legend,
        )  # fmt: skip
    names = file_names(given.files)
    title = drawing.title or f"Masks of {_listed(names if len(names) == 1 else titles(names))}"
    side = drawing.max_side or PAGE_SIDE
    with open_output(drawing.output) as out:
        return write_page(scenes, out, title=title, columns=columns, truth=shown.truth, max_side=side, categories=shown.categories)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
