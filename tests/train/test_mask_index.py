"""The index of targets: it gives back what the stream had, whatever the file's kind, and refuses what does not fit."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.formats.photographs.sources import Source
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks.rle import encode
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError, OutputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.growing_npy import GrowingArray
from ovskit.core.train.data.mask_index import ImageMasks, IndexOptions, MaskIndex, ancestors_of, open_mask_index

STRICT = Failures(skip=False)


def photographs(*names: str) -> list[Source]:
    return [Source(k, name, f"/nowhere/{name}") for k, name in enumerate(names, 1)]


def mask(number: int, image: int, pixels: np.ndarray, **more: object) -> Mask:
    return Mask(number, image, encode(pixels), int(pixels.sum()), (0, 0, 0, 0), **more)  # type: ignore[arg-type]


def rectangle(height: int, width: int, *box: int) -> np.ndarray:
    pixels = np.zeros((height, width), np.uint8)
    pixels[box[0] : box[2], box[1] : box[3]] = 1
    return pixels


def write(path: Path, sets: list[MaskSet]) -> Path:
    with path.open("wb") as file:
        writer = MasksWriter(file, MasksHeader())
        for masks in sets:
            writer.write(masks)
        writer.finish()
    return path


def write_coco(path: Path, sets: list[MaskSet]) -> Path:
    """As an instances document that is not in lines: annotations of all images mixed, without file names, scores or parents."""
    notes = [
        {"id": m.id, "image_id": s.image.id, "category_id": 1, "iscrowd": m.iscrowd, "segmentation": {"size": [m.rle.height, m.rle.width]}}
        | {"area": m.area, "bbox": [0, 0, 1, 1]}
        for s in sets
        for m in s.masks
    ]
    for note, m in zip(notes, [m for s in sets for m in s.masks], strict=True):
        note["segmentation"]["counts"] = m.rle.counts.decode()  # type: ignore[index]
    images = [{"id": s.image.id, "file_name": s.image.file_name, "width": s.image.width, "height": s.image.height} for s in sets]
    path.write_text(json.dumps({"annotations": notes[::2] + notes[1::2], "images": images, "categories": [{"id": 1, "name": "x"}]}))
    return path


@st.composite
def streams(draw: st.DrawFn) -> list[MaskSet]:
    """Images of different sizes with 0 to 5 masks each, in no order of names; some masks empty, with parents and scores or not."""
    count = draw(st.integers(1, 4))
    with_parents, with_scores = draw(st.booleans()), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    sets, number = [], 0
    for k in draw(st.permutations(range(count))):
        height, width = (int(v) for v in rng.integers(1, 12, 2))
        masks: list[Mask] = []
        for n in range(draw(st.integers(0, 5))):
            number += 1
            above = masks[int(rng.integers(n))].id if with_parents and n and rng.random() < 0.6 else None
            score = float(rng.integers(0, 4)) / 4 if with_scores else None
            masks.append(mask(number, len(sets) + 1, (rng.random((height, width)) < 0.4).astype(np.uint8), score=score, parent_id=above))
        sets.append(MaskSet(Image(len(sets) + 1, f"{'ä' * k}{k}.jpg", width, height), tuple(masks)))
    return sets


def check(found: ImageMasks, wanted: MaskSet, *, bare: bool) -> None:
    full = [m for m in wanted.masks if m.area]
    assert (found.name, found.height, found.width) == (wanted.image.file_name, wanted.image.height, wanted.image.width)
    assert list(found.rles) == [m.rle for m in full]
    assert found.areas.tolist() == [m.area for m in full]
    scores = [np.nan if m.score is None or bare else m.score for m in full]
    np.testing.assert_array_equal(found.scores, np.array(scores, np.float32))
    if bare:
        assert (found.parents == -1).all()
        assert not found.hierarchical
        return
    by_id = {m.id: m for m in wanted.masks}
    for m, place in zip(full, found.parents.tolist(), strict=True):
        above = by_id[m.parent_id] if m.parent_id is not None else None
        while above is not None and not above.area:
            above = by_id[above.parent_id] if above.parent_id is not None else None
        assert place == (-1 if above is None else full.index(above))


@settings(max_examples=50, deadline=None)
@given(streams(), st.booleans(), st.randoms())
def test_the_index_gives_what_the_stream_had(sets: list[MaskSet], coco: bool, random: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = (write_coco if coco else write)(Path(folder) / "masks.json", sets)
        sources = photographs(*(f"deep/{k}/" * (k % 2) + s.image.file_name for k, s in enumerate(sets)), "other.jpg")
        random.shuffle(sources)  # type: ignore[attr-defined]
        learnt = [s for s in sets if any(m.area for m in s.masks)]
        if not learnt:
            with pytest.raises(InputError, match="nothing to learn"):
                open_mask_index(sources, path, IndexOptions(), Path(folder) / "index", failures=STRICT)
            assert [p.name for p in Path(folder).iterdir()] == ["masks.json"]
            return
        made = open_mask_index(sources, path, IndexOptions(), Path(folder) / "index", failures=STRICT)
        again = open_mask_index(sources, path, IndexOptions(), Path(folder) / "index", failures=STRICT)
        learnt.sort(key=lambda s: [i.name for i in made].index(s.image.file_name) if coco else 0)
        for index in (made, again):
            assert len(index) == len(learnt)
            assert index.masks == sum(m.area > 0 for s in learnt for m in s.masks)
            assert index.hierarchical == (not coco and any(m.parent_id is not None for s in sets for m in s.masks))
            for k in list(range(len(index)))[::-1]:  # in any order
                wanted = learnt[k]
                if coco:  # read in another order
                    order = {m.id: n for n, m in enumerate(s for t in sets for s in t.masks)}
                    even = sorted(wanted.masks, key=lambda m: (order[m.id] % 2, order[m.id]))
                    wanted = MaskSet(wanted.image, tuple(even))
                check(index[k], wanted, bare=coco)
                assert sources[index[k].place].file_name.endswith(wanted.image.file_name)
        with pytest.raises(IndexError):
            made[len(made)]


def test_arrays_are_mapped_and_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", [MaskSet(Image(1, "a.jpg", 9, 8), (mask(1, 1, rectangle(8, 9, 0, 0, 4, 4)),))])
    index = open_mask_index(photographs("a.jpg"), path, IndexOptions(), tmp_path / "index", failures=STRICT)
    for name in ("counts", "counts_ends", "parents", "areas", "scores", "names"):
        assert isinstance(index._of[name], np.memmap)
        np.testing.assert_array_equal(np.load(tmp_path / "index" / f"{name}.npy"), index._of[name])


def family() -> list[MaskSet]:
    """A whole (36 pixels), its part (16), the part's part (4), and another whole (6); scores fall as areas do, but for the last."""
    boxes = [(0, 0, 6, 6), (0, 0, 4, 4), (0, 0, 2, 2), (7, 4, 8, 10)]
    parents = [None, 1, 2, None]
    scores = [0.5, 0.4, 0.3, 0.9]
    masks = [
        mask(k, 1, rectangle(8, 10, *box), parent_id=above, score=score)
        for k, (box, above, score) in enumerate(zip(boxes, parents, scores, strict=True), 1)
    ]
    return [MaskSet(Image(1, "a.jpg", 10, 8), tuple(masks))]


