"""The order of photographs."""

from __future__ import annotations

from ovskit.core.train.data.shuffle import place_at


def test_every_photograph_comes_once_a_round() -> None:
    seen = [place_at(k, 10, seed=5) for k in range(30)]
    assert all(sorted(seen[k : k + 10]) == list(range(10)) for k in (0, 10, 20))
    assert seen[:10] != seen[10:20]
    assert seen != [place_at(k, 10, seed=6) for k in range(30)]
