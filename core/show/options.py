"""What ``ovs-show`` shows and how: its options, which ``--help`` reads without opening anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.values import void_ids

PAGE_SIDE, SHEET_SIDE = 1024, 320


class ShowInputs(Options):
    """The files side by side, and the ground truth beside them."""

    SECTION: ClassVar[str] = "Input"

    masks: tuple[str, ...] = option(
        (), "Masks streams, any COCO files, or folders of label maps, shown side by side; - is stdin.", argument=True, metavar="MASKS.json"
    )
    gt: str | None = option(
        None, "Ground truth to compare with: COCO, LVIS, panoptic, SA-1B (also its folder), or label maps.",
        flag=True, metavar="GT", environment="never",
    )  # fmt: skip
    segments: str | None = option(None, "Folder of a panoptic --gt's PNG files.", flag=True, metavar="DIR", environment="never", rare=True)
    layout: str | None = option(None, "Layout of a folder of label maps, of --gt if that is one: voc, ade, …", flag=True, metavar="NAME")
    names: str | None = option(
        None, "Label space of label maps: voc-21, a file, or names with commas.",
        flag=True, metavar="SPACE", shown="the layout's", environment="by command",
    )  # fmt: skip
    void: tuple[int, ...] | None = option(
        None, "Void ids of label maps, which are not drawn; for maps without a layout.",
        flag=True, metavar="ID,…|none", parse=void_ids, shown="the layout's or the label space's, else 255", rare=True,
    )  # fmt: skip
    colour: Literal["auto", "mask", "category"] = option(
        "auto",
        "Colour each mask, or each category, differently; auto: categories where the file's masks are labelled with them.",
        flag=True,
    )
    match_iou: float = option(
        0.5, "IoU from which a mask of the ground truth counts as found.", flag=True, low=0.01, high=1, metavar="IOU",
        effect=Effect(lambda g: g["gt"] is not None, "has no effect without a ground truth: add --gt GT"),
    )  # fmt: skip
    limit: int | None = option(None, "Show only the first N images.", flag=True, low=1)

    @property
    def files(self) -> tuple[str, ...]:
        """The files, stdin if none is named."""
        return self.masks or ("-",)

    @property
    def gt_is_maps(self) -> bool:
        """Whether the ground truth is a folder of label maps, and not SA-1B's of JSON files."""
        if self.gt is None or not os.path.isdir(self.gt):
            return False
        if self.layout is not None or self.names is not None:
            return True
        from ovskit.core.formats.truth.ground_truth import is_sa1b_folder

        return not is_sa1b_folder(self.gt)

    @property
    def judged(self) -> bool:
        """Whether there is a ground truth of masks, to match the drawn masks with."""
        return self.gt is not None and not self.gt_is_maps

    def check(self) -> None:
        """See ``Options``."""
        if self.files.count("-") > 1:
            raise UsageError("stdin can be one of the files, not several")
        if self.segments is not None and self.gt is None:
            raise UsageError("--segments is the folder of a panoptic --gt: add --gt PANOPTIC.json")
        if self.layout is None and self.names is None and self.void is None:
            return
        if not all(file == "-" or os.path.exists(file) for file in (*self.files, *([] if self.gt is None else [self.gt]))):
            return  # a missing file is reported where it is opened
        if not self.gt_is_maps and not any(map(os.path.isdir, self.files)):
            option = "--layout" if self.layout is not None else "--names" if self.names is not None else "--void"
            raise UsageError(f"{option} has no effect without a folder of label maps: name one as --gt, or instead of a masks file")
        if self.layout is not None and self.gt is not None and not self.gt_is_maps:
            raise UsageError(f"--layout {self.layout}: {self.gt} is not a folder; a layout says how a folder of label maps is kept")


def _draws(*kinds: str) -> Any:
    """Whether one of these is drawn: a page, a folder of overlays, a sheet."""

    def draws(given: Mapping[str, Any]) -> bool:
        kind = "sheet" if given["sheet"] is not None else "folder" if is_folder(str(given["output"])) else "page"
        return kind in kinds

    return draws


def is_folder(output: str) -> bool:
    """Whether an output is a folder of overlays."""
    return output.endswith("/") or os.path.isdir(output)


_PICTURES = Effect(_draws("folder", "sheet"), "has no effect on a page, which has controls of its own: use it with -o DIR/ or --sheet")


class Drawing(Options):
    """What is drawn, and where it is written."""

    SECTION: ClassVar[str] = "Output"

    output: str = option(
        "-", "Write a page (PAGE.html), or PNG overlays into a folder (DIR/, with the slash); - is a page on stdout.",
        flag=True, short="-o", metavar="PAGE.html|DIR/", decides=False, environment="never",
    )  # fmt: skip
    sheet: str | None = option(
        None,
        "Write one PNG of all images, a row each, instead of a page; - is stdout.",
        flag=True,
        metavar="SHEET.png",
        environment="never",
    )
    view: str = option(
        "auto",
        "Masks to draw in a PNG: auto (all where coloured by category, matched with --gt, or about 16 of one level), all, matched, T or "
        "threshold:T, count:N, level:N or depth:N (0 for wholes). A sheet has a column for each of several, apart by commas.",
        flag=True, metavar="VIEW", effect=_PICTURES,
    )  # fmt: skip
    title: str | None = option(
        None, "The page's title.", flag=True, effect=Effect(_draws("page"), "has no effect without a page (-o PAGE.html)"), rare=True
    )
    max_side: int | None = option(
        None, "Longest side of photographs, in pixels.", flag=True, low=64, high=8192, shown=f"{PAGE_SIDE}; {SHEET_SIDE} in a sheet",
        effect=Effect(_draws("page", "sheet"), "has no effect on overlays, which are as large as their photographs"), rare=True,
    )  # fmt: skip
    no_legend: bool = option(False, "Leave the legend of categories out of PNGs.", flag=True, effect=_PICTURES, rare=True)
    opacity: float = option(0.55, "Opacity of the colours in PNGs.", flag=True, low=0, high=1, effect=_PICTURES, rare=True)

    @property
    def folder(self) -> bool:
        """Whether overlays are written into a folder."""
        return self.sheet is None and is_folder(self.output)

    def check_with(self, given: ShowInputs) -> None:
        """Raises UsageError for an output that does not fit what is shown."""
        output, sheet = self.output, self.sheet
        if sheet is not None:
            if sheet.endswith("/") or os.path.isdir(sheet) or (sheet != "-" and not sheet.lower().endswith(".png")):
                raise UsageError(f"--sheet {sheet}: a sheet is one picture; name a file SHEET.png")
            if output != "-":
                raise UsageError("--sheet and -o are two outputs: give one of them")
        elif self.folder and (len(given.files) > 1 or given.gt is not None):
            raise UsageError(f"-o {output}: overlays show one mask file; for several, or with --gt, write a page (PAGE.html) or a --sheet")
        elif not self.folder and output != "-" and not output.lower().endswith((".html", ".htm")):
            raise UsageError(f"-o {output}: name a page (PAGE.html) or a folder with a closing slash ({output}/)")
        if "," in self.view and sheet is None:
            raise UsageError(f"--view {self.view}: several views are the columns of a --sheet; give one")
