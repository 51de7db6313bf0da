"""Regions that look alike to another network are one: CorrCLIP's mask merging."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.csgraph import connected_components

from ovskit.core.records import Int32


def merged_regions(features: torch.Tensor, regions: Int32, eps: float) -> Int32:
    """Regions (n,) of patches with rows (n, c) of length 1, merged and counted anew from 0; -1, no region, stays.

    A region's vector is the mean of its rows, made of length 1. Regions i and j are alike where max S − S_ij ≤ ``eps``, S being the cosines
    of all pairs; what is alike is merged, also through others. This is DBSCAN with at least 1 point to a cluster (Zhang et al., ICCV
    2025): every point is a core point, and clusters are the components of that graph.
    """
    inside = regions >= 0
    ids, places = np.unique(regions[inside], return_inverse=True)
    if not len(ids):
        return np.full(len(regions), -1, np.int32)
    device = features.device
    members = torch.from_numpy(np.flatnonzero(inside)).to(device)
    sums = torch.zeros(len(ids), features.shape[1], device=device)
    sums.index_add_(0, torch.from_numpy(places).to(device), features[members].float())
    means = F.normalize(sums, dim=1)
    cosines = (means @ means.T).cpu().numpy()
    _, component = connected_components(cosines.max() - cosines <= eps, directed=False)
    found = np.full(len(regions), -1, np.int32)
    found[inside] = component[places]
    return found
