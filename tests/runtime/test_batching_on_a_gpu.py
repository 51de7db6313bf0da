"""A batch that a card has not the memory for is halved."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from ovskit.core.runtime.batching import run_halving

GPU = torch.device("cuda")


@pytest.mark.gpu(real="its memory is the CPU's")
def test_what_does_not_fit_is_halved() -> None:
    """Items of a little more than a fifth of the free memory each, so that four fit and eight do not."""
    torch.cuda.empty_cache()
    size = int(torch.cuda.mem_get_info()[0] * 0.22)
    seen: list[int] = []

    def run(items: Sequence[int]) -> float:
        seen.append(len(items))
        held = [torch.empty(size, dtype=torch.uint8, device=GPU) for _ in items]
        held[-1].fill_(items[-1])
        return float(held[-1][0])

    found = list(run_halving(range(8), run, GPU))
    assert [list(items) for items, _ in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [last for _, last in found] == [3.0, 7.0]
    assert seen == [8, 4, 4]
    torch.cuda.empty_cache()


@pytest.mark.gpu
def test_one_item_that_does_not_fit_is_said() -> None:
    def run(items: Sequence[int]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryError, match="one image does not fit on cuda"):
        list(run_halving([1, 2], run, GPU))
