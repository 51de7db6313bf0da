"""Regions by a built-in network that is being trained."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from ovskit.core.cluster.sohes import SohesOptions, cluster_regions
from ovskit.core.models.builtin.extractor import BuiltinBackbone
from ovskit.core.models.builtin.network import GroupingNetwork
from ovskit.core.records import FeatureMap, Image, MaskSet, UInt8

_SIZE = 1024  # as ovs-extract


def regions_by(network: GroupingNetwork, device: torch.device) -> Callable[[Image, UInt8], MaskSet]:
    """A function from a photograph, with its pixels (h, w, 3) RGB uint8, to its regions by the network as it is now.

    Features as by ``ovs-extract --model builtin``, masks as by ``ovs-cluster``, with the defaults of both and without refinement.
    """
    backbone = BuiltinBackbone("builtin", copy.deepcopy(network), "", device)
    options = SohesOptions(counts=backbone.spec.counts)

    def regions(image: Image, pixels: UInt8) -> MaskSet:
        patch = backbone.extract(backbone.prepare(pixels, _SIZE, _SIZE)[None]).patch[0].half().cpu().numpy()
        return cluster_regions(FeatureMap(image, patch), options, frame=(_SIZE, _SIZE), look_closer=None)

    return regions
