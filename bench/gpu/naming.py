"""What it costs to name patches beyond the forward passes that it needs anyway, and to put windows together, with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import timm
import torch
from open_clip.transformer import QuickGELU, VisionTransformer

from gpu.lines import Value
from gpu.work import Peak, Work
from ovskit.core.formats.labels.spaces import LabelClass
from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.models.backbones.timm_vit import TimmTrunk
from ovskit.core.models.backbones.vit import VitBackbone
from ovskit.core.models.clip.dense import DenseClipTower
from ovskit.core.models.clip.image_tower import ClipTrunk
from ovskit.core.models.words import Words
from ovskit.core.predict.dense.clear import Clear
from ovskit.core.predict.dense.corr import Corr
from ovskit.core.predict.dense.decisions import Decisions
from ovskit.core.predict.dense.mosaic import Mosaic
from ovskit.core.predict.dense.naclip import Naclip
from ovskit.core.predict.dense.plain import Plain
from ovskit.core.predict.dense.proxy import Proxy
from ovskit.core.predict.dense.regions import squares
from ovskit.core.predict.dense.sclip import Sclip
from ovskit.core.predict.dense.windows import windows_of

SIDE = 336
GOAL = 10.0  # percent of the forward passes that proxy may cost beyond them
CLASSES = (21, 171, 847)


class Towers:
    """A ViT-B/16 beside words and a ViT-B/8 as the proxy, with random weights; in miniature a ViT-Ti each."""

    def __init__(self, work: Work) -> None:
        torch.manual_seed(0)
        width, layers, heads = (64, 3, 4) if work.dry else (768, 12, 12)
        self.side = 64 if work.dry else SIDE
        dtype = torch.bfloat16 if work.gpu else torch.float32
        network = VisionTransformer(
            image_size=224, patch_size=16, width=width, layers=layers, heads=heads, mlp_ratio=4.0, output_dim=512, act_layer=QuickGELU
        )
        network.eval().requires_grad_(False).to(work.device, dtype)
        self.tower = DenseClipTower(_spec("ViT-B/16", 16, 512), ClipTrunk(network), work.device, dtype)
        arch = "vit_tiny_patch16_224" if work.dry else "vit_base_patch8_224.dino"
        other = timm.create_model(arch, pretrained=False, num_classes=0, dynamic_img_size=True)
        other.eval().requires_grad_(False).to(work.device, dtype)
        patch = 16 if work.dry else 8
        trunk = TimmTrunk(other, "proxy", antialias=False, sampling="scale")
        self.proxy = VitBackbone(_spec("proxy", patch, other.num_features), trunk, work.device, dtype)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The tower's own forward pass, every patch in the space of words."""
        x = self.tower.embed(images)
        for index in range(self.tower.depth):
            x = self.tower.block(index, x)
        return self.tower.head(x)


def naming(work: Work) -> None:
    """Milliseconds a window of 336² by method, batch by batch; then seconds an image to put windows together and decide."""
    towers = Towers(work)
    batches = (1, 8, 32) if work.gpu else (1,)
    for batch in batches:
        with work.measuring(f"naming: windows of {towers.side}², batch {batch}") as values:
            values |= _windows(work, towers, batch)
    for classes in CLASSES:
        with work.measuring(f"naming: 500 × 375 pixels decided, {classes} words") as values:
            values |= _decided(work, classes)


def _windows(work: Work, towers: Towers, batch: int) -> dict[str, Value]:
    side = towers.side
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, side, side), generator=random, dtype=torch.uint8)
    regions = torch.from_numpy(squares(side, side, side // 7)).expand(batch, -1, -1).contiguous()
    methods: dict[str, Any] = {
        "plain": Plain(towers.tower),
        "clear": Clear(towers.tower),
        "sclip": Sclip(towers.tower),
        "naclip": Naclip(towers.tower),
        "proxy": Proxy(towers.tower, towers.proxy),
        "corr": Corr(towers.tower, towers.proxy),
    }
    clock, repeat = work.clock, 3 if work.dry else 10 if work.gpu else 5

    def milliseconds(run: Any) -> float:
        return 1000 * clock.time(run, repeat=repeat, warm=2).least / batch

    tower = milliseconds(lambda: towers.forward(images))
    other = milliseconds(lambda: towers.proxy.extract(images))
    values: dict[str, Value] = {"tower_ms": round(tower, 3), "proxy_network_ms": round(other, 3)}
    for name, method in methods.items():
        peak = Peak(work.device)
        took = milliseconds(lambda method=method: method.vectors(images, regions if method.wants_regions else None))
        passes = tower + (other if name in ("proxy", "corr") else 0.0)
        values[f"{name}_ms"] = round(took, 3)
        values[f"{name}_beyond_percent"] = round(100 * (took / passes - 1), 1)
        values |= {f"{name}_{key}": value for key, value in peak.values().items()}
    beyond = float(str(values["proxy_beyond_percent"]))
    values["goal"] = f"{'met' if beyond <= GOAL else 'missed'}: proxy at most {GOAL:.0f} % beyond the passes"
    return values


def _decided(work: Work, classes: int) -> dict[str, Value]:
    """A photograph of 500 × 375 pixels at 336: three windows of 336 in steps of 112, 42 × 42 patches each."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(classes, 16)).astype(np.float32)
    words = Words(tuple(LabelClass(k, str(k)) for k in range(classes)), rows, np.arange(classes), 100.0)
    decisions = Decisions(words, scale=40.0, over_classes=False, device=work.device)
    windows = windows_of(375, 500, short_side=SIDE, window=SIDE, stride=112, patch=16)
    maps = [torch.randn(42, 42, classes, device=work.device) for _ in windows.corners]
    peak = Peak(work.device)
    took = work.clock.time(lambda: decisions.decide(Mosaic(windows, maps), 375, 500), repeat=3, warm=1).least
    return {"windows": len(windows.corners), "ms_image": round(1000 * took, 2), **peak.values()}


def _spec(name: str, patch: int, width: int) -> BackboneSpec:
    half = (0.5, 0.5, 0.5)
    return BackboneSpec(
        name=name, model=name, facet="token", layer=-1, stride=patch, dim=width, has_cls=True, mean=half, std=half, interpolation="bicubic"
    )  # fmt: skip
