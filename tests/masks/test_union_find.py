"""Union-find against groups that are merged as sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.masks.union_find import root


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_roots_are_one_where_things_were_joined(kind: type[np.integer], pairs: list[tuple[int, int]]) -> None:
    parent = np.arange(20).astype(kind)
    groups = [{k} for k in range(20)]
    for a, b in pairs:
        parent[root(parent, a)] = root(parent, b)
        together = next(g for g in groups if a in g) | next(g for g in groups if b in g)
        groups = [g for g in groups if not g & together] + [together]
    for group in groups:
        assert len({int(root(parent, k)) for k in group}) == 1
    assert len({int(root(parent, k)) for k in range(20)}) == len(groups)
