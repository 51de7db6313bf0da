"""Label maps from files as data sets keep them, and from masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from ovskit.core.formats.labels.layouts import LAYOUTS, PLAIN
from ovskit.core.formats.labels.maps import open_label_folder, painted_prediction, painted_truth
from ovskit.core.formats.labels.spaces import open_label_space
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.masks.rle import encode
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError

IDS = np.array([[0, 1, 2], [255, 11, 3]])


def save(path: Path, ids: np.ndarray, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "RG":
        Picture.fromarray(np.stack([ids % 256, ids // 256, np.zeros_like(ids)], -1).astype(np.uint8)).save(path)
        return
    picture = Picture.fromarray(ids.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        picture.putpalette([k * 7 % 256 for k in range(768)])
    picture.save(path)


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_numbers_are_ids_whatever_the_file(tmp_path: Path, mode: str, suffix: str) -> None:
    ids = IDS if mode != "I;16" else IDS * 100
    save(tmp_path / f"a{suffix}", ids, mode)
    truth = open_label_folder(str(tmp_path))
    assert (truth.images[0].file_name, truth.images[0].width, truth.images[0].height) == (f"a{suffix}", 3, 2)
    labels = truth.load(0).labels
    assert labels.dtype == np.int32
    # 16-bit maps read as 8-bit would be 100s modulo 256.
    np.testing.assert_array_equal(labels, np.where(ids == 255, -1, ids))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_is_not_stretched(tmp_path: Path, bits: int) -> None:
    import struct
    import zlib

    ids = np.arange(8).reshape(2, 4) % (1 << bits)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b""
    for row in ids:
        packed = np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].ravel())
        rows += b"\0" + packed.tobytes()
    header = struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(open_label_folder(str(tmp_path)).load(0).labels, ids)


# For each layout: a file below the root, its stored ids and mode, the image's name, and what the ids are of.
MINIATURES = {
    "voc": ("SegmentationClass/2007_000033.png", [[0, 20, 255]], "P", "JPEGImages/2007_000033.jpg", [[0, 20, -1]]),
    "context-59": ("SegmentationClassContext/2008_000002.png", [[0, 1, 59]], "L", "2008_000002.jpg", [[-1, 0, 58]]),
    "context-60": ("SegmentationClassContext/2008_000002.png", [[0, 1, 59]], "L", "2008_000002.jpg", [[0, 1, 59]]),
    "coco-object": ("annotations/val2017/000000000139_instanceTrainIds.png", [[0, 80, 255]], "L", "000000000139.jpg", [[0, 80, -1]]),
    "coco-stuff": ("annotations/val2017/000000000139_labelTrainIds.png", [[0, 170, 255]], "L", "000000000139.jpg", [[0, 170, -1]]),
    "ade": ("annotations/validation/ADE_val_00000001.png", [[0, 1, 150]], "L", "ADE_val_00000001.jpg", [[-1, 0, 149]]),
    "cityscapes": (
        "gtFine/val/ulm/ulm_000000_000019_gtFine_labelTrainIds.png", [[0, 18, 255]], "L",
        "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png", [[0, 18, -1]],
    ),
    "imagenet-s": (
        "validation-segmentation/n01443537/ILSVRC2012_val_00000236.png", [[0, 50, 1000]], "RG",
        "ILSVRC2012_val_00000236.JPEG", [[0, 50, -1]],
    ),
    "camvid": ("testannot/0001TP_008550.png", [[0, 10, 11]], "L", "test/0001TP_008550.png", [[0, 10, -1]]),
    "binary": ("GT/0001.png", [[0, 127, 128]], "L", "0001.jpg", [[0, 0, 1]]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path: Path, name: str) -> None:
    path, stored, mode, image, ids = MINIATURES[name]
    save(tmp_path / path, np.array(stored), mode)
    (tmp_path / "README.txt").write_text("not a map")
    layout = LAYOUTS[name]
    truth = open_label_folder(str(tmp_path), layout)
    assert len(truth) == 1
    labels = truth.load(0).labels
    np.testing.assert_array_equal(labels, ids)
    found = truth.find(Image(77, image, 3, 1))
    assert found is not None
    assert found.index == 0
    assert truth.find(Image(1, "another.jpg", 3, 1)) is None  # not by its place in the folder
    assert layout.space is not None
    known = {one.id for one in open_label_space(layout.space).classes}
    assert set(labels.ravel().tolist()) - {-1} <= known
    with pytest.raises(InputError, match="3×1"):
        truth.find(Image(1, image, 4, 1))


def test_a_split_chooses_the_images(tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path / f"SegmentationClass/{k}.png", IDS)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("0\n\n2 -1\n")
    assert [image.file_name for image in open_label_folder(str(tmp_path), LAYOUTS["voc"]).images] == ["0.png", "2.png"]


def test_names_may_have_points(tmp_path: Path) -> None:
    for k in (1, 2):
        save(tmp_path / f"drive/frame.000{k}.png", IDS + k)
    truth = open_label_folder(str(tmp_path))
    found = truth.find(Image(7, "frame.0002.jpg", 3, 2))
    assert found is not None
    np.testing.assert_array_equal(truth.load(found.index).labels, np.where(IDS == 255, 1, IDS + 2))
    again = open_label_folder(str(tmp_path))  # predictions are kept alike
    assert [truth.find(image).index for image in again.images] == [0, 1]  # type: ignore[union-attr]
    assert truth.find(Image(7, "frame.jpg", 3, 2)) is None


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="not a folder"):
        open_label_folder(str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"no label maps \(\*\.png, \*\.tif, \*\.tiff\)"):
        open_label_folder(str(tmp_path))
    save(tmp_path / "a.png", IDS)
    with pytest.raises(InputError, match=r"_labelTrainIds\.png"):
        open_label_folder(str(tmp_path), LAYOUTS["cityscapes"])
    Picture.new("RGB", (4, 3)).save(tmp_path / "colours.png")
    truth = open_label_folder(str(tmp_path), PLAIN)
    with pytest.raises(InputError, match=r"colours\.png is a colour image"):
        truth.load(1)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"bad\.png cannot be decoded"):
        open_label_folder(str(tmp_path))


def mask(number: int, where: np.ndarray, category: int, score: float | None = None) -> Mask:
    return Mask(number, 1, encode(where), int(where.sum()), (0, 0, 0, 0), category, score=score)


@settings(deadline=None)  # kernels compile
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_masks_are_painted_by_score_then_area(seed: int, scored: bool) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.random((4, 5, 6)) < 0.4
    scores = rng.choice([0.2, 0.9], 4) if scored else [None] * 4
    masks = [mask(k + 1, where, 10 + k, score) for k, (where, score) in enumerate(zip(dense, scores, strict=True))]
    labels = painted_prediction(MaskSet(Image(1, "a.jpg", 6, 5), tuple(masks))).labels
    for y, x in np.ndindex(5, 6):
        here = [m for m, where in zip(masks, dense, strict=True) if where[y, x]]
        expected = min(here, key=lambda m: (-(m.score or 0), m.area, m.id)).category_id if here else -1
        assert labels[y, x] == expected


def test_a_ground_truth_of_masks() -> None:
    whole, part = np.ones((2, 3), bool), np.zeros((2, 3), bool)
    part[0, 0] = True
    whole[1, 2] = False
    sets = MaskSet(Image(5, "a.jpg", 3, 2), (mask(1, part, 18), mask(2, whole, 3)))
    truth = painted_truth(GroundTruth("gt", [sets.image], lambda k: sets), {18: 1, 3: 0}, None)
    np.testing.assert_array_equal(truth.load(0).labels, [[1, 0, 0], [0, 0, -1]])
    assert truth.find(Image(5, "other.jpg", 3, 2)) is None
    found = truth.find(Image(5, "5", 3, 2), named=False)
    assert found is not None
    assert found.by == "id"
    found = truth.find(Image(1, "a.png", 3, 2))
    assert found is not None
    assert found.by == "stem"
    background = painted_truth(GroundTruth("gt", [sets.image], lambda k: sets), {18: 1, 3: 0}, 0)
    np.testing.assert_array_equal(background.load(0).labels, [[1, 0, 0], [0, 0, 0]])
    empty = painted_truth(GroundTruth("gt", [sets.image], lambda k: MaskSet(sets.image, ())), {}, None)
    np.testing.assert_array_equal(empty.load(0).labels, np.full((2, 3), -1))


def test_hidden_maps_are_nobodys_and_linked_folders_are_read(tmp_path: Path) -> None:
    save(tmp_path / "maps" / "a.png", IDS)
    save(tmp_path / "maps" / ".ipynb_checkpoints" / "a-checkpoint.png", IDS)
    (tmp_path / "maps" / "._a.png").write_bytes(b"what macOS leaves")
    save(tmp_path / "elsewhere" / "b.png", IDS)
    (tmp_path / "maps" / "more").symlink_to("../elsewhere")
    (tmp_path / "maps" / "more" / "round").symlink_to("..")
    assert [image.file_name for image in open_label_folder(str(tmp_path / "maps")).images] == ["a.png", "more/b.png"]


def test_a_split_list_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "SegmentationClass" / f"{name}.png", IDS)
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("a\r\nb\r\n", "utf-8-sig")
    assert len(open_label_folder(str(tmp_path), LAYOUTS["voc"])) == 2
