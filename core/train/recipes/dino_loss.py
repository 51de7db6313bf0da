"""DINO's head, its centring and its loss over pairs of views (Caron et al., ICCV 2021, Section 3.1).

Head and loss know nothing of images or of the backbone. The loss computes in the type it is given; give it float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """From a CLS token (b, ``width``) to logits (b, ``prototypes``) float32, each a cosine in [−1, 1].

    Three linear layers with GELU between them, l2 normalisation, and a linear layer without bias whose rows are normalised as
    well (Section 3.2 and appendix C), here to the fixed length of 1. The last two run in float32 whatever autocast says:
    cosines are divided by temperatures as low as 0.04.
    """

    def __init__(self, width: int, *, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck))
        # By width, so that small heads also say something of the image from the start [choice; at 2048 it is the authors' 0.02].
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
        # Directions alone count: any length does to begin with, and 1 makes the learning rate what it says.
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, bottleneck), dim=1))

    def forward(self, tokens: Tensor, *, frozen: bool = False) -> Tensor:
        """The logits. With ``frozen`` the gradient of ``prototypes`` is zero, that of all else as ever."""
        place = self.mlp(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            rows: Tensor = self.prototypes
            if frozen:  # still part of the graph, so that distributed training waits for no gradient that never comes
                rows = rows.detach() + 0 * rows
            return F.linear(F.normalize(place.float(), dim=-1), F.normalize(rows.float(), dim=-1))


class Losses(NamedTuple):
    """Scalars in nats, with ``loss`` = ``entropy`` + ``divergence``.

    ``entropy`` is the mean entropy of the teacher's distributions, ``divergence`` the mean KL(teacher‖student) over pairs. A
    divergence that stays at zero is a collapse (Section 5.3, Figure 7): to one prototype if the entropy is zero
    too, to all alike if it is log K.
    """

    loss: Tensor
    entropy: Tensor
    divergence: Tensor


def multi_crop_loss(student: Tensor, teacher: Tensor, centre: Tensor, *, student_temperature: float, teacher_temperature: float) -> Losses:
    """The mean cross-entropy over all pairs of a teacher's view and another view of the student (Equation 3).

    ``student`` is (v, n, K), logits of v views of n photographs; ``teacher`` (t, n, K), those of the first t of the same views;
    ``centre`` (K,). The student's distributions are softmax(s/τs) (Equation 1), the teacher's softmax((t − c)/τt) (Algorithm
    1); no gradient reaches teacher and centre. Equation 3 sums over pairs, Algorithm 1 averages; so do we.

    Raises ValueError for shapes that do not fit, or if there is no pair of different views.
    """
    views, shown = len(student), len(teacher)
    if student.shape[1:] != teacher.shape[1:] or centre.shape != student.shape[2:] or not 1 <= shown <= views or views < 2:
        raise ValueError(f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}, centre {tuple(centre.shape)} do not fit")
    logs = F.log_softmax(student / student_temperature, dim=-1)
    with torch.no_grad():
        teacher_logs = F.log_softmax((teacher - centre) / teacher_temperature, dim=-1)
        targets = teacher_logs.exp()
        entropy = -(targets * teacher_logs).sum(-1).mean()
    others = logs.sum(0) - logs[:shown]  # for each of the teacher's views the sum over all views but itself
    loss = -(targets * others).sum(-1).mean() / (views - 1)
    return Losses(loss, entropy, loss.detach() - entropy)


def updated_centre(centre: Tensor, mean: Tensor, momentum: float) -> Tensor:
    """m·c + (1 − m)·mean (Equation 4); both (K,), ``mean`` that of all the teacher's logits of a step."""
    return momentum * centre + (1 - momentum) * mean


def teacher_momentum(step: int, steps: int, first: float) -> float:
    """λ of update ``step`` (from 0): half a cosine from ``first`` to 1, which update ``steps`` would have (Section 3.1)."""
    return 1 - (1 - first) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def teacher_temperature(step: int, first: float, last: float, warm: int) -> float:
    """τt of update ``step``: linear from ``first``, at 0, to ``last``, at update ``warm``, and constant from there (Section 3.2)."""
    return last if step >= warm else first + (last - first) * step / warm
