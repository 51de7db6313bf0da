"""What a person can choose about k-means."""

from __future__ import annotations

from ovskit.core.formats.streams.centroids import Metric
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import REQUIRED, Options, option


class KMeansOptions(Options):
    """``k`` clusters.

    ``metric``: for cosine the vectors are L2-normalised, and after each step the centroids too (spherical k-means).
    ``iterations`` are Lloyd's steps [choice; S-Seg's 10 to 20], fewer where nothing changes any more; of ``restarts`` the one
    of least objective is taken. ``max_points`` bounds the vectors that ``fit`` looks at, a sample by ``seed``; 0 is all.

    Raises UsageError for values that make no sense.
    """

    k: int = option(REQUIRED, "Number of clusters.", low=1)
    metric: Metric = option("cosine", "Distance: of angles, or Euclidean.")
    iterations: int = option(20, "Most iterations.", low=1)
    restarts: int = option(1, "Number of runs; the best one is taken.", low=1)
    seed: int = option(0, "Random seed.", low=0)
    max_points: int = option(256_000, "Number of vectors, a sample, that centroids are fitted on; 0 takes all.", low=0)

    def check(self) -> None:
        """See ``Options``."""
        if 0 < self.max_points < self.k:
            raise UsageError(f"max_points {self.max_points}: give at least as many as there are clusters, {self.k}, or 0 for all")
