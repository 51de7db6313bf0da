"""The short names of models, and what they stand for; ``families`` says what opens them.

Imports neither torch nor a model library, so that ``--help`` stays quick.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

HANDMADE = "handmade-v1"
BUILTIN = "builtin-v1"
TIMM = "timm:"
CLIP = "clip:"
RUN = "run:"


@dataclass(frozen=True, slots=True)
class ModelName:
    """One row of the models table: ``name`` as typed, ``model`` what it stands for, and a line for people."""

    name: str
    model: str
    description: str


TIMM_NAMES = (
    ModelName("dino-vits8", "timm:vit_small_patch8_224.dino", "DINO ViT-S/8, 384 channels"),
    ModelName("dino-vits16", "timm:vit_small_patch16_224.dino", "DINO ViT-S/16, 384 channels"),
    ModelName("dino-vitb8", "timm:vit_base_patch8_224.dino", "DINO ViT-B/8, 768 channels; SOHES uses its keys"),
    ModelName("dino-vitb16", "timm:vit_base_patch16_224.dino", "DINO ViT-B/16, 768 channels"),
    ModelName("dinov2-vits14", "timm:vit_small_patch14_dinov2.lvd142m", "DINOv2 ViT-S/14, 384 channels"),
    ModelName("dinov2-vitb14", "timm:vit_base_patch14_dinov2.lvd142m", "DINOv2 ViT-B/14, 768 channels"),
    ModelName("dinov2-vitl14", "timm:vit_large_patch14_dinov2.lvd142m", "DINOv2 ViT-L/14, 1024 channels"),
    ModelName("dinov2-vitg14", "timm:vit_giant_patch14_dinov2.lvd142m", "DINOv2 ViT-g/14, 1536 channels"),
    ModelName("dinov2-vits14-reg", "timm:vit_small_patch14_reg4_dinov2.lvd142m", "DINOv2 ViT-S/14 with 4 registers, 384 channels"),
    ModelName("dinov2-vitb14-reg", "timm:vit_base_patch14_reg4_dinov2.lvd142m", "DINOv2 ViT-B/14 with 4 registers, 768 channels"),
    ModelName("dinov2-vitl14-reg", "timm:vit_large_patch14_reg4_dinov2.lvd142m", "DINOv2 ViT-L/14 with 4 registers, 1024 channels"),
    ModelName("dinov2-vitg14-reg", "timm:vit_giant_patch14_reg4_dinov2.lvd142m", "DINOv2 ViT-g/14 with 4 registers, 1536 channels"),
    # timm keeps two conversions of DINOv3; the one named qkvb has the biases of the original's queries and values.
    ModelName("dinov3-vits16", "timm:vit_small_patch16_dinov3_qkvb.lvd1689m", "DINOv3 ViT-S/16, 384 channels"),
    ModelName("dinov3-vits16plus", "timm:vit_small_plus_patch16_dinov3_qkvb.lvd1689m", "DINOv3 ViT-S+/16, 384 channels"),
    ModelName("dinov3-vitb16", "timm:vit_base_patch16_dinov3_qkvb.lvd1689m", "DINOv3 ViT-B/16, 768 channels"),
    ModelName("dinov3-vitl16", "timm:vit_large_patch16_dinov3_qkvb.lvd1689m", "DINOv3 ViT-L/16, 1024 channels"),
    ModelName("dinov3-vith16plus", "timm:vit_huge_plus_patch16_dinov3_qkvb.lvd1689m", "DINOv3 ViT-H+/16, 1280 channels"),
    ModelName("dinov3-vit7b16", "timm:vit_7b_patch16_dinov3.lvd1689m", "DINOv3 ViT-7B/16, 4096 channels"),
)


def short_name(model: str) -> str | None:
    """The short name of a model of timm, ``dino-vits8`` for ``timm:vit_small_patch8_224.dino``, or None if it has none."""
    return next((entry.name for entry in TIMM_NAMES if entry.model == model), None)


def suggest(word: str, choices: Iterable[str]) -> str:
    """`` (did you mean X?)`` where X is the choice most like the word, or nothing where none is like it."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
