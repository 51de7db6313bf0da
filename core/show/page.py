"""One self-contained HTML page of images and their masks, written image by image.

The page asks for nothing from anywhere: pictures are data URIs, masks COCO's own run-length text, decoded where they are
looked at. Its Content-Security-Policy lets no script run but its own, so nothing that a masks file says can.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, BinaryIO

from PIL import Image as Pillow

from ovskit.core.records import Mask, MaskSet, UInt8
from ovskit.core.runtime.errors import UsageError
from ovskit.core.show.colours import colours
from ovskit.core.show.overlay import check_picture
from ovskit.core.show.safe_text import markup, printable, script_json
from ovskit.core.show.views import larger_first, most_legible, run_table, views

_SCRIPTS = ("rle.js", "paint.js", "item.js", "page.js")
_JPEG_QUALITY = 86
_THUMBNAIL = 128  # longer side in pixels: sharp at 64 CSS pixels on a dense screen
_LARGEST_UPSCALE = 3  # a small image is not blown up to more than this
_MOST_EXTRAS = 8
_LONGEST_EXTRA = 80
_MOST_LEVELS = 48  # of one key over all images


def write_page(
    sets: Iterable[tuple[MaskSet, UInt8]],
    out: BinaryIO,
    *,
    title: str,
    max_side: int = 1024,
    pg: Sequence[Mapping[str, Any]] = (),
    categories: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Write the page of ``sets``, pairs of masks and their image (H, W, 3) uint8 RGB; return how many images it shows.

    One image is held at a time. Pictures are scaled down to ``max_side`` pixels; masks keep their native size. ``pg`` is
    the stream's provenance, shown below; ``categories`` (COCO's ``id`` and ``name``) name the masks where there is more
    than one. Raises InputError if an image has not the size its masks have, UsageError if ``max_side`` is below 16.
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
        "provenance": _provenance(pg),
    }
    out.write(_fill(head, values))
    names = {c["id"]: c["name"] for c in categories if isinstance(c.get("id"), int) and isinstance(c.get("name"), str)}
    summary = _Summary()
    for masks, image in sets:
        check_picture(image, masks)
        summary.images += 1
        out.write(_section(masks, image, summary, max_side, names if len(names) > 1 else {}))
    out.write(_fill(tail, {**values, "summary": script_json(summary.to_json())}))
    return summary.images


class _Summary:
    """What the page as a whole has to know: its size, which levels there are, and which to open with."""

    def __init__(self) -> None:
        self.images = 0
        self.masked_images = 0
        self.masks = 0
        self.levels: dict[str, dict[float, list[int]]] = defaultdict(dict)

    def add(self, found: Iterable[tuple[str, float, int]], masks: int) -> None:
        self.masks += masks
        self.masked_images += masks > 0
        for key, value, number in found:
            if value in self.levels[key] or len(self.levels[key]) <= _MOST_LEVELS:
                self.levels[key].setdefault(value, []).append(number)

    def to_json(self) -> dict[str, Any]:
        levels = {key: numbers for key, numbers in self.levels.items() if len(numbers) <= _MOST_LEVELS}
        # A level that few images have says little about the rest.
        common = [
            (key, value, sum(counts) / len(counts))
            for key, numbers in levels.items()
            for value, counts in numbers.items()
            if 2 * len(counts) >= self.masked_images
        ]
        first = most_legible(common, self.masks / max(1, self.masked_images))
        return {
            "images": self.images,
            "masks": self.masks,
            "levels": [[key, sorted(numbers, reverse=key in ("threshold", "count"))] for key, numbers in levels.items()],
            "first": list(first) if first else None,
        }


def _asset(name: str) -> str:
    return resources.files("ovskit.core.show").joinpath(name).read_text("utf-8")


def _fill(template: str, values: Mapping[str, str]) -> bytes:
    # In one pass: a value that happens to hold {{a name}} stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template).encode("utf-8")


def _section(masks: MaskSet, image: UInt8, summary: _Summary, max_side: int, names: Mapping[int, str]) -> bytes:
    who, picture = masks.image, Pillow.fromarray(image)
    name = markup(who.file_name)
    number = len(masks.masks)
    said = f"{number:,} mask{'' if number == 1 else 's'}" if number else "no masks"
    ratio, widest = who.width / who.height, who.width * _LARGEST_UPSCALE
    bare = "" if number else " bare"
    return (
        f'<section class="item{bare}" id="image-{summary.images}" style="--ratio:{ratio:.5f};--widest:{widest}px" '
        f'data-thumb="{_jpeg(picture, _THUMBNAIL)}">\n'
        f'<h2><span class="name">{name}</span> <span class="facts">{who.width:,} × {who.height:,} · {said}</span></h2>\n'
        f'<div class="stage"><div class="picture"><img src="{_jpeg(picture, max_side)}" width="{who.width}" height="{who.height}" '
        f'alt="{name}, {said}" loading="lazy" decoding="async"></div></div>\n'
        f'<script type="application/json">{script_json(_data(masks, summary, names))}</script>\n'
        "</section>\n"
    ).encode()


def _jpeg(picture: Pillow.Image, side: int) -> str:
    scale = side / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Pillow.Resampling.LANCZOS, reducing_gap=3.0)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _data(masks: MaskSet, summary: _Summary, names: Mapping[int, str]) -> dict[str, Any]:
    ordered = larger_first(masks)
    found = views(ordered, run_table(masks, ordered))
    summary.add(((view.key, view.value, len(view.members)) for view in found), len(ordered))
    place = {mask.id: k for k, mask in enumerate(ordered)}
    hexes = colours(len(ordered)).tobytes().hex()
    return {
        "width": masks.image.width,
        "height": masks.image.height,
        "masks": [_mask_data(mask, hexes[6 * k : 6 * k + 6], place, names) for k, mask in enumerate(ordered)],
        "views": [[view.key, view.value, view.members] for view in found],
    }


def _mask_data(mask: Mask, colour: str, place: Mapping[int, int], names: Mapping[int, str]) -> dict[str, Any]:
    data: dict[str, Any] = {"id": mask.id, "rle": mask.rle.counts.decode("ascii"), "area": mask.area, "rgb": colour}
    if mask.score is not None and math.isfinite(mask.score):
        data["score"] = mask.score
    if mask.parent_id is not None:
        data["parentId"] = mask.parent_id
        if mask.parent_id in place:
            data["parent"] = place[mask.parent_id]
    if mask.category_id in names:
        data["category"] = printable(names[mask.category_id])
    if mask.iscrowd:
        data["crowd"] = True
    more = [[printable(str(key)), shown] for key, value in mask.extra.items() if (shown := _scalar(value)) is not None]
    if more:
        data["more"] = more[:_MOST_EXTRAS]
    return data


def _scalar(value: object) -> str | float | None:
    """What of an unknown key can be said in a few words: text, a number, yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return int(value) if abs(value) < 2**53 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str) and value:
        text = printable(value)
        return text if len(text) <= _LONGEST_EXTRA else text[: _LONGEST_EXTRA - 1] + "…"
    return None


def _provenance(pg: Sequence[Mapping[str, Any]]) -> str:
    """The commands that made the masks, first to last; nothing where there is no provenance."""
    entries = []
    for entry in pg:
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
    return f'<details class="pg"><summary>How these masks were made</summary><ol>{"".join(entries)}</ol></details>'
