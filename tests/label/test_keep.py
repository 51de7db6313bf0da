"""Leaving out masks of a hierarchy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.label.keep import keep_masks
from ovskit.core.records import Image, MaskSet

from .conftest import mask_of

IMAGE = Image(1, "a.png", 3, 3)


@given(st.lists(st.tuples(st.integers(-1, 30), st.booleans()), max_size=12))
def test_every_mask_keeps_the_ancestors_that_stay(nodes: list[tuple[int, bool]]) -> None:
    parents = {k: parent for k, (parent, _) in enumerate(nodes) if 0 <= parent < k}

    def ancestors(k: int) -> list[int]:
        return [] if k not in parents else [parents[k], *ancestors(parents[k])]

    masks = tuple(
        mask_of(k + 1, IMAGE, np.ones((3, 3), bool), parent_id=parents[k] + 1 if k in parents else None, extra={"level": len(ancestors(k))})
        for k in range(len(nodes))
    )
    stays = {k + 1 for k, (_, stay) in enumerate(nodes) if stay}
    found = keep_masks(MaskSet(IMAGE, masks), lambda mask: mask.id in stays)
    assert [mask.id for mask in found.masks] == sorted(stays)
    for mask in found.masks:
        above = [k + 1 for k in ancestors(mask.id - 1) if k + 1 in stays]
        assert mask.parent_id == (above[0] if above else None)
        assert mask.extra["level"] == len(above)
