import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.cluster.crops import Crop, plan_crops, region_boxes, touches_border

GRID, FRAME, IMAGE = (128, 128), (1024, 1024), (480, 640)


def plan(*boxes: tuple[int, int, int, int], **options: float) -> list[Crop]:
    settings = {"context": 2.0, "smallest": 64, "share": 1.1, **options}
    return plan_crops(np.array(boxes, np.int32).reshape(-1, 4), GRID, FRAME, IMAGE, **settings)  # type: ignore[arg-type]


def test_a_crop_is_a_square_of_the_frame_around_its_box() -> None:
    # box of 4 × 8 patches = 32 × 64 frame pixels at the centre: side 128, frame 448..576 each way
    (crop,) = plan((62, 60, 66, 68))
    assert (crop.left, crop.right) == (448 * 640 // 1024, 576 * 640 // 1024)
    assert (crop.top, crop.bottom) == (448 * 480 // 1024, 576 * 480 // 1024)
    assert not any((crop.at_left, crop.at_top, crop.at_right, crop.at_bottom))


def test_a_small_region_gets_the_smallest_crop() -> None:
    (crop,) = plan((64, 64, 65, 65))
    assert crop.right - crop.left == 64 * 640 // 1024


def test_a_crop_moves_inside_the_image_and_knows_its_border() -> None:
    (crop,) = plan((0, 120, 2, 128))
    assert crop.top == 0
    assert crop.at_top
    assert crop.right == 640
    assert crop.at_right
    assert not crop.at_left
    assert not crop.at_bottom


def test_near_crops_are_shared_far_ones_are_not() -> None:
    near = [(60, 60, 64, 64), (61, 60, 65, 64)]
    assert len(plan(*near, share=0.5)) == 1
    assert len(plan(*near)) == 2
    assert len(plan((10, 10, 14, 14), (100, 100, 104, 104), share=0.5)) == 2


boxes = st.tuples(st.integers(0, 127), st.integers(0, 127), st.integers(1, 40), st.integers(1, 40)).map(
    lambda t: (t[0], t[1], min(128, t[0] + t[2]), min(128, t[1] + t[3]))
)


@settings(max_examples=80, deadline=None)
@given(st.lists(boxes, max_size=12), st.floats(0.1, 1), st.tuples(st.integers(1, 900), st.integers(1, 900)), st.floats(1, 4))
def test_every_candidate_lies_in_some_crop_inside_the_image(items: list, share: float, image: tuple[int, int], context: float) -> None:
    crops = plan_crops(np.array(items, np.int32).reshape(-1, 4), GRID, FRAME, image, context=context, smallest=64, share=share)
    assert len(crops) <= len(items)
    for crop in crops:
        assert 0 <= crop.left < crop.right <= image[1]
        assert 0 <= crop.top < crop.bottom <= image[0]
    for top, left, bottom, right in items:
        box = np.array([top, left, bottom, right]) * 8 * np.array([image[0], image[1]] * 2) / 1024
        # rounding to whole native pixels may cut half a pixel
        assert any(c.top <= box[0] + 0.5 and c.left <= box[1] + 0.5 and c.bottom >= box[2] - 0.5 and c.right >= box[3] - 0.5 for c in crops)


def test_boxes_and_borders_of_regions() -> None:
    labels = np.array([[[0, 0, 2], [0, 4, 2], [6, 4, 2]]], np.int32)
    found = region_boxes(labels, np.zeros(4, np.int32), np.array([0, 2, 4, 6], np.int32))
    assert found.tolist() == [[0, 0, 2, 2], [0, 2, 3, 3], [1, 1, 3, 2], [2, 0, 3, 1]]
    inside = Crop(5, 5, 9, 9, False, False, False, False)
    assert touches_border(found, (3, 3), inside).tolist() == [True, True, True, True]
    at_bottom = Crop(5, 5, 9, 9, False, False, False, True)
    assert touches_border(found, (3, 3), at_bottom).tolist() == [True, True, False, True]
    whole = Crop(0, 0, 9, 9, True, True, True, True)
    assert not touches_border(found, (3, 3), whole).any()
