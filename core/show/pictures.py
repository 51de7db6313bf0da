"""What ``ovs-show`` writes beside pages: a folder of overlays, or a contact sheet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from ovskit.core.runtime.logs import get_logger

log = get_logger("show")

if TYPE_CHECKING:
    from ovskit.core.show.categories import Categories
    from ovskit.core.show.scene import Column, Scene, TruthColumn
    from ovskit.core.show.selections import MaskSelection
    from ovskit.core.show.sheet import SheetColumn


def write_overlays(
    scenes: Iterable[Scene], folder: str, choose: MaskSelection, opacity: float, file: Column, categories: Categories, *, legend: bool
) -> int:
    """A PNG for each scene, of its only panel; those coloured by category with a ``legend`` below. Returns how many."""
    from PIL import Image as Pillow

    from ovskit.core.runtime.errors import OutputError
    from ovskit.core.runtime.output import open_output
    from ovskit.core.show.categories import category_map
    from ovskit.core.show.legend import category_overlay, with_legend
    from ovskit.core.show.overlay import overlay
    from ovskit.core.show.overlay_names import overlay_name

    done = 0
    for scene in scenes:
        path = os.path.join(folder, overlay_name(scene.image.file_name))
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make folder {os.path.dirname(path)}: {error.strerror}") from None
        with open_output(path) as out:
            if file.by_category:
                shown = category_map(choose(scene, 0), file, categories)
                picture = category_overlay(scene.pixels, shown, opacity=opacity)
                picture = with_legend(picture, shown) if legend else picture
            else:
                picture = overlay(scene.pixels, choose(scene, 0), opacity=opacity)
            _save_png(Pillow.fromarray(picture), out)
        done += 1
    return done


def _save_png(picture: Any, out: BinaryIO) -> None:
    import io

    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    out.write(buffer.getbuffer())


def write_sheet_file(
    scenes: Iterator[Scene],
    path: str,
    columns: Sequence[SheetColumn],
    truth: TruthColumn | None,
    categories: Categories,
    *,
    side: int,
    opacity: float,
    legend: bool,
) -> int:
    """The sheet; says which images did not fit. Returns how many are on it."""
    from ovskit.core.formats.paths import show_path
    from ovskit.core.runtime.output import open_output
    from ovskit.core.show.sheet import write_sheet

    with open_output(path) as out:
        made = write_sheet(scenes, out, columns=columns, truth=truth, side=side, opacity=opacity, categories=categories, legend=legend)
    if made.left_out is not None:
        log.warning(
            "%d images are on the sheet; those from %s on did not fit: use --limit, or a smaller --max-side",
            made.shown,
            show_path(made.left_out),
        )
    return made.shown
