"""The methods of ``ovs-cluster``: a module each, which declares its options and takes feature streams to masks."""

from __future__ import annotations

from ovskit.core.runtime.methods import Registry

CLUSTER = Registry("cluster", __name__, ("sohes", "kmeans", "lightcluster"))
