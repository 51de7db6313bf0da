"""The built-in network as a trainable backbone: its stem and its stages at strides 4, 8, 16 and 32; what follows them only for grouping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ovskit.core.models.builtin.network import MEAN, STD, GroupingNetwork, NetworkConfig, join
from ovskit.core.models.builtin.weights import load_network
from ovskit.core.models.pyramids.pyramid import STRIDES, Maps, Pyramid, run_block
from ovskit.core.runtime.errors import InputError, UsageError

# The architecture of the weights that come with ovskit, for a start from random ones [choice].
_CONFIG = NetworkConfig(attention=2)


class GroupingPyramid(Pyramid):
    """See the module. Batch normalisation stays; a frozen trunk normalises by the statistics it has.

    Raises UsageError for a network that has not four stages.
    """

    trunk: _Trunk

    def __init__(self, name: str, network: GroupingNetwork, *, freeze: bool, checkpointing: bool = False, grouping: bool = False) -> None:
        widths = network.config.widths
        if len(widths) != len(STRIDES):
            raise UsageError(f"{name}: has {len(widths)} stages; a pyramid needs {len(STRIDES)}, at strides 4, 8, 16 and 32")
        first, second, third, fourth = widths
        first = network.config.pyramid if grouping else first
        super().__init__(name, _Trunk(network, grouping), (first, second, third, fourth), MEAN, STD, freeze=freeze)
        self._config, self._checkpointing = network.config, checkpointing

    def config(self) -> dict[str, Any]:
        """The configuration of the network, as JSON values."""
        return self._config.to_json()

    def _maps(self, images: torch.Tensor) -> Maps:
        return self._stages(images)

    def _grouped(self, images: torch.Tensor) -> tuple[Maps, torch.Tensor]:
        # The path back to stride 4 ends in what says most of what belongs together.
        found = self._stages(images)
        joined = join(found, self.trunk.lateral, self.trunk.joined)
        return (joined, *found[1:]), F.normalize(self.trunk.embed(joined).float(), dim=1)

    def _stages(self, images: torch.Tensor) -> Maps:
        x = self.trunk.stem(images)
        found = []
        for stage in self.trunk.stages:
            for block in stage.children():
                # A ReLU works in place: it keeps nothing, and could not be computed again.
                x = run_block(block, x, checkpointing=self._checkpointing and not isinstance(block, nn.ReLU), norms=block)
            found.append(x)
        first, second, third, fourth = found
        return first, second, third, fourth

    def _depth_groups(self) -> Iterator[list[nn.Parameter]]:
        for block in chain([self.trunk.stem], *(stage.children() for stage in self.trunk.stages)):
            yield list(block.parameters())
        yield [parameter for module in self.trunk.after for parameter in module.parameters()]


class _Trunk(nn.Module):
    """What the pyramid uses of the network, under the network's own names."""

    def __init__(self, network: GroupingNetwork, grouping: bool) -> None:
        super().__init__()
        self.stem: nn.Sequential = network.stem
        self.stages: nn.ModuleList = network.stages
        if grouping:
            self.lateral: nn.ModuleList = network.lateral
            self.joined: nn.ModuleList = network.joined
            self.embed: nn.Conv2d = network.embed

    @property
    def after(self) -> list[nn.Module]:
        """The modules after the stages, if there are any."""
        return [getattr(self, name) for name in ("lateral", "joined", "embed") if hasattr(self, name)]


def build_grouping_pyramid(
    name: str,
    weights: Path | None,
    pretrained: bool,
    *,
    freeze: bool,
    checkpointing: bool,
    config: Mapping[str, Any] | None,
    grouping: bool = False,
) -> GroupingPyramid:
    """The pyramid with the weights of a file, or those that come with ovskit if ``pretrained``, or random ones.

    ``config`` is that of random ones; ``grouping`` says whether it will be asked for vectors of grouping. Raises InputError if weights are
    damaged, UsageError if the network has not four stages, ValueError, TypeError or KeyError if ``config`` is not a network's.
    """
    if weights is not None:
        network = load_network(weights).network
    elif pretrained:
        network = shipped_network()
    else:
        network = GroupingNetwork(_CONFIG if config is None else NetworkConfig.from_json(dict(config)))
    return GroupingPyramid(name, network, freeze=freeze, checkpointing=checkpointing, grouping=grouping)


def shipped_network() -> GroupingNetwork:
    """The network that comes with ovskit. Raises InputError if its weights are not those that came."""
    from ovskit.core.models.builtin.extractor import SHA256, WEIGHTS

    with resources.as_file(resources.files(__package__) / WEIGHTS) as path:
        network, _, sha256 = load_network(path)
    if sha256 != SHA256:
        raise InputError(f"{WEIGHTS}: the weights that came with ovskit have changed (sha256 {sha256[:12]}…); install it again")
    return network
