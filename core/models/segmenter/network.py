"""The segmenter: a backbone's pyramid, Mask2Former's two decoders, one class, and the ancestor head.

SOHES §3.2 takes Mask2Former (Cheng et al., CVPR 2022) as it is: a pixel decoder of deformable attention over strides 8 to
32, joined with stride 4, then queries that attend to the pixels of the mask they predicted last. There is one class, "entity",
and no-object. The ancestor head reads the last layer's queries. The decoders are those of transformers; this module
builds them without its backbone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)

from ovskit.core.models.segmenter.ancestor import AncestorHead
from ovskit.core.models.segmenter.config import SegmenterConfig
from ovskit.core.models.segmenter.places import PlaceQueries, ground_of

STRIDE = 4
MULTIPLE = 32
"""Heights and widths of images are multiples of this: the coarsest stride."""

ENTITY, NO_OBJECT = 0, 1
"""The columns of ``Predictions.classes``."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the segmenter says of a batch, as logits.

    ``classes`` and ``masks`` have one entry per prediction, the last the final one: (b, q, 2), entity before no-object, and
    (b, q, H / 4, W / 4). ``ancestors`` (b, q, q) is of the last layer's queries: [i, j] says whether mask i is an ancestor of j.
    """

    classes: list[Tensor]
    masks: list[Tensor]
    ancestors: Tensor

    def scores(self) -> Tensor:
        """(b, q) in 0 … 1: the final entity probability times the mean probability of the mask's own pixels (logit > 0).

        As Mask2Former scores its instances; 0 for an empty mask. float32.
        """
        with torch.autocast(self.ancestors.device.type, enabled=False):
            probability = self.masks[-1].float().sigmoid()
            inside = self.masks[-1] > 0
            mean = (probability * inside).sum((2, 3)) / inside.sum((2, 3)).clamp_min(1)
            return self.classes[-1].float().softmax(2)[..., ENTITY] * mean


class Segmenter(nn.Module):
    """See the module. Made with random weights (torch's global generator), except those that ``pyramid`` brings.

    ``pyramid`` (core/models/pyramids/pyramid.py) has ``channels``, those of its maps at strides 4, 8, 16 and 32, takes images
    (b, 3, H, W), uint8 or float in 0 … 255, and learns what it says ``requires_grad`` of.
    """

    def __init__(self, config: SegmenterConfig, pyramid: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.pyramid = pyramid
        self.decoders = _Decoders(_mask2former(config), tuple(pyramid.channels), config.kinds)  # type: ignore[arg-type]
        self.ancestors = AncestorHead(config.hidden)

    def forward(self, images: Tensor, queries: int | None = None) -> Predictions:
        """``Predictions`` of images (b, 3, H, W), H and W multiples of 32. Raises ValueError for other sizes."""
        height, width = images.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE or not height or not width:
            raise ValueError(f"images of {width}×{height} px; both sides must be multiples of {MULTIPLE}")
        # Positions are computed in the maps' precision; bfloat16 would blur them. Convolutions are cast again by autocast.
        grouping: Tensor | None = None
        if self.config.kinds:
            found, grouping = self.pyramid.grouped(images)  # type: ignore[operator]
        else:
            found = self.pyramid(images)
        maps = [map_.float() for map_ in found]
        states, classes, masks = self.decoders(maps, grouping, queries or self.config.queries)
        return Predictions(classes, masks, self.ancestors(states))

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters outside the pyramid; ``pyramid.parameters()`` are the rest."""
        return (parameter for name, parameter in self.named_parameters() if not name.startswith("pyramid."))

    def recompute(self, on: bool = True) -> None:
        """Whether layers of masked attention keep no activations and are computed again on the way back (training only)."""
        if on:
            self.decoders.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self.decoders.activation_checkpointing_disable()


class _Decoders(Mask2FormerPreTrainedModel):
    """Both decoders and the class head as one pretrained model, which is how transformers initialises them.

    Without that the pixel decoder's level embedding, for one, is uninitialised memory.
    """

    supports_gradient_checkpointing = True

    def __init__(self, config: Mask2FormerConfig, channels: tuple[int, ...], kinds: int) -> None:
        super().__init__(config)
        self.pixels = Mask2FormerPixelDecoder(config, feature_channels=channels)
        self.queries = Mask2FormerTransformerModule(in_features=config.feature_size, config=config)
        self.classes = nn.Linear(config.hidden_dim, 2)
        self.places: PlaceQueries | None = None
        if kinds:
            self.places = PlaceQueries([config.feature_size] * 3 + [config.mask_feature_size], config.hidden_dim, kinds)
            del self.queries.queries_embedder, self.queries.queries_features
        # Not post_init: for classes that are not its own, transformers 5 passes over modules without direct parameters, and
        # deformable attention would begin with all its points on one place.
        self.apply(self._init_weights)
        if self.places is not None:
            self.places.reset()

    def forward(self, maps: list[Tensor], grouping: Tensor | None, queries: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The last queries (b, q, C), normalised, and the class and mask logits of every prediction."""
        pixels = self.pixels(maps, output_attentions=False, output_hidden_states=False, return_dict=True)
        if self.places is None:
            found: Any = self.queries(multi_scale_features=pixels.multi_scale_features, mask_features=pixels.mask_features)
            states = [state.transpose(0, 1) for state in found.intermediate_hidden_states]
            masks = list(found.masks_queries_logits)
        else:
            assert grouping is not None
            states, masks = self._from_places(self.places, list(pixels.multi_scale_features), pixels.mask_features, grouping, queries)
        return states[-1], [self.classes(state) for state in states], masks

    def _from_places(
        self, places: PlaceQueries, maps: list[Tensor], features: Tensor, grouping: Tensor, queries: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The states (b, q, C) and mask logits of every prediction of queries that begin at places.

        As transformers' decoder goes through its layers, with the prior in every mask.
        """
        module, decoder = self.queries, self.queries.decoder
        positions = [module.position_embedder(each.shape, each.device, each.dtype, None) for each in maps]
        seeds = places([*maps, features], grouping, positions[-1], queries)
        stages = [
            (project(each).flatten(2) + module.level_embed.weight[k][None, :, None]).permute(2, 0, 1)
            for k, (project, each) in enumerate(zip(module.input_projections, maps, strict=True))
        ]
        keys = [each.flatten(2).permute(2, 0, 1) for each in positions]
        ground = ground_of(grouping)
        hidden, states, masks = seeds.content, [], []
        for k in range(len(decoder.layers) + 1):
            states.append(decoder.layernorm(hidden).transpose(0, 1))
            vectors = decoder.mask_predictor.mask_embedder(states[-1])
            masks.append(torch.einsum("bqc,bchw->bqhw", vectors, features) + places.prior(seeds, states[-1], ground))
            if k < len(decoder.layers):
                level = k % len(maps)
                outside = _outside(masks[-1], maps[level].shape[-2:], module.decoder.mask_predictor.num_heads)
                hidden = decoder.layers[k](hidden, level, None, keys, seeds.positions, stages, encoder_attention_mask=outside)[0]
        return states, masks


def _outside(masks: Tensor, size: torch.Size, heads: int) -> Tensor:
    """Where queries must not attend: (b · heads, q, h · w) bool, outside their masks; a query without a mask attends everywhere."""
    with torch.no_grad():
        small = F.interpolate(masks.float(), size=size, mode="bilinear", align_corners=False).flatten(2)
        outside = small < 0
        outside &= ~outside.all(dim=2, keepdim=True)
        return outside.repeat_interleave(heads, dim=0)


def _mask2former(config: SegmenterConfig) -> Mask2FormerConfig:
    """transformers' configuration of the decoders; what it says of a backbone is not used."""
    return Mask2FormerConfig(
        feature_size=config.hidden,
        hidden_dim=config.hidden,
        mask_feature_size=config.mask_features,
        num_queries=config.queries,
        num_attention_heads=config.heads,
        encoder_layers=config.pixel_layers,
        decoder_layers=config.decoder_layers,
        encoder_feedforward_dim=config.pixel_feedforward,
        dim_feedforward=config.decoder_feedforward,
        dropout=0.0,
    )
