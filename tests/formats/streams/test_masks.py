import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter, open_masks
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, UsageError

HEADER = MasksHeader(root="imgs", pg=({"id": "ovs-cluster", "tool": "ovs-cluster"},))


def mask_set(number: int, name: str, count: int, *, parents: bool = False, size: tuple[int, int] = (6, 7)) -> MaskSet:
    random = np.random.default_rng(number)
    masks = []
    for k in range(1, count + 1):
        dense = random.random(size) < 0.5
        dense[0, 0] = True
        found = rle.encode(dense)
        masks.append(
            Mask(k, number, found, rle.area(found), rle.bbox(found), score=k / 8, parent_id=1 if parents and k > 1 else None,
                 extra={"threshold": 0.5, "source": "global"})
        )  # fmt: skip
    return MaskSet(Image(number, name, size[1], size[0]), tuple(masks))


def stream_of(sets: list[MaskSet], header: MasksHeader = HEADER) -> bytes:
    out = io.BytesIO()
    writer = MasksWriter(out, header)
    for masks in sets:
        writer.write(masks)
    writer.finish()
    return out.getvalue()


def read(data: bytes) -> list[MaskSet]:
    return list(open_masks(io.BytesIO(data), "x")[1])


names = st.text(st.characters(exclude_categories=[]), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(names, st.integers(0, 4), st.booleans()), max_size=5, unique_by=lambda t: t[0]))
def test_what_is_written_is_read_back(items: list) -> None:
    sets = [mask_set(k, name, count, parents=parents) for k, (name, count, parents) in enumerate(items, 1)]
    data = stream_of(sets)
    header, found = open_masks(io.BytesIO(data), "x")
    assert header == HEADER
    again = sorted(found, key=lambda s: s.image.id)
    assert [s.image for s in again] == [s.image for s in sets]
    assert stream_of(again) == data
    for before, after in zip(sets, again, strict=True):
        for a, b in zip(before.masks, after.masks, strict=True):
            assert (a.rle, a.area, a.bbox, a.score, a.extra) == (b.rle, b.area, b.bbox, b.score, b.extra)


def test_it_is_json_and_pycocotools_loads_it(tmp_path: Path) -> None:
    sets = [mask_set(1, "a.jpg", 3, parents=True), mask_set(2, 'b "\n.jpg', 0), mask_set(3, "c.jpg", 2)]
    path = tmp_path / "m.json"
    path.write_bytes(stream_of(sets))
    document = json.loads(path.read_bytes())
    assert [image["file_name"] for image in document["images"]] == ["a.jpg", 'b "\n.jpg', "c.jpg"]
    assert [a["id"] for a in document["annotations"]] == [1, 2, 3, 4, 5]
    assert [a.get("parent_id") for a in document["annotations"]] == [None, 1, 1, None, None]
    coco = COCO(str(path))
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[1])):
        dense = coco.annToMask(annotation)
        assert dense.shape == (6, 7)
        assert dense.sum() == annotation["area"]


def test_one_annotation_a_line() -> None:
    lines = stream_of([mask_set(1, "a\nb", 2), mask_set(2, "c", 1)]).split(b"\n")
    assert lines[0].endswith(b'"annotations":[')
    assert all(json.loads(line.rstrip(b",")) for line in lines[1:4])
    assert lines[4] == b'],"images":['
    assert lines[-2:] == [b"]}", b""]


def test_masks_come_as_soon_as_their_image_is_complete() -> None:
    data = stream_of([mask_set(k, f"{k}", 2) for k in (1, 2, 3)])
    lines = data.splitlines(keepends=True)
    upto = io.BytesIO(b"".join(lines[:4]))  # header, two annotations of image 1, one of image 2
    _, sets = open_masks(upto, "x")
    assert next(sets).image.id == 1


def test_no_cut_goes_unnoticed() -> None:
    data = stream_of([mask_set(1, "a", 2), mask_set(2, "b", 0), mask_set(3, "c", 1)])
    read(data)
    for cut in range(len(data) - 2):  # the closing newline, and nothing else, may be missing
        with pytest.raises(InputError):
            read(data[:cut])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_is_an_input_error_or_harmless(data: st.DataObject) -> None:
    whole = bytearray(stream_of([mask_set(1, "a", 2, parents=True), mask_set(2, "b", 1)]))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        sets = read(bytes(whole))
    except InputError:
        return
    for masks in sets:
        for mask in masks.masks:
            assert rle.decode(mask.rle).sum() == mask.area


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"image_id":2', b'"image_id":1'),  # one image, two names
        (b'{"id":3,', b'{"id":2,'),  # ids must rise
        (b'"size":[6,7]', b'"size":[7,6]'),
        (b'"score":0.125', b'"score":NaN'),
        (b'"iscrowd":0', b'"iscrowd":2'),
        (b'"parent_id":1', b'"parent_id":77'),
        (b"]}\n", b"]}\n]}\n"),
        (b'"file_name":"b"', b'"file_name":3'),
        (b"ovskit.masks/1", b"ovskit.masks/9"),
        (b'{"id":2,"file_name":"b","width":7', b'{"id":2,"file_name":"b","width":8'),
        (b'{"id":2,"file_name":"b","width":7', b'{"id":1,"file_name":"b","width":7'),
    ],
)
def test_nonsense_is_refused(old: bytes, new: bytes) -> None:
    data = stream_of([mask_set(1, "a", 2, parents=True), mask_set(2, "b", 1)])
    assert old in data
    with pytest.raises(InputError):
        read(data.replace(old, new, 1))


def test_images_interleaved_are_refused() -> None:
    lines = stream_of([mask_set(1, "a", 2), mask_set(2, "b", 2)]).split(b"\n")
    lines[2], lines[3] = lines[3], lines[2]
    shuffled = [line.replace(b'{"id":3', b'{"id":2').replace(b'{"id":2', b'{"id":%d' % k) if 1 < k < 4 else line
                for k, line in enumerate(lines)]  # fmt: skip
    with pytest.raises(InputError):
        read(b"\n".join(shuffled))


def test_a_kill_anywhere_resumes_to_the_same_bytes() -> None:
    sets = [mask_set(1, "a", 2), mask_set(2, "b", 0), mask_set(3, "c", 3, parents=True), mask_set(4, "d", 1)]
    whole = stream_of(sets)
    for cut in range(len(whole)):
        file = io.BytesIO(whole[:cut])
        writer, done = MasksWriter.resume(file, HEADER, "x.part")
        for masks in sets:
            if masks.image.id not in done:
                writer.write(masks)
        writer.finish()
        assert file.getvalue() == whole, cut


def test_another_command_does_not_resume() -> None:
    data = stream_of([mask_set(1, "a", 2)])
    with pytest.raises(UsageError, match="other inputs or options"):
        MasksWriter.resume(io.BytesIO(data), MasksHeader(root="elsewhere"), "x.part")


def test_a_byte_order_mark_is_passed_over() -> None:
    data = stream_of([mask_set(1, "a", 2)])
    header, sets = open_masks(io.BytesIO(b"\xef\xbb\xbf" + data), "x")
    assert (header, [len(found.masks) for found in sets]) == (HEADER, [2])
    with pytest.raises(InputError, match="x: line 2 is not valid JSON: NaN is not a number there"):
        list(open_masks(io.BytesIO(data.replace(b"0.125", b"NaN")), "x")[1])
