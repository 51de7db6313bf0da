"""DINO's loss and centre as one would write them down: pair by pair, photograph by photograph, in float64.

Caron et al., ICCV 2021, Equations 1 to 4 and Algorithm 1. It shares nothing with ``ovskit.core.train.recipes.dino_loss``.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def softmax(logits: Array, temperature: float) -> Array:
    """Equation 1 for one vector."""
    powers = [math.exp((float(value) - float(logits.max())) / temperature) for value in logits]
    return np.array([power / math.fsum(powers) for power in powers])


def cross_entropy(target: Array, found: Array) -> float:
    """H(a, b) = −Σ a log b for two distributions; 0 log 0 is 0."""
    return -math.fsum(float(a) * math.log(max(float(b), 1e-300)) for a, b in zip(target, found, strict=True) if a > 0)


def loss(student: Array, teacher: Array, centre: Array, student_temperature: float, teacher_temperature: float) -> tuple[float, float]:
    """The mean cross-entropy over photographs and pairs of different views (v, n, K), (t, n, K), and the teacher's mean entropy."""
    terms, entropies = [], []
    for t in range(len(teacher)):
        for n in range(teacher.shape[1]):
            target = softmax(teacher[t, n] - centre, teacher_temperature)
            entropies.append(cross_entropy(target, target))
            others = [softmax(student[s, n], student_temperature) for s in range(len(student)) if s != t]
            terms += [cross_entropy(target, found) for found in others]
    return math.fsum(terms) / len(terms), math.fsum(entropies) / len(entropies)


def centre(before: Array, teacher: Array, momentum: float) -> Array:
    """Equation 4: c ← m c + (1 − m) · mean over views and photographs."""
    rows = teacher.reshape(-1, teacher.shape[-1])
    return np.array([momentum * c + (1 - momentum) * math.fsum(rows[:, k]) / len(rows) for k, c in enumerate(before)])
