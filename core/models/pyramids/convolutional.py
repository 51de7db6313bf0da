"""Networks of timm that have maps at strides 4, 8, 16 and 32 by themselves: ResNet, ConvNeXt, Swin and their like.

Whether a network does is measured, not believed: some announce strides that their maps have only roughly. Maps are handed out as
the stages make them, without a norm of their own [choice: a decoder begins with one].
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import group_parameters
from timm.models._features import FeatureGetterNet
from torch import nn

from ovskit.core.models.backbones.timm_vit import converted_by_timm
from ovskit.core.models.pyramids.pyramid import STRIDES, Channels, Maps, Pyramid
from ovskit.core.models.weights.source import HubFile, WeightsSource
from ovskit.core.models.weights.state_dict import NoInit, State, fit, read_state_dict
from ovskit.core.runtime.errors import UsageError

_PROBE = (64, 96)  # multiples of 32, and not a size that networks are made for
_COUNTER = "num_batches_tracked"


class ConvolutionalPyramid(Pyramid):
    """A timm network that hands out the last map at each stride. ``network`` has its weights already; its head is taken off.

    With ``checkpointing``, a network with batch normalisation counts every batch twice in its statistics: timm's own
    checkpointing does. Raises UsageError, naming ``name``, for a network without just these strides, or without checkpointing if
    that is wanted.
    """

    trunk: FeatureGetterNet

    def __init__(self, name: str, network: Any, *, freeze: bool, checkpointing: bool = False) -> None:
        data = resolve_model_data_config(network)
        trunk, channels = _opened(name, network)
        super().__init__(name, trunk, channels, data["mean"], data["std"], freeze=freeze)
        if checkpointing and not freeze:
            _set_checkpointing(name, network)

    def _maps(self, images: torch.Tensor) -> Maps:
        first, second, third, fourth = self.trunk(images)
        return first, second, third, fourth

    def _depth_groups(self) -> Iterator[list[nn.Parameter]]:
        # timm says for each architecture which parameters are a layer.
        network: Any = self.trunk.model
        groups = group_parameters(network, network.group_matcher(coarse=False), return_values=True)
        yield from (groups[k] for k in sorted(groups))


def build_convolutional_pyramid(
    name: str, full_name: str, source: WeightsSource | None, hub: HubFile | None, *, freeze: bool, checkpointing: bool
) -> ConvolutionalPyramid:
    """A pyramid around the timm model ``full_name``, with random weights where there is no ``source``.

    Raises UsageError for a model without just the four strides, what ``WeightsSource.path`` raises, and InputError for weights
    that are not this model's.
    """
    with NoInit() if source is not None else contextlib.nullcontext():
        network = _create(full_name)
    if source is not None:
        _fill(network, source.path(hub), name)
    return ConvolutionalPyramid(name, network, freeze=freeze, checkpointing=checkpointing)


def _create(full_name: str) -> Any:
    try:  # Swin takes images of any size only if told to
        return timm.create_model(full_name, pretrained=False, num_classes=0, strict_img_size=False)
    except TypeError:
        return timm.create_model(full_name, pretrained=False, num_classes=0)


def _fill(network: Any, path: Path, name: str) -> None:
    state: State = read_state_dict(path)
    own = network.state_dict()
    # Files from before torch 0.4.1 lack counters that only a cumulative average would use.
    state = {key: value for key, value in own.items() if key.endswith(_COUNTER)} | state
    if not own.keys() <= state.keys():
        state = converted_by_timm(network, state)
    classifier = network.pretrained_cfg.get("classifier") or ()
    fit(network, state, path, name, ignore=(classifier,) if isinstance(classifier, str) else classifier)


def _opened(name: str, network: Any) -> tuple[FeatureGetterNet, Channels]:
    """The network as a module that returns the four maps, (b, c, h, w) whatever its own order of axes, and their channels."""
    reductions = [int(info["reduction"]) for info in getattr(network, "feature_info", None) or ()]
    says = f"its maps have the strides {', '.join(map(str, reductions))}" if reductions else "timm cannot take it apart"
    last = {stride: k for k, stride in enumerate(reductions)}
    if not hasattr(network, "forward_intermediates") or not last.keys() >= set(STRIDES):
        raise _unsuitable(name, says)
    trunk = FeatureGetterNet(network, out_indices=tuple(last[stride] for stride in STRIDES))
    training = network.training
    trunk.eval()
    try:
        with torch.no_grad():
            found = [tuple(each.shape) for each in trunk(torch.zeros(1, 3, *_PROBE))]
    except (AssertionError, RuntimeError, TypeError, ValueError):
        raise _unsuitable(name, f"it takes no image of {_PROBE[0]}×{_PROBE[1]}") from None
    trunk.train(training)
    first, second, third, fourth = (shape[1] for shape in found)
    if [shape[2:] for shape in found] != [(_PROBE[0] // stride, _PROBE[1] // stride) for stride in STRIDES]:
        raise _unsuitable(name, f"of an image of {_PROBE[0]}×{_PROBE[1]} its coarsest map is {found[-1][2]}×{found[-1][3]}")
    return trunk, (first, second, third, fourth)


def _set_checkpointing(name: str, network: Any) -> None:
    try:
        network.set_grad_checkpointing(True)
    except AssertionError:  # timm's way to say so
        raise UsageError(f"{name}: timm has no checkpointing for it; train it without") from None


def _unsuitable(name: str, why: str) -> UsageError:
    return UsageError(
        f"{name} gives no maps at strides 4, 8, 16 and 32 ({why}); give a plain ViT, or a network that does, "
        "such as timm:resnet50 or timm:convnext_tiny"
    )
