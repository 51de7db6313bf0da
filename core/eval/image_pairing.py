"""Predictions on one side, ground truth on the other: which image is which, and what is missing on either side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import APPLY, UNKNOWN
from ovskit.core.formats.truth.ground_truth import TruthImages
from ovskit.core.records import Image, ImageLabels, LabelMap, MaskSet
from ovskit.core.runtime.errors import InputError

_SHOWN = 5  # strangers that a message names


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """How images were matched: ``listed`` by the predictions; of those ``strangers`` are not in the ground truth and ``by_id`` were
    found by their ids, one side having no names; ``unlisted`` are in the ground truth alone.
    """

    listed: int
    strangers: int
    by_id: int
    unlisted: int


class Pairing:
    """Finds the images of a stream of predictions, called ``what``, in a ground truth; ``named``: they have names that are not mere ids;
    ``exif``: how EXIF orientations were taken when they were made (``formats.photographs``); ``may_be_empty``: there may be none."""

    def __init__(self, truth: TruthImages, what: str, *, named: bool = True, exif: str = UNKNOWN, may_be_empty: bool = False) -> None:
        self._truth = truth
        self._may_be_empty = may_be_empty
        self._what = what
        self._named = named
        self._exif = exif
        self._turned: list[str] = []  # what was turned upright, where the ground truth may not have been
        self._names: dict[int, str] = {}  # what the stream calls each image that was found
        self._listed = self._strangers = self._by_id = 0
        self._unknown: list[Image] = []  # the first of the strangers

    def place(self, image: Image) -> int | None:
        """The place of ``image`` in the ground truth, None where it is not there.

        Raises InputError if it has another size there, or if an earlier image was found at the same place.
        """
        self._listed += 1
        found = self._truth.find(image, named=self._named)
        if found is None:
            self._strangers += 1
            if len(self._unknown) < _SHOWN:
                self._unknown.append(image)
            return None
        if found.index in self._names:
            one, other = show_path(self._names[found.index]), show_path(image.file_name)
            name = show_path(self._truth.images[found.index].file_name)
            raise InputError(f"{self._what}: {one} and {other} are both {name} of {self._truth.what}: every image can be scored once")
        self._check_orientation(image, self._truth.images[found.index])
        self._names[found.index] = image.file_name
        self._by_id += found.by == "id"
        return found.index

    def _check_orientation(self, image: Image, truth: Image) -> None:
        """Raises InputError where one side turned a picture that the other took as it is stored; notes the picture where a side's treatment
        is unknown."""
        ours, theirs = self._exif, self._truth.exif
        turned = image.orientation if ours == APPLY else truth.orientation
        if turned == 1 or ours == theirs:
            return
        if UNKNOWN not in (ours, theirs):
            raise InputError(
                f"{show_path(image.file_name)} has EXIF orientation {turned}, which {self._what} was made with --exif {ours} and "
                f"{self._truth.what} with --exif {theirs}: their masks are not of the same pixels"
            )
        self._turned.append(image.file_name)

    def pairs(
        self, sets: Iterable[MaskSet | LabelMap | ImageLabels], *, everything: bool
    ) -> Iterator[tuple[int, MaskSet | LabelMap | ImageLabels]]:
        """Place and predictions of every image that both sides have, then, with ``everything``, those of the ground truth alone."""
        for masks in sets:
            position = self.place(masks.image)
            if position is not None:
                yield position, masks
        self.check()
        if everything:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[int, MaskSet]]:
        """The images of the ground truth that the predictions do not list, without a mask."""
        for position, image in enumerate(self._truth.images):
            if position not in self._names:
                yield position, MaskSet(image, ())

    def check(self) -> None:
        """Raises InputError if no image was found, unless predictions that may be empty list no image."""
        if self._names or (self._may_be_empty and not self._listed):
            return
        if not self._unknown:
            raise InputError(f"{self._what} lists no image: there is nothing to score")
        first, other = self._unknown[0], self._truth.images[0]
        if not self._named or not self._truth.named:
            nameless = self._what if not self._named else self._truth.what
            raise InputError(
                f"{self._what}: none of its {_images(self._listed)} is in {self._truth.what}: {nameless} knows images by their ids alone, "
                f"such as {(first if not self._named else other).id}, which must be those of the other file, such as "
                f"{(other if not self._named else first).id}"
            )
        several = self._truth.fits(first)
        if several:
            raise InputError(
                f"{self._what}: none of its {_images(self._listed)} can be identified in {self._truth.what}: "
                f"{show_path(first.file_name)} fits {several} of its images; give names with more of their folders"
            )
        raise InputError(
            f"{self._what}: none of its {_images(self._listed)} is in {self._truth.what}: it has {show_path(first.file_name)}, the "
            f"ground truth {show_path(other.file_name)}; names, ends of paths, or names without extension must agree"
        )

    def counts(self) -> ImageCounts:
        """How many images were found, and how."""
        return ImageCounts(self._listed, self._strangers, self._by_id, len(self._truth) - len(self._names))

    def _shown(self, image: Image) -> str:
        several = self._truth.fits(image) if self._named and self._truth.named else 0
        return show_path(image.file_name) + (f", which fits {several} images" if several > 1 else "")

    def warnings(self, *, everything: bool, absent: str = "without masks") -> list[str]:
        """Warnings about images that one side lacks or may have turned; empty where there are none. ``absent`` is what those count as that
        the predictions lack."""
        counts = self.counts()
        said = []
        if counts.strangers:
            names = ", ".join(map(self._shown, self._unknown)) + ", …" * (counts.strangers > len(self._unknown))
            said.append(
                f"{counts.strangers} of the {_images(counts.listed)} predicted are not in the ground truth ({names}), and not scored"
            )
        if counts.unlisted:
            how = f"count as {absent}" if everything else "are left out"
            said.append(f"{counts.unlisted} of the ground truth's {_images(len(self._truth))} are not in the predictions and {how}")
        warnings = [f"{self._what}: {'; '.join(said)}"] if said else []
        if self._turned:
            foreign = self._truth.what if self._truth.exif == UNKNOWN else self._what
            warnings.append(
                f"{self._what}: {_images(len(self._turned))} turned upright by EXIF orientation, such as {show_path(self._turned[0])}; if "
                f"{foreign} was drawn on the pixels as they are stored, make the masks again with --exif ignore"
            )
        return warnings


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"
