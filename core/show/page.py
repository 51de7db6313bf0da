"""One self-contained HTML page of images and their masks, written image by image.

The page asks for nothing from anywhere: pictures are data URIs, masks COCO's own run-length text, decoded when they are drawn. Its
Content-Security-Policy lets only its own script run, so no text of a masks file can run as one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import BinaryIO

from PIL import Image as Pillow

from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import UsageError
from ovskit.core.show.categories import Categories
from ovskit.core.show.page_data import Summary, scene_data
from ovskit.core.show.safe_text import markup, script_json
from ovskit.core.show.scene import Column, Scene, TruthColumn, classes_line, found_line, right_line

_SCRIPTS = ("rle.js", "tree.js", "paint.js", "words.js", "panel.js", "list.js", "legend.js", "image_section.js", "tools.js", "page.js")
_JPEG_QUALITY = 86
_THUMBNAIL = 128  # longer side in pixels: sharp at 64 CSS pixels on a dense screen
_LARGEST_UPSCALE = 3  # a small image is not blown up to more than this


def write_page(
    scenes: Iterable[Scene],
    out: BinaryIO,
    *,
    title: str,
    columns: Sequence[Column],
    truth: TruthColumn | None = None,
    max_side: int = 1024,
    categories: Categories | None = None,
) -> int:
    """Write the page of ``scenes``; return how many images it shows.

    One image is held at a time. Pictures are scaled down to ``max_side`` pixels; masks keep their native size. ``columns``
    are the mask files, one for each of a scene's panels: beside each other, where there are several, and before the ground
    truth, where ``truth`` says that there is one. ``categories`` says how columns are coloured that are by category; by default as the
    columns name them. Raises InputError if an image has not the size its masks have, UsageError
    if ``max_side`` is below 16.
    """
    if max_side < 16:
        raise UsageError(f"the longest side of a picture must be at least 16 pixels, not {max_side}")
    scripts = "(() => {\n'use strict';\n" + "\n".join(_asset(name) for name in _SCRIPTS) + "\n})();"
    head, tail = _asset("page.html").split("{{images}}")
    values = {
        "title": markup(title),
        "style": _asset("page.css"),
        "script": scripts,
        "script_hash": base64.b64encode(hashlib.sha256(scripts.encode()).digest()).decode(),
        "provenance": "\n".join(filter(None, (_provenance(column, alone=len(columns) == 1) for column in columns))),
    }
    out.write(_fill(head, values))
    summary = Summary(columns, truth, categories)
    for scene in scenes:
        scene.check()
        summary.images += 1
        out.write(_section(scene, columns, truth, summary, max_side))
    out.write(_fill(tail, {**values, "summary": script_json(summary.to_json())}))
    return summary.images


def _asset(name: str) -> str:
    return resources.files("ovskit.core.show").joinpath(name).read_text("utf-8")


def _fill(template: str, values: Mapping[str, str]) -> bytes:
    # In one pass: a value that happens to hold {{a name}} stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template).encode("utf-8")


def _section(scene: Scene, columns: Sequence[Column], truth: TruthColumn | None, summary: Summary, max_side: int) -> bytes:
    who, picture = scene.image, Pillow.fromarray(scene.pixels)
    name = markup(who.file_name)
    ratio, widest = who.width / who.height, who.width * _LARGEST_UPSCALE
    panels = len(columns) + (truth is not None)
    has_masks = any(panel.masks for panel in scene.panels if panel) or any(one.masks.masks for one in scene.truths)
    facts = f"{who.width:,} × {who.height:,}"
    if panels == 1:
        facts += f" · {_said(scene.panels[0], columns[0]) if scene.panels[0] else _count(0)}"
    figures = _figures(scene, columns, truth, f'src="{_jpeg(picture, max_side)}" width="{who.width}" height="{who.height}"')
    data = script_json(scene_data(scene, columns, truth, summary))
    return (
        f'<section class="item{"" if has_masks else " bare"}{" many" if panels > 1 else ""}" id="image-{summary.images}" '
        f'style="--ratio:{ratio:.5f};--widest:{widest}px;--panels:{panels}" data-thumb="{_jpeg(picture, _THUMBNAIL)}">\n'
        f'<h2><span class="name">{name}</span> <span class="facts">{facts}</span></h2>\n'
        f'<div class="stage">{figures}</div>\n'
        f'<script type="application/json">{data}</script>\n'
        "</section>\n"
    ).encode()


def _figures(scene: Scene, columns: Sequence[Column], truth: TruthColumn | None, photograph: str) -> str:
    """A figure for each file and the ground truth; only the first has the photograph, which the script puts into the others."""
    entries: list[tuple[str, str | None]] = []  # title, and what there is of the image; None where it is lacking
    for place, (masks, column) in enumerate(zip(scene.panels, columns, strict=True)):
        said = None if masks is None else _said(masks, column)
        if place < len(scene.agreements) and (right := scene.agreements[place]) is not None:
            said = right_line(right)
        if masks is not None and truth is not None and scene.truths:
            said = found_line(scene.truths[0], place, truth.at)
        entries.append((column.title, said))
    if truth is not None:
        entries.append((truth.title, _said(scene.truths[0].masks, truth) if scene.truths else None))
    alone = len(entries) == 1
    figures = []
    for title, said in entries:
        caption = f'<span class="title">{markup(title)}</span> <span class="said">{markup(said or "")}</span>'
        inside = ""
        if said is None:
            inside = f'<p class="quiet">No such image in {markup(title)}</p>'
        elif photograph:
            about = [scene.image.file_name, said] if alone else [scene.image.file_name, title, said]
            inside = f'<img {photograph} alt="{markup(", ".join(about))}" loading="lazy" decoding="async">'
            photograph = ""
        picture = f'<div class="picture{" missing" if said is None else ""}">{inside}</div>'
        figures.append(f'<figure>{"" if alone else f"<figcaption>{caption}</figcaption>"}<div class="well">{picture}</div></figure>')
    return "\n".join(figures)


def _said(masks: MaskSet, column: Column) -> str:
    count = len(masks.masks)
    return classes_line(count, len({mask.category_id for mask in masks.masks})) if column.by_category else _count(count)


def _count(masks: int) -> str:
    return f"{masks:,} mask{'' if masks == 1 else 's'}" if masks else "no masks"


def _jpeg(picture: Pillow.Image, side: int) -> str:
    scale = side / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Pillow.Resampling.LANCZOS, reducing_gap=3.0)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _provenance(column: Column, *, alone: bool) -> str:
    """The commands that made the masks of a file, first to last; nothing where there is no provenance."""
    entries = []
    for entry in column.pg:
        command = next((str(entry[key]) for key in ("command", "tool", "id") if entry.get(key)), None)
        if command is None:
            continue
        facts = [
            f"{label}{entry[key]}"
            for key, label in (("version", "version "), ("model", "model "), ("seed", "seed "))
            if entry.get(key) is not None
        ]
        small = f'<span class="facts">{markup(" · ".join(facts))}</span>' if facts else ""
        entries.append(f"<li><code>{markup(command)}</code>{small}</li>")
    if not entries:
        return ""
    which = "these masks were" if alone else f"the masks of {markup(column.title)} were"
    return f'<details class="pg"><summary>How {which} made</summary><ol>{"".join(entries)}</ol></details>'
