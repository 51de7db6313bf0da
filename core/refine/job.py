"""What a method of ``ovs-refine`` is given beside its options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RefineJob:
    """A run of ``ovs-refine`` but for its methods. ``device`` is auto, cpu, cuda, cuda:N or mps, for those that have a use for it."""

    device: str = "auto"