@pytest.mark.parametrize(
    ("options", "areas", "parents"),
    [
        (IndexOptions(), [36, 16, 4, 6], [-1, 0, 1, -1]),
        (IndexOptions(min_area=5), [36, 16, 6], [-1, 0, -1]),
        (IndexOptions(min_area=0.1), [36, 16], [-1, 0]),
        (IndexOptions(max_masks=2), [36, 6], [-1, -1]),
        (IndexOptions(max_masks=3), [36, 16, 6], [-1, 0, -1]),
        (IndexOptions(min_area=6, max_masks=1), [6], [-1]),
    ],
)
def test_which_masks_are_kept(tmp_path: Path, options: IndexOptions, areas: list[int], parents: list[int]) -> None:
    index = open_mask_index(photographs("a.jpg"), write(tmp_path / "m.json", family()), options, tmp_path / "i", failures=STRICT)
    assert index[0].areas.tolist() == areas
    assert index[0].parents.tolist() == parents


def test_without_scores_the_largest_are_kept_and_a_lost_parent_is_stepped_over(tmp_path: Path) -> None:
    [masks] = family()
    changed = [m if k else mask(1, 1, rectangle(8, 10, 0, 0, 6, 6), score=0.5) for k, m in enumerate(masks.masks)]
    unscored = [Mask(m.id, 1, m.rle, m.area, m.bbox, parent_id=m.parent_id) for m in changed]
    path = write(tmp_path / "m.json", [MaskSet(masks.image, tuple(unscored))])
    index = open_mask_index(photographs("a.jpg"), path, IndexOptions(max_masks=2), tmp_path / "i", failures=STRICT)
    assert index[0].areas.tolist() == [36, 16]
    low = [Mask(m.id, 1, m.rle, m.area, m.bbox, parent_id=m.parent_id, score=[0.9, 0.1, 0.8, 0.2][k]) for k, m in enumerate(changed)]
    path = write(tmp_path / "low.json", [MaskSet(masks.image, tuple(low))])
    index = open_mask_index(photographs("a.jpg"), path, IndexOptions(max_masks=2), tmp_path / "j", failures=STRICT)
    assert (index[0].areas.tolist(), index[0].parents.tolist()) == ([36, 4], [-1, 0])


