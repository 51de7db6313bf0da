"""The symmetric contrastive loss of image-text pairs (Radford et al., ICML 2021, section 2.3), and the negatives of a whole step.

Pair i of n has an image vector v_i and a text vector t_i of length 1; with a scale s the logits are s · v_i · t_j. The loss is the mean of
two cross-entropies: of each image over all texts, and of each text over all images. Equal captions share the target: a row of the targets
is 1/n over the n texts that are equal to its own, since none of them is a negative. The scale is exp(a), at most 100, a = ln(1/.07) at
first; it is a that is learned.

``negatives`` says whose texts an image is compared with: those of its ``own`` batch, or of ``all`` batches of the step. For these all
vectors of the step are needed with every batch, also those of other processes and of batches that are accumulated. They come from a pass
without gradients before the first batch (Gao et al., RepL4NLP 2021, "GradCache"); then each batch is computed again with gradients, the
vectors of the others being constants in the loss of the whole step. Each batch's gradient is its part of the whole one, so their sum is
that of the whole step at once, for any split of the step into processes and accumulated batches. One pass is saved where a process has
one batch a step. n² logits of a step are held at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST = 100.0
"""The largest scale."""
FIRST = math.log(1 / 0.07)
"""The logarithm of the scale at first."""
_LIMIT = math.log(MOST)
_BELOW = _LIMIT - 1e-6  # where, in float32, a still has a gradient


class Vectors(NamedTuple):
    """n image-text pairs: ``images`` and ``texts`` (n, d) float32 of length 1, ``tokens`` (n, length) int64, by which equal captions are
    told."""

    images: Tensor
    texts: Tensor
    tokens: Tensor


class Contrast(NamedTuple):
    """Scalars: the ``loss``, and the share of images and texts whose nearest of the other side has their caption."""

    loss: Tensor
    accuracy: Tensor


class Scale(nn.Module):
    """The learned scale of cosines."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(FIRST))

    def forward(self) -> Tensor:
        """min(exp(a), 100), a float32 scalar."""
        return self.logarithm.float().clamp(max=_LIMIT).exp()

    @torch.no_grad()
    def limit(self) -> None:
        """Bring a back to where its gradient is not zero, after an update beyond the limit."""
        self.logarithm.clamp_(max=_BELOW)


def contrast(vectors: Vectors, scale: Tensor) -> Contrast:
    """The symmetric loss, the mean of both directions, of n ≥ 1 pairs. Computed in float32, whatever is cast around it."""
    with torch.autocast(vectors.images.device.type, enabled=False):
        logits = scale.float() * (vectors.images.float() @ vectors.texts.float().T)
        same = equal_captions(vectors.tokens)
        target = same / same.sum(dim=1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        with torch.no_grad():
            right = torch.stack([same.gather(1, each.argmax(dim=1, keepdim=True)).mean() for each in (logits, logits.T)])
    return Contrast(loss, right.mean())


def equal_captions(tokens: Tensor) -> Tensor:
    """Which captions are equal: float32 (n, n) of 0 and 1, from tokens (n, length)."""
    _, number = torch.unique(tokens, dim=0, return_inverse=True)
    return (number[:, None] == number[None, :]).float()


def in_whole_step(own: Vectors, everyone: Vectors, rank: int, world: int) -> Vectors:
    """``everyone``, without gradients, with the vectors of batch ``rank`` of the ``world`` batches of the step replaced by ``own``.

    Whoever trains takes the mean of the batches' gradients, and each batch has only its own part of the whole: so the gradients of ``own``
    are multiplied by ``world``. The loss is that of the whole step, the same for every batch, and so is the gradient of the scale.
    """
    size = len(own.images)
    before, after = slice(0, rank * size), slice((rank + 1) * size, None)

    def put(mine: Tensor, others: Tensor) -> Tensor:
        if mine.requires_grad:
            mine = mine.view_as(mine)  # the hook is to see what comes from this loss alone
            mine.register_hook(lambda gradient: world * gradient)
        return torch.cat([others[before], mine, others[after]])

    return Vectors(put(own.images, everyone.images), put(own.texts, everyone.texts), everyone.tokens)


def of_all_processes(vectors: Vectors) -> Vectors:
    """The vectors of all processes, without gradients, those of process 0 first; each has as many."""
    if processes() == 1:
        return Vectors(*(each.detach() for each in vectors))
    return Vectors(*(_gathered(each.detach()) for each in vectors))


def processes() -> int:
    """How many processes train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def _gathered(mine: Tensor) -> Tensor:
    parts = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, mine.contiguous())
    return torch.cat(parts)


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within the body the running statistics of batch normalisation do not change, which a pass without gradients is no cause for."""
    found = [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    tracked = [each.track_running_stats for each in found]
    kept = [(each.running_mean, each.running_var, each.num_batches_tracked) for each in found]
    try:
        for each in found:  # in training, what has no running statistics normalises by the batch as well
            each.track_running_stats, each.running_mean, each.running_var, each.num_batches_tracked = False, None, None, None
        yield
    finally:
        for each, was, (mean, var, count) in zip(found, tracked, kept, strict=True):
            each.track_running_stats, each.running_mean, each.running_var, each.num_batches_tracked = was, mean, var, count
