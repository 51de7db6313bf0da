"""Refiners over many images, a toy one among them that comes from a registry of its own."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from ovskit.core.formats.photographs.photographs import Photographs
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.refine.job import RefineJob
from ovskit.core.refine.options import RefineOptions
from ovskit.core.refine.refinement import Refinement
from ovskit.core.runtime.errors import MissingInputError
from ovskit.core.runtime.methods import ChosenMethod, Method, Registry
from ovskit.core.runtime.settings import Options

SIDE = 10

TOY = """
from dataclasses import dataclass

from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import Options, option


@dataclass(frozen=True, slots=True)
class ToyOptions(Options):
    left: int = option(2, "Pixels that are left of a mask, those on its right.", low=0)


def run(job, options):
    from ovskit.core.masks.rle import decode, encode

    assert job.device == "cpu"

    def refine(pixels, masks, table):
        assert pixels[0, 0].tolist() == [1, 2, 3]
        found = []
        for mask in masks:
            dense = decode(mask.rle)
            dense[:, : dense.shape[1] - options.left] = 0
            found.append(encode(dense))
        return found

    return Refiner("toy", refine, "f00d")


METHOD = Method("toy", "Keep what is on the right.", ToyOptions, run, supervised=True)
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    folder = tmp_path / "refiners_of_this_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        monkeypatch.delitem(sys.modules, name)
    return Registry("refine", folder.name, ("toy",))


def chosen(method: Method, **options: int) -> ChosenMethod:
    return ChosenMethod(method, method.options(**options))


def masks_of(number: int, *widths: int) -> MaskSet:
    """Masks that are so many columns wide, from the right."""
    masks = []
    for k, width in enumerate(widths, 1):
        dense = np.zeros((SIDE, SIDE), np.uint8)
        dense[:, SIDE - width :] = 1
        outline = rle.encode(dense)
        masks.append(Mask(k, number, outline, rle.area(outline), rle.bbox(outline)))
    return MaskSet(Image(number, f"{number}.png", SIDE, SIDE), tuple(masks))


@pytest.fixture
def photographs(tmp_path: Path) -> Photographs:
    root = tmp_path / "photographs"
    root.mkdir()
    for number in range(1, 41):
        Pillow.new("RGB", (SIDE, SIDE), (1, 2, 3)).save(root / f"{number}.png")
    return Photographs(str(root))


def test_what_is_dropped_is_counted_over_all_images(registry: Registry, photographs: Photographs) -> None:
    """Of 3 columns 2 are left, an IoU of two thirds; of 8 a quarter."""
    refinement = Refinement([chosen(registry.get("toy"))], RefineOptions(min_iou=0.6, min_component=0), RefineJob("cpu"))
    assert refinement.dropped() is None
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(refinement.of(photographs), [masks_of(number, 3, 8) for number in range(1, 41)]))
    assert [[mask.area for mask in one.masks] for one in found] == [[2 * SIDE]] * 40
    assert refinement.dropped() == "dropped 40 of 80 masks: 40 moved below IoU 0.6"


def test_every_reason_is_said(registry: Registry, photographs: Photographs) -> None:
    toy = registry.get("toy")
    options = RefineOptions(min_iou=0, max_area=0.4, min_component=0)
    refinement = Refinement([chosen(toy, left=5)], options, RefineJob("cpu"))
    refinement.of(photographs)(masks_of(1, 3, 5, 8))
    assert refinement.dropped() == "dropped 2 of 3 masks: 2 larger than 0.4 of the image"
    refinement = Refinement([chosen(toy, left=0)], options, RefineJob("cpu"))
    refinement.of(photographs)(masks_of(1, 3))
    assert refinement.dropped() == "dropped 1 of 1 masks: 1 vanished"


def test_one_after_the_other(registry: Registry, photographs: Photographs) -> None:
    toy = registry.get("toy")
    refinement = Refinement([chosen(toy, left=7), chosen(toy, left=4)], RefineOptions(min_iou=0, min_component=0), RefineJob("cpu"))
    (mask,) = refinement.of(photographs)(masks_of(1, 9)).masks
    assert mask.area == 4 * SIDE


def test_photographs_are_read_only_where_masks_are_refined(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = Photographs(str(tmp_path / "empty"))
    refinement = Refinement([chosen(registry.get("toy"))], RefineOptions(), RefineJob("cpu"))
    assert refinement.of(empty)(masks_of(1)).masks == ()
    with pytest.raises(MissingInputError, match=r"1\.png"):
        refinement.of(empty)(masks_of(1, 3))
    assert len(Refinement([], RefineOptions(), RefineJob("cpu")).of(None)(masks_of(1, 3)).masks) == 1


class NoOptions(Options):
    pass


def test_facts_are_the_last_models(registry: Registry) -> None:
    from ovskit.core.refine.refiner import Refiner

    def run(job: RefineJob, options: NoOptions) -> Refiner:
        return Refiner("plain", lambda pixels, masks: [mask.rle for mask in masks])

    plain = Method("plain", "nothing.", NoOptions, run)
    said = {"model": "toy", "model_sha256": "f00d", "supervised": True}
    assert Refinement([chosen(plain)], RefineOptions(), RefineJob("cpu")).facts() == {}
    for order in (["toy", "plain"], ["plain", "toy"]):
        methods = [chosen(plain) if name == "plain" else chosen(registry.get("toy")) for name in order]
        assert Refinement(methods, RefineOptions(), RefineJob("cpu")).facts() == said