def test_crowds_are_no_targets(tmp_path: Path) -> None:
    sets = [MaskSet(Image(1, "a.jpg", 9, 8), (mask(1, 1, rectangle(8, 9, 0, 0, 4, 4), iscrowd=1), mask(2, 1, rectangle(8, 9, 0, 0, 2, 2))))]
    for k, writer in enumerate((write, write_coco)):
        path = writer(tmp_path / f"{k}.json", sets)
        index = open_mask_index(photographs("a.jpg"), path, IndexOptions(), tmp_path / f"i{k}", failures=STRICT)
        assert index[0].areas.tolist() == [4]


def test_ancestors_by_parents_and_by_coverage(tmp_path: Path) -> None:
    sets = family()
    index = open_mask_index(photographs("a.jpg"), write(tmp_path / "m.json", sets), IndexOptions(), tmp_path / "i", failures=STRICT)
    wanted = np.zeros((4, 4), np.bool_)
    wanted[0, 1] = wanted[0, 2] = wanted[1, 2] = True
    np.testing.assert_array_equal(ancestors_of(index[0]), wanted)
    index = open_mask_index(photographs("a.jpg"), write_coco(tmp_path / "c.json", sets), IndexOptions(), tmp_path / "j", failures=STRICT)
    targets = index[0]
    assert not targets.hierarchical
    order = [[36, 16, 4, 6].index(area) for area in targets.areas]
    np.testing.assert_array_equal(ancestors_of(targets), wanted[np.ix_(order, order)])
    np.testing.assert_array_equal(ancestors_of(targets, run_table(targets.rles), cover=0.05), np.zeros((4, 4)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 6))
def test_coverage_is_the_papers_pair_test(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.sort(rng.integers(0, 25, (count, 2, 2)), 2)
    dense = [rectangle(24, 24, y0, x0, y1, x1) for (y0, y1), (x0, x1) in boxes]
    empty = np.zeros(count, np.int64)
    targets = ImageMasks("a", 0, 24, 24, tuple(encode(m) for m in dense), empty, empty.astype(np.float32), empty - 1, False)
    found = ancestors_of(targets)
    for i, j in permutations(range(count), 2):
        shared = int((dense[i] & dense[j]).sum())
        inside = shared > 0 and shared / dense[j].sum() > 0.9 and shared / dense[i].sum() < 0.9
        assert found[i, j] == inside
    assert not found.diagonal().any()
    assert not (found & found.T).any()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path, sources = write(tmp_path / "m.json", family()), photographs("a.jpg", "b.jpg")
    open_mask_index(sources, path, IndexOptions(), tmp_path / "i", failures=STRICT)
    for others, options in ((sources[:1], IndexOptions()), (sources, IndexOptions(max_masks=2))):
        with pytest.raises(InputError, match="made of other masks"):
            open_mask_index(others, path, options, tmp_path / "i", failures=STRICT)
    write(path, [MaskSet(Image(1, "b.jpg", 10, 8), family()[0].masks)])
    with pytest.raises(InputError, match="made of other masks"):
        open_mask_index(sources, path, IndexOptions(), tmp_path / "i", failures=STRICT)


def test_images_that_are_not_there(tmp_path: Path) -> None:
    [first] = family()
    second = MaskSet(Image(2, "gone.jpg", 9, 8), (mask(9, 2, rectangle(8, 9, 0, 0, 4, 4)),))
    path = write(tmp_path / "m.json", [first, second])
    with pytest.raises(MissingInputError, match=r"gone\.jpg has masks in .*m\.json, but is not among"):
        open_mask_index(photographs("a.jpg"), path, IndexOptions(), tmp_path / "i", failures=STRICT)
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]
    failures = Failures(skip=True)
    assert len(open_mask_index(photographs("a.jpg"), path, IndexOptions(), tmp_path / "i", failures=failures)) == 1
    assert failures.count == 1
    with pytest.raises(InputError, match="nothing to learn"):
        open_mask_index(photographs("c.jpg"), path, IndexOptions(), tmp_path / "j", failures=Failures(skip=True))
    with pytest.raises(MissingInputError, match="none"):
        open_mask_index(photographs("a.jpg"), tmp_path / "none.json", IndexOptions(), tmp_path / "j", failures=STRICT)


