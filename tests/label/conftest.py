"""Small whole CLIPs with random weights, and a backbone whose vectors can be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import save_file

from ovskit.core.masks import rle
from ovskit.core.models.backbones.interface import BackboneSpec, Features
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.records import Image, Mask, MaskSet, UInt8

torch.set_num_threads(1)

Clip = Callable[[str], tuple[Any, Path]]


class Corners:
    """A backbone whose vector of an image is its mean colour and the colours of two corners, 12 numbers with their differences."""

    device = torch.device("cpu")
    spec = BackboneSpec(
        name="corners", model="corners", facet="key", layer=-1, stride=4, dim=12, has_cls=True,
        mean=(0.5, 0.4, 0.2), std=(1.0, 1.0, 1.0), interpolation="bilinear",
    )  # fmt: skip

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        return resize_rgb(image, height, width, "bilinear")

    def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
        self.batches.append(len(batch))
        x = batch.double()
        first, last = x[:, :, 0, 0], x[:, :, -1, -1]
        vectors = torch.cat([x.mean(dim=(2, 3)), first, last, first - last], dim=1).float()
        return Features(torch.empty(len(batch), 0, 0, 12), vectors if cls else None)


@pytest.fixture
def corners() -> Corners:
    return Corners()


def mask_of(number: int, image: Image, inside: np.ndarray, **fields: Any) -> Mask:
    outline = rle.encode(inside)
    return Mask(number, image.id, outline, rle.area(outline), rle.bbox(outline), **fields)


def scene(folder: Path, number: int, boxes: list[tuple[int, int, int, int]], size: tuple[int, int] = (30, 40)) -> MaskSet:
    """A noisy photograph in ``folder``, and masks that are ellipses in ``boxes`` (top, left, bottom, right)."""
    height, width = size
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    image = Image(number, f"{number}.png", width, height)
    Pillow.fromarray(pixels).save(folder / image.file_name)
    y, x = np.mgrid[:height, :width]
    masks = []
    for k, (top, left, bottom, right) in enumerate(boxes):
        cy, cx = (top + bottom - 1) / 2, (left + right - 1) / 2
        inside = ((y - cy) / (bottom - top)) ** 2 + ((x - cx) / (right - left)) ** 2 <= 0.25
        masks.append(mask_of(10 * number + k, image, inside))
    return MaskSet(image, tuple(masks))


@pytest.fixture(scope="session")
def clip_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A whole small CLIP that reads real prompts, as open_clip itself runs it, and its weights file.

    ``ovskit-words`` keeps its text tower at the top of the checkpoint, ``ovskit-words-timm`` under ``text.``.
    """
    import open_clip  # where it is missing, the other tests run

    folder = tmp_path_factory.mktemp("clip")
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    own = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    from_timm = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
    configs = {
        "ovskit-words": {"embed_dim": 12, "vision_cfg": own, "text_cfg": text, "quick_gelu": True},
        "ovskit-words-timm": {"embed_dim": 12, "vision_cfg": from_timm, "text_cfg": text},
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    made: dict[str, tuple[Any, Path]] = {}

    def make(name: str) -> tuple[Any, Path]:
        if name not in made:
            network = open_clip.create_model(name).eval()
            generator = torch.Generator().manual_seed(3)
            with torch.no_grad():
                for tensor in network.state_dict().values():
                    if tensor.is_floating_point():
                        tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
            path = folder / f"{name}.safetensors"
            save_file({key: value.clone() for key, value in network.state_dict().items()}, path)
            made[name] = network, path
        return made[name]

    return make
