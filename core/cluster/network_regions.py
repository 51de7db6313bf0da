"""Regions by a network that is being trained."""

from __future__ import annotations

from collections.abc import Callable

from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.models.backbones.interface import Backbone
from ovskit.core.records import FeatureMap, Image, MaskSet, UInt8

_SIZE = 1024  # as ovs-extract


def regions_by(backbone: Backbone) -> Callable[[Image, UInt8], MaskSet]:
    """A function from a photograph, with its pixels (h, w, 3) RGB uint8, to its regions by the features of ``backbone``.

    Features as by ``ovs-extract``, masks as by ``ovs-cluster``, with the defaults of both and without refinement.
    """
    options = SohesOptions(counts=backbone.spec.counts)

    def regions(image: Image, pixels: UInt8) -> MaskSet:
        patch = backbone.extract(backbone.prepare(pixels, _SIZE, _SIZE)[None]).patch[0].half().cpu().numpy()
        return cluster_regions(FeatureMap(image, patch), options, frame=(_SIZE, _SIZE), crop_features=None)

    return regions
