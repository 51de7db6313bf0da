"""What a person can choose about k-means."""

from __future__ import annotations

from dataclasses import dataclass

from ovskit.core.formats.streams.centroids import METRICS, Metric
from ovskit.core.runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class KMeansOptions:
    """``k`` clusters.

    ``metric``: for cosine the vectors are L2-normalised, and after each step the centroids too (spherical k-means).
    ``iterations`` are Lloyd's steps [choice; S-Seg's 10 to 20], fewer where nothing changes any more; of ``restarts`` the one
    of least objective is taken. ``max_points`` bounds the vectors that ``fit`` looks at, a sample by ``seed``; 0 is all.

    Raises UsageError for values that make no sense.
    """

    k: int
    metric: Metric = "cosine"
    iterations: int = 20
    restarts: int = 1
    seed: int = 0
    max_points: int = 256_000

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UsageError(f"k-means: metric {self.metric!r}: choose {' or '.join(METRICS)}")
        for name, least in (("k", 1), ("iterations", 1), ("restarts", 1), ("seed", 0), ("max_points", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"k-means: {name} is {getattr(self, name)}, want {least} or more")
        if 0 < self.max_points < self.k:
            raise UsageError(f"k-means: max_points is {self.max_points}, want at least k = {self.k}, or 0 for all")
