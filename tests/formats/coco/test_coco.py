"""COCO files that others wrote."""

import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovskit.core.formats.streams.masks import open_masks
from ovskit.core.masks import rle
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError

POLYGON = [[1.0, 1.0, 8.0, 1.5, 6.0, 7.0]]
SQUARE = coco_mask.encode(np.asfortranarray(np.pad(np.ones((3, 3), np.uint8), ((1, 4), (2, 5)))))
SQUARE_JSON = {"size": [8, 10], "counts": SQUARE["counts"].decode()}


def read(value: object, *, lines: bool = False) -> list[MaskSet]:
    if lines:
        assert isinstance(value, list)
        data = b"\n".join(json.dumps(v).encode() for v in value)
    else:
        data = json.dumps(value).encode()
    return list(open_masks(io.BytesIO(data), "x")[1])


def document(*annotations: dict) -> dict:
    return {"images": [{"id": 7, "file_name": "a.jpg", "width": 10, "height": 8}], "annotations": list(annotations)}


def test_instances_with_polygons_and_both_kinds_of_rle() -> None:
    runs = [int(n) for n in rle.runs(rle.validate(8, 10, SQUARE_JSON["counts"]))]
    sets = read(
        document(
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": POLYGON, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "segmentation": SQUARE_JSON},
            {"id": 3, "image_id": 7, "category_id": 3, "segmentation": {"size": [8, 10], "counts": runs}, "iscrowd": 1},
        )
    )
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(POLYGON, 8, 10)))
    assert np.array_equal(rle.decode(sets[0].masks[0].rle), expected)
    assert sets[0].masks[1].rle == sets[0].masks[2].rle
    assert [m.iscrowd for m in sets[0].masks] == [0, 0, 1]
    assert sets[0].masks[1].area == 9


def test_pretty_printed_documents() -> None:
    text = json.dumps(document({"id": 1, "image_id": 7, "segmentation": SQUARE_JSON}), indent=2)
    (masks,) = list(open_masks(io.BytesIO(text.encode()), "x")[1])
    assert masks.masks[0].area == 9


@pytest.mark.parametrize("lines", [False, True])
def test_a_results_list(lines: bool) -> None:
    results = [{"image_id": 4, "category_id": 1, "segmentation": SQUARE_JSON, "score": 0.5 + k / 10} for k in range(3)]
    (masks,) = read(results, lines=lines)
    assert masks.image.id == 4
    assert (masks.image.width, masks.image.height) == (10, 8)
    assert [m.score for m in masks.masks] == [0.5, 0.6, 0.7]


@pytest.mark.parametrize("lines", [False, True])
def test_sa1b_one_object_per_image(lines: bool) -> None:
    def per_image(number: int) -> dict:
        image = {"image_id": number, "file_name": f"sa_{number}.jpg", "width": 10, "height": 8}
        return {"image": image, "annotations": [{"id": 5 + number, "segmentation": SQUARE_JSON, "predicted_iou": 0.9}]}

    sets = read([per_image(1), per_image(2)], lines=True) if lines else read(per_image(1))
    assert [s.image.file_name for s in sets] == [f"sa_{k}.jpg" for k in range(1, 3 if lines else 2)]
    assert sets[0].masks[0].extra["predicted_iou"] == 0.9


@pytest.mark.parametrize(
    "bad",
    [
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": [[1, 2, 3, 4, 5, float("nan")]]},
        {"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]},
        {"segmentation": [[0, 0, "x", 0, 1, 1]]},
        {"segmentation": []},
        {"segmentation": None},
        {"segmentation": {"size": [9, 10], "counts": SQUARE_JSON["counts"]}},
        {"segmentation": {"size": [8, 10], "counts": [5, -5, 80]}},
        {"segmentation": {"size": [8, 10], "counts": [5, 5]}},
        {"segmentation": {"size": [8, 10], "counts": [2**40]}},
        {"segmentation": {"size": [8, 10], "counts": "zzzzzzzzzzzz"}},
        {"segmentation": {"size": [8, 10]}},
        {"segmentation": SQUARE_JSON, "image_id": 8},
        {"segmentation": SQUARE_JSON, "category_id": "cat"},
        {"segmentation": SQUARE_JSON, "score": "high"},
    ],
)
def test_impossible_annotations_are_refused(bad: dict) -> None:
    with pytest.raises(InputError):
        read(document({"id": 1, "image_id": 7, **bad}))


@pytest.mark.parametrize(
    "value", [{}, 3, "x", [3], {"images": {}, "annotations": []}, {"images": [{"id": 1}]}, [{"image": 3, "annotations": []}]]
)
def test_other_json_is_told_apart(value: object) -> None:
    with pytest.raises(InputError):
        read(value)


def test_two_annotations_or_images_of_one_id_are_refused() -> None:
    one = {"id": 1, "image_id": 7, "segmentation": SQUARE_JSON}
    with pytest.raises(InputError, match="two annotations"):
        read(document(one, one))
    twice = document()
    with pytest.raises(InputError, match="two images"):
        read({**twice, "images": twice["images"] * 2})


@pytest.mark.parametrize("data", [b"PK\3\4 and so on", b"hello\n", b"\xff\xd8\xff\xe0"])
def test_other_files_are_told_apart_at_once(data: bytes) -> None:
    with pytest.raises(InputError, match="ovs-cluster writes one"):
        open_masks(io.BytesIO(data), "x")


def test_empty_input_says_so() -> None:
    with pytest.raises(InputError, match="empty"):
        open_masks(io.BytesIO(b""), "x")


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_byte_order_mark_is_passed_over(end: str) -> None:
    value = document({"id": 1, "image_id": 7, "segmentation": SQUARE_JSON})
    for indent in (None, 2):
        data = b"\xef\xbb\xbf" + (json.dumps(value, indent=indent) + end).encode()
        [found] = open_masks(io.BytesIO(data), "x")[1]
        assert found.masks[0].area == 9
    with pytest.raises(InputError, match="x is empty"):
        open_masks(io.BytesIO(b"\xef\xbb\xbf"), "x")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_called_by_its_name(number: str) -> None:
    value = document({"id": 1, "image_id": 7, "segmentation": SQUARE_JSON, "score": float(number), "label": "\ud800"})
    with pytest.raises(InputError, match=f"x is not valid JSON: {number} is not a number there"):
        read(value)
    value["annotations"][0] |= {"score": 0.5, "label": f"{number} in a text"}
    assert read(value)[0].masks[0].extra == {"label": f"{number} in a text"}
    with pytest.raises(InputError, match="x is not valid JSON") as caught:
        list(open_masks(io.BytesIO(json.dumps(value).encode()[:-1]), "x")[1])
    assert "is not a number" not in str(caught.value)
