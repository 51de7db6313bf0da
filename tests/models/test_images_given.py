"""What a backbone takes for images, whichever it is: uint8 of three channels, which it normalises itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ovskit.core.models.backbones.interface import Backbone
from ovskit.core.models.registry import load_backbone
from ovskit.core.runtime.errors import UsageError

Checkpoint = Callable[[str], tuple[torch.nn.Module, Path]]
CPU = torch.device("cpu")
TIMM = "vit_tiny_patch16_224"
PIXELS = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["builtin", "handmade", f"timm:{TIMM}", "clip:ovskit-tiny", "clip:ovskit-tiny-timm"])
def backbone(request: pytest.FixtureRequest, timm_checkpoint: Checkpoint, clip_checkpoint: Checkpoint) -> Backbone:
    name: str = request.param
    kind, _, rest = name.partition(":")
    path = None if not rest else (timm_checkpoint if kind == "timm" else clip_checkpoint)(rest)[1]
    return load_backbone(name, weights=path, device=CPU)


def test_anything_but_bytes_is_refused(backbone: Backbone) -> None:
    normalised = (PIXELS / 255 - 0.45) / 0.225
    for given in (normalised, PIXELS / 255, PIXELS.half(), PIXELS.long(), PIXELS > 9):
        kind = str(given.dtype).removeprefix("torch.")
        for options in ({}, {"patch": False}):
            with pytest.raises(UsageError, match=rf"takes images as uint8, 0 to 255, and normalises them itself; these are {kind}$"):
                backbone.extract(given, **options)
    assert torch.isfinite(backbone.extract(PIXELS).patch).all()


def test_other_shapes_are_refused(backbone: Backbone) -> None:
    for given in (PIXELS[0], PIXELS[:, :1], PIXELS.permute(0, 2, 3, 1)):
        with pytest.raises(UsageError, match=r"takes images of shape \(b, 3, H, W\), RGB; these have .*×"):
            backbone.extract(given)


def test_the_interpolation_that_is_wished_for_is_that_of_its_spec(
    backbone: Backbone, timm_checkpoint: Checkpoint, clip_checkpoint: Checkpoint
) -> None:
    name = backbone.spec.name
    kind, _, rest = name.partition(":")
    path = None if not rest else (timm_checkpoint if kind == "timm" else clip_checkpoint)(rest)[1]
    assert backbone.spec.interpolation == ("bicubic" if rest else "bilinear")
    assert load_backbone(name, weights=path, device=CPU, interpolation="lanczos").spec.interpolation == "lanczos"