def test_an_image_twice(tmp_path: Path) -> None:
    [first] = family()
    second = MaskSet(Image(2, "x/a.jpg", 9, 8), (mask(9, 2, rectangle(8, 9, 0, 0, 4, 4)),))
    path = write(tmp_path / "m.json", [first, second])
    with pytest.raises(InputError, match=r"two images fit x/a\.jpg"):
        open_mask_index(photographs("x/a.jpg"), path, IndexOptions(), tmp_path / "i", failures=STRICT)
    with pytest.raises(InputError, match="two images are called"):
        open_mask_index(photographs("a.jpg", "a.jpg"), path, IndexOptions(), tmp_path / "i", failures=STRICT)


def test_a_stream_that_was_cut_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", family())
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="truncated"):
        open_mask_index(photographs("a.jpg"), path, IndexOptions(), tmp_path / "i", failures=STRICT)
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_a_folder_that_holds_something_else_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", family())
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="cannot write the index"):
        open_mask_index(photographs("a.jpg"), path, IndexOptions(), tmp_path / "i", failures=STRICT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i", "m.json"]
    (tmp_path / "i" / "thesis.tex").unlink()
    assert len(open_mask_index(photographs("a.jpg"), path, IndexOptions(), tmp_path / "i", failures=STRICT)) == 1


def test_its_mode_follows_the_umask(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", family())
    before = os.umask(0o027)
    try:
        open_mask_index(photographs("a.jpg"), path, IndexOptions(), tmp_path / "i", failures=STRICT)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "i").stat().st_mode) == 0o750


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, values: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(GrowingArray, "append", full)
    path = write(tmp_path / "m.json", family())
    with pytest.raises(OutputError, match=r"cannot write the index .*i: No space left on device; free some space.*--cache"):
        open_mask_index(photographs("a.jpg"), path, IndexOptions(), tmp_path / "i", failures=STRICT)
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


@pytest.mark.parametrize(
    ("empty", "words"), [(1, "1 image has no mask to learn from and is"), (2, "2 images have no mask to learn from and are")]
)
def test_images_without_masks_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture, empty: int, words: str) -> None:
    sets = [*family(), *(MaskSet(Image(k, f"{k}.jpg", 9, 9), ()) for k in range(2, 2 + empty))]
    open_mask_index(photographs("a.jpg"), write(tmp_path / "m.json", sets), IndexOptions(), tmp_path / "i", failures=STRICT)
    assert words in caplog.text


@pytest.mark.parametrize("name", ["index.json", "counts.npy"])
def test_of_a_damaged_file_only_the_name_is_said(tmp_path: Path, name: str) -> None:
    open_mask_index(photographs("a.jpg"), write(tmp_path / "m.json", family()), IndexOptions(), tmp_path / "i", failures=STRICT)
    (tmp_path / "i" / name).write_bytes(b"nothing that numpy knows")
    with pytest.raises(InputError, match=rf"a damaged index \({name} cannot be read\); delete the folder"):
        MaskIndex(tmp_path / "i")


@pytest.mark.parametrize("name", ["counts.npy", "parents.npy", "masks_ends.npy", "index.json"])
def test_a_damaged_index_is_refused(tmp_path: Path, name: str) -> None:
    open_mask_index(photographs("a.jpg"), write(tmp_path / "m.json", family()), IndexOptions(), tmp_path / "i", failures=STRICT)
    path = tmp_path / "i" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(InputError, match="damaged index"):
        MaskIndex(tmp_path / "i")
    if name.endswith(".npy"):
        np.save(path, np.zeros(3, np.int16))
        with pytest.raises(InputError, match="damaged index"):
            MaskIndex(tmp_path / "i")
    path.unlink()
    with pytest.raises(MissingInputError, match="no index of masks"):
        MaskIndex(tmp_path / "i")


def test_names_in_another_spelling_are_found_and_numbers_are_no_names(tmp_path: Path) -> None:
    sets = [MaskSet(Image(k, name, 6, 5), (mask(k, k, rectangle(5, 6, 0, 0, 3, 3)),)) for k, name in ((1, "x%20y.png"), (2, "in\\b.jpg"))]
    index = open_mask_index(
        photographs("a.jpg", "in/b.jpg", "x y.jpg"), write(tmp_path / "m.json", sets), IndexOptions(), tmp_path / "i", failures=STRICT
    )
    assert [index[k].place for k in range(len(index))] == [2, 1]
    results = [{"image_id": 1, "segmentation": {"size": [5, 6], "counts": sets[0].masks[0].rle.counts.decode()}}]
    (tmp_path / "r.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match="ids and no names"):
        open_mask_index(photographs("1.jpg"), tmp_path / "r.json", IndexOptions(), tmp_path / "j", failures=STRICT)
