"""The forest as text."""

from ovskit.core.hier.tree import draw_forest
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet


def mask(number: int, area: int, parent: int | None = None, score: float | None = None) -> Mask:
    runs = rle.from_runs(10, 20, [0, area, 200 - area])
    return Mask(number, 1, runs, area, rle.bbox(runs), score=score, parent_id=parent)


def test_parts_stand_under_their_whole_larger_first() -> None:
    masks = MaskSet(Image(1, "a/b.jpg", 20, 10), (mask(4, 20, 2, 0.25), mask(1, 30), mask(2, 100), mask(3, 50, 2), mask(5, 10, 3)))
    assert list(draw_forest(masks)) == [
        "a/b.jpg  20×10  5 masks, 2 wholes",
        "├─ 2  50.0 %  10×10 at 0,0  2 parts",
        "│  ├─ 3  25.0 %  5×10 at 0,0  1 part",
        "│  │  └─ 5  5.0 %  1×10 at 0,0",
        "│  └─ 4  10.0 %  2×10 at 0,0  score 0.25",
        "└─ 1  15.0 %  3×10 at 0,0",
    ]


def test_a_forest_deeper_than_the_interpreter_recurses() -> None:
    chain = MaskSet(Image(1, "a.jpg", 20, 10), tuple(mask(k, 200 - k // 20, k - 1 if k > 1 else None) for k in range(1, 3000)))
    assert sum(1 for _ in draw_forest(chain)) == 3000


def test_no_masks_and_a_name_that_a_terminal_would_act_on() -> None:
    assert list(draw_forest(MaskSet(Image(1, "a\x1b[2J\n.jpg", 20, 10), ()))) == ["a\\x1b[2J\\n.jpg  20×10  no masks"]
