"""An image tower that is trained beside a text tower: a network of timm, a norm, and a projection into the common space.

The network is a plain ViT, or any convolutional one whose last map timm gives. What follows it is ours, and the same for both [choice]:
every token is normed and projected, and the image's vector is that of one token (the CLS of a ViT) or the mean of all (a ViT without CLS,
and convolutional networks). A projection is linear, so a mean of projected tokens is the projected mean of normed ones: the image's vector
is exactly the mean of the vectors of its positions, and that of a region is in the same space. (timm's own convolutional heads norm what is
pooled, so that vectors of positions do not add up to the image's.)

A ViT has its own final norm; behind a convolutional network stands a layer norm of the channels of each position.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import resample_abs_pos_embed
from torch import nn

from ovskit.core.models.backbones.names import suggest
from ovskit.core.models.backbones.timm_vit import TimmTrunk, converted_by_timm
from ovskit.core.models.weights.state_dict import fit, read_state_dict
from ovskit.core.runtime.errors import UsageError

MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
_HEADS = ("head", "head_dist", "mask_token", "fc", "classifier", "head_drop")


class ImageTower(nn.Module):
    """Images (b, 3, H, W) uint8 to vectors (b, dim), not of length 1.

    ``trunk`` is the network opened at the seams of its blocks, None for a convolutional one; ``stride`` the side in pixels of what a
    token stands for, of a convolutional network made finer by dilation where it is given; ``width`` the channels of a token. Parameters of
    the network that have no part in its tokens do not learn.

    Raises UsageError for an architecture that is unknown or does not do, or a side or a stride that does not fit it.
    """

    def __init__(self, arch: str, *, side: int, dim: int, drop_path: float = 0.0, stride: int = 0) -> None:
        super().__init__()
        self.arch, self.side = arch, side
        self.network: Any = _dilated(arch, stride, drop_path) if stride else _made(arch, side, drop_path)
        self.trunk = _opened(self.network, arch)
        if self.trunk is not None:
            if side % self.trunk.stride:
                raise UsageError(f"side {side}: give a multiple of {self.trunk.stride}, the patch of {arch}")
            self.stride, self.width = self.trunk.stride, int(self.network.embed_dim)
            used = self.network.forward_features(torch.zeros(1, 3, side, side))
        else:
            used, self.stride = _last_map(self.network, arch)
            self.width = used.shape[1]
        _freeze_unused(self.network, used)
        self.norm: nn.Module = nn.Identity() if self.trunk is not None else nn.LayerNorm(self.width)
        self.projection = nn.Linear(self.width, dim, bias=False)
        nn.init.normal_(self.projection.weight, std=self.width**-0.5)  # as CLIP's

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The vectors, in the type that is computed in."""
        features = self.network.forward_features(self.normalised(images))
        tokens = as_tokens(features) if self.trunk is None else features  # a ViT's have its own norm already
        return self.projection(self.pooled(self.final(tokens)))

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Images as the network takes them, in the type of its weights."""
        mean, std = _statistics(images.device)
        return ((images.float() - mean) / std).to(self.projection.weight.dtype)

    def final(self, tokens: torch.Tensor) -> torch.Tensor:
        """What is done to tokens (b, n, width) between the network and the projection, token by token. Models of timm that pool by a mean
        have their norm there."""
        return self.norm(tokens) if self.trunk is None else self.network.fc_norm(tokens)

    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        """One token (b, width) for all (b, n, width): the CLS, or the mean of those that stand for places."""
        if self.trunk is None:
            return tokens.mean(dim=1)
        return tokens[:, 0] if self.trunk.has_cls else tokens[:, self.trunk.prefix :].mean(dim=1)

    def begin_with(self, path: Path) -> None:
        """Load weights of the architecture into the network, but for its head; position embeddings of another size are resampled.

        Raises InputError for a file that is damaged or of another model.
        """
        own = self.network.state_dict()
        state = {name: tensor for name, tensor in read_state_dict(path).items() if name in own or name.split(".")[0] not in _HEADS}
        if not own.keys() <= state.keys():
            state = converted_by_timm(self.network, state)
        table, expected = state.get("pos_embed"), own.get("pos_embed")
        if table is not None and expected is not None and table.ndim == 3 and table.shape[1:] != expected.shape[1:]:
            prefix = 0 if self.network.no_embed_class else self.network.num_prefix_tokens
            grid = list(self.network.patch_embed.grid_size)
            if int((table.shape[1] - prefix) ** 0.5) ** 2 == table.shape[1] - prefix:
                state = {**state, "pos_embed": resample_abs_pos_embed(table, grid, num_prefix_tokens=prefix)}
        fit(self.network, state, path, self.arch, ignore=_HEADS)


@lru_cache(maxsize=8)
def _statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of ImageNet's photographs, of bytes: (1, 3, 1, 1) float32, whatever type a tower has."""
    mean, std = (255 * torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return mean, std


def as_tokens(features: torch.Tensor) -> torch.Tensor:
    """A map (b, c, h, w) as tokens (b, h·w, c), rows first."""
    return features.flatten(2).transpose(1, 2)


def _made(arch: str, side: int, drop_path: float) -> Any:
    """The network with first weights of its own and no head, for images of ``side`` pixels."""
    if "." in arch:
        raise UsageError(f"arch {arch}: give {arch.partition('.')[0]}, without the tag of trained weights")
    if not timm.is_model(arch):
        raise UsageError(f"arch: unknown model {arch!r}{suggest(arch, timm.list_models())}; timm {timm.__version__} has no such model")
    try:
        return timm.create_model(arch, pretrained=False, num_classes=0, img_size=side, dynamic_img_size=True, drop_path_rate=drop_path)
    except TypeError:  # a network without a grid of patches has no such options
        pass
    except (AssertionError, ValueError):
        raise UsageError(f"side {side}: does not fit {arch}; give a multiple of its patch") from None
    try:
        return timm.create_model(arch, pretrained=False, num_classes=0, drop_path_rate=drop_path)
    except TypeError:
        pass
    try:
        network = timm.create_model(arch, pretrained=False, num_classes=0)
    except (TypeError, RuntimeError, AssertionError, ValueError):
        raise _unsupported(arch) from None
    if drop_path:
        raise UsageError(f"drop_path {drop_path:g}: {arch} has none; give 0")
    return network


def _dilated(arch: str, stride: int, drop_path: float) -> Any:
    """A convolutional network whose last map is as fine as ``stride`` pixels."""
    said = UsageError(f"stride {stride}: {arch} cannot be made so fine; take a resnet or a convnext, or leave it out")
    plain = _made(arch, 8 * 32, drop_path)
    try:
        network: Any = timm.create_model(arch, pretrained=False, num_classes=0, output_stride=stride, drop_path_rate=drop_path)
        finer = int(network.feature_info[-1]["reduction"])
    except (TypeError, AttributeError, AssertionError, ValueError, NotImplementedError):  # as each family of timm says that it cannot
        raise said from None
    if finer != stride or int(plain.feature_info[-1]["reduction"]) < stride:
        raise said
    return network


def _opened(network: Any, arch: str) -> TimmTrunk | None:
    if not hasattr(network, "blocks") or not hasattr(network, "patch_embed"):
        return None
    try:
        return TimmTrunk(network, arch, changing=True)
    except UsageError:
        raise _unsupported(arch) from None


def _last_map(network: Any, arch: str) -> tuple[torch.Tensor, int]:
    """The last map (1, c, h, w) of a convolutional network for a small image, and its stride."""
    was_training = network.training
    network.eval()  # a batch of one has no statistics
    try:
        stride = int(network.feature_info[-1]["reduction"])
        side = 2 * stride
        features = network.forward_features(torch.zeros(1, 3, side, side))
    except (AttributeError, AssertionError, KeyError, TypeError, IndexError, RuntimeError, ValueError):
        raise _unsupported(arch) from None
    finally:
        network.train(was_training)
    is_map = isinstance(features, torch.Tensor) and features.dim() == 4 and getattr(network, "output_fmt", "NCHW") == "NCHW"
    if not is_map or features.shape[2:] != (2, 2):
        raise _unsupported(arch)
    return features, stride


def _freeze_unused(network: nn.Module, used: torch.Tensor) -> None:
    """Parameters without a part in ``used`` do not learn: heads that pool or norm what is not asked for."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(used.float().sum(), learning, allow_unused=True)
    for parameter, gradient in zip(learning, found, strict=True):
        parameter.requires_grad_(gradient is not None)


def _unsupported(arch: str) -> UsageError:
    return UsageError(
        f"arch {arch} is not supported: give a convolutional network of timm (resnet, convnext, regnet, …), or one of its plain ViTs"
    )
