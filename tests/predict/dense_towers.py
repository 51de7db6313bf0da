"""Small towers and proxies with random weights, for tests of what names patches."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.models.vision_transformer import VisionTransformer as TimmTransformer

from ovskit.core.models.backbones.dense import Attended
from ovskit.core.models.backbones.interface import BackboneSpec, Facet, Features
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.backbones.timm_vit import TimmTrunk
from ovskit.core.models.backbones.vit import VitBackbone
from ovskit.core.models.clip.dense import DenseClipTower
from ovskit.core.models.clip.image_tower import ClipTrunk
from ovskit.core.records import UInt8

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def spec(stride: int, dim: int, name: str = "clip:toy", facet: Facet = "token") -> BackboneSpec:
    return BackboneSpec(
        name=name, model=name, facet=facet, layer=-1, stride=stride, dim=dim, has_cls=True, mean=MEAN, std=STD, interpolation="bicubic"
    )  # fmt: skip


def shaken(network: Any, seed: int, by: float = 0.1) -> Any:
    """Every weight and bias off its first value, since zeros and ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(by * torch.randn(tensor.shape, generator=generator))
    return network.eval()


def visual(depth: int = 6, seed: int = 0) -> VisionTransformer:
    torch.manual_seed(seed)
    network = VisionTransformer(
        image_size=64, patch_size=16, width=32, layers=depth, heads=4, mlp_ratio=2.0, output_dim=12, act_layer=QuickGELU
    )  # fmt: skip
    return shaken(network, seed)


def tower(network: VisionTransformer, device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> DenseClipTower:
    network = network.to(device, dtype).requires_grad_(False)
    return DenseClipTower(spec(16, 12), ClipTrunk(network), device, dtype)


def proxy_network(patch: int = 8, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    network = TimmTransformer(img_size=64, patch_size=patch, embed_dim=24, depth=2, num_heads=3, num_classes=0, dynamic_img_size=True)
    return shaken(network, seed)


def proxy(network: Any, facet: Facet = "token", device: torch.device = CPU) -> VitBackbone:
    trunk = TimmTrunk(network.to(device), "toy proxy")
    return VitBackbone(spec(trunk.stride, 24, "toy proxy", facet), trunk, device, torch.float32)


class Colours:
    """A backbone without attention: a patch's feature is its mean colour, a little off zero."""

    device = CPU

    def __init__(self, stride: int = 16) -> None:
        self.spec = spec(stride, 3, "colours")

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        return resize_rgb(image, height, width, "bicubic")

    def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
        pooled = torch.nn.functional.avg_pool2d(batch.float(), self.spec.stride)
        return Features((pooled.permute(0, 2, 3, 1) - 127.5) / 255, None)


class Convolutional:
    """A ``DenseTower`` without blocks: the last map is each patch's pixels times a matrix."""

    device = CPU
    depth = heads = prefix = 0

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.spec = spec(16, 12, "clip:convolutional")
        self.weight = torch.randn(20, 3, 16, 16, generator=generator) / 20
        self.projection = torch.randn(20, 12, generator=generator)

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        return resize_rgb(image, height, width, "bicubic")

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(images / 255 - 0.5, self.weight, stride=16).flatten(2).transpose(1, 2)

    def block(self, index: int, x: torch.Tensor) -> torch.Tensor:
        raise IndexError(index)

    def attended(self, index: int, x: torch.Tensor) -> Attended:
        raise IndexError(index)

    def joined(self, index: int, mixed: torch.Tensor) -> torch.Tensor:
        raise IndexError(index)

    def feed_forward(self, index: int, x: torch.Tensor) -> torch.Tensor:
        raise IndexError(index)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.projection


def noise(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Images (count, 3, height, width) uint8 of smooth noise."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (count, 3, height // 16, width // 16), generator=generator).float()
    large = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
    return (large + 20 * torch.randn(count, 3, height, width, generator=generator)).clamp(0, 255).to(torch.uint8)
