"""The methods of ``ovs-refine``: a module each, which declares its options and makes a ``Refiner`` of them.

``run(job, options)`` takes a ``refine.job.RefineJob`` and gives the ``refine.refiner.Refiner``; it loads what the method needs, once.
"""

from __future__ import annotations

from ovskit.core.runtime.methods import Registry

REFINE = Registry("refine", __name__, ("snap", "guided", "convcrf", "crf", "cascadepsp", "pamr"))
