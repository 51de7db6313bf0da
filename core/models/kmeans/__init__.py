"""k-means of feature vectors: of a whole data set, kept as centroids, and of every image by itself, many images at a time."""

from ovskit.core.formats.streams.centroids import Centroids, Metric
from ovskit.core.models.kmeans.dataset import assign, fit, scores
from ovskit.core.models.kmeans.options import KMeansOptions
from ovskit.core.models.kmeans.per_image import fit_each

__all__ = ["Centroids", "KMeansOptions", "Metric", "assign", "fit", "fit_each", "scores"]
