"""The first photographs of a ground truth, and how well masks are found on them: how a network under training is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ovskit.core.eval.evaluation import evaluate
from ovskit.core.eval.registry import make_metric
from ovskit.core.formats.photographs.photographs import Photographs, check_named, settled_exif
from ovskit.core.formats.truth.ground_truth import GroundTruth, open_ground_truth
from ovskit.core.records import Image, MaskSet, UInt8
from ovskit.core.runtime.errors import InputError

_MAX_PIXELS = 10**9


class TruthSample:
    """The first ``limit`` photographs of the ground truth in a file, in ``root`` or else the file's folder, turned upright as ``exif``
    (``apply`` or ``ignore``) or else the file says.

    Raises MissingInputError or InputError for a ground truth without masks, and for photographs that cannot be used, as far as the first
    photograph tells.
    """

    def __init__(self, truth: str, root: str | None, limit: int, exif: str | None = None) -> None:
        whole = open_ground_truth(truth)
        check_named(whole.named, whole.what)
        self._some = GroundTruth(
            whole.what, whole.images[:limit], whole.load, whole.categories, named=whole.named, exif=whole.exif, searched=whole.searched
        )
        folder = str(Path(truth).parent) if root is None else root
        self._photographs = Photographs(folder, max_pixels=_MAX_PIXELS, exif=settled_exif(exif, whole.exif, whole.what))
        self.images = self._some.images
        if all(mask.iscrowd for k in range(len(self.images)) for mask in self._some.load(k).masks):
            raise InputError(
                f"{whole.what}: its first {len(self.images)} images have no masks other than crowds: there is nothing to find in them"
            )
        self._photographs.load(self.images[0])

    def score_of(self, find: Callable[[Image, UInt8], MaskSet]) -> dict[str, float]:
        """The ``score`` of the masks that ``find`` finds in a photograph's pixels (h, w, 3) RGB uint8."""
        return self.score(find(image, self._photographs.load(image)) for image in self.images)

    def score(self, found: Iterable[MaskSet]) -> dict[str, float]:
        """AR at 10 and 1,000 masks and AP, in percent; of LVIS, whose AP without categories means nothing, AR alone."""
        metrics = evaluate(list(found), self._some, make_metric("ar")).metrics()
        names = ("AR@10", "AR@1000", *(["AP"] if self._some.searched is None else []))
        return {name: 100 * value for name in names if (value := metrics[name]) is not None}
