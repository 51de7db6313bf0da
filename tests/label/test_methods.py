"""How to label is said by one option, that of the method which cannot do without it."""

import pytest

from ovskit.core.label.methods import LABEL, method_of
from ovskit.core.runtime.errors import UsageError


def test_its_own_option_chooses_a_method() -> None:
    assert [method.name for method in LABEL][:3] == ["clusters", "centroids", "names"]
    assert method_of({"clusters": 3, "top_k": 2}) == "clusters"
    assert method_of({"centroids": "c.npz"}) == "centroids"
    assert method_of({"names": "voc-21", "inputs": ["m.json"]}) == "names"


@pytest.mark.parametrize("given", [{}, {"clusters": 3, "names": "a,b"}, {"seed": 3}])
def test_it_is_said_in_one_way(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"in one way: --clusters K, --from CENTROIDS\.npz or --names SPACE$"):
        method_of(given)
