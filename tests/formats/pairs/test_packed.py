"""Byte strings in arrays, against lists of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.pairs import packed
from ovskit.core.formats.pairs.packed import Packed

texts = st.lists(st.binary(max_size=6).map(lambda data: data.replace(b"\0", b"\1")) | st.sampled_from([b"", b"a", b"a\xff", b"aa", b"b"]))


@given(texts, st.integers(1, 5), st.booleans())
def test_packed_strings_are_as_lists_of_them(words: list[bytes], rows: int, wide: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "_ROWS", rows)
        patch.setattr(packed, "_WIDE", 0 if wide else 1 << 30)
        found = Packed.of(words)
        assert list(found) == words
        assert [found[k] for k in range(len(found))] == words
        assert found.lengths.tolist() == [len(word) for word in words]
        order = found.order()
        assert order.tolist() == sorted(range(len(words)), key=lambda k: (words[k], k))
        ascending = found.take(order)
        assert list(ascending) == sorted(words)
        assert found.compared().tolist() == [(a > b) - (a < b) for a, b in pairwise(words)]
        assert list(found.take(np.array([k for k in range(len(words)) for _ in range(2)], np.int64))) == [
            w for w in words for _ in range(2)
        ]
        once = sorted(set(words))
        distinct = Packed.of(once)
        for word in [*words, b"zz", b"a\1"]:
            assert distinct.find(word) == (once.index(word) if word in once else -1)
