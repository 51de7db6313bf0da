"""What a refiner is: a function from an image and its masks to better masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ovskit.core.masks.runs import run_table
from ovskit.core.records import Mask, Rle, RunTable, UInt8
from ovskit.core.runtime.errors import InputError


class RefineMasks(Protocol):
    """The method itself."""

    def __call__(self, pixels: UInt8, masks: Sequence[Mask], table: RunTable) -> list[Rle]:
        """``masks`` with better boundaries: as many, in their order, of the image's size; one that vanishes is empty.

        ``pixels`` (H, W, 3) uint8 RGB is the image at its own resolution, ``table`` the masks' runs, of that size. What comes out depends
        on nothing but these: neither on other images, nor on threads. Called from several threads at once.
        """
        ...


@dataclass(frozen=True, slots=True)
class Refiner:
    """A method that is ready to use; ``weights_sha256`` is the hash of its weights, None where it has none."""

    name: str
    method: RefineMasks
    weights_sha256: str | None = None

    def refine(self, pixels: UInt8, masks: Sequence[Mask], table: RunTable | None = None) -> list[Rle]:
        """The method on one image; ``table`` is made of the masks if not given. Raises InputError if masks and image differ in size."""
        table = run_table([mask.rle for mask in masks]) if table is None else table
        height, width = pixels.shape[:2]
        if len(table) and (table.height, table.width) != (height, width):
            raise InputError(f"the masks are of {table.width}x{table.height} pixels, their image has {width}x{height}")
        return self.method(pixels, masks, table)
