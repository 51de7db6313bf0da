"""The configuration and its JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ovskit.core.models.segmenter.config import SIZES, SegmenterConfig


@pytest.mark.parametrize("size", sorted(SIZES))
def test_json_and_back(size: str) -> None:
    config = replace(SIZES[size], backbone="timm:vit_small_patch16_224", backbone_config={"widths": [8, 16]}, freeze=True)
    assert SegmenterConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_base_has_the_papers_sizes() -> None:
    base = SIZES["base"]
    assert (base.hidden, base.queries, base.pixel_layers, base.decoder_layers, base.points) == (256, 300, 6, 10, 12544)


def test_a_whole_number_may_stand_for_a_real_one() -> None:
    assert SegmenterConfig.from_json(SegmenterConfig().to_json() | {"oversampling": 3}) == SegmenterConfig()


def test_before_there_were_places() -> None:
    data = replace(SIZES["tiny"], kinds=0).to_json()
    del data["kinds"]
    assert SegmenterConfig.from_json(data).kinds == 0


@pytest.mark.parametrize("name", sorted(SegmenterConfig().to_json().keys() - {"kinds"}))
def test_every_value_is_needed(name: str) -> None:
    data = SegmenterConfig().to_json()
    del data[name]
    with pytest.raises(KeyError, match=name):
        SegmenterConfig.from_json(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": "256"}, "hidden is '256', must be of type int"),
        ({"hidden": 256.0}, "must be of type int"),
        ({"queries": True}, "queries is True"),
        ({"freeze": 1}, "freeze is 1, must be of type bool"),
        ({"backbone": None}, "must be of type str"),
        ({"backbone_config": []}, "must be of type dict"),
        ({"oversampling": "3"}, "must be of type float"),
        ({"oversampling": float("nan")}, "oversampling"),
        ({"importance": 1.5}, "0 … 1"),
        ({"more": 1}, "no setting 'more'"),
        ({"backbone": ""}, "backbone's name"),
        ({"hidden": 48}, "multiple of 32"),
        ({"heads": 7}, "the 7 heads"),
        ({"decoder_layers": 1}, "at least 2"),
        ({"points": 0}, "at least 1"),
        ({"kinds": -1}, "at least 0"),
        ({"kinds": 7, "queries": 6}, "6 queries cannot be of 7 kinds"),
    ],
)
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmenterConfig.from_json(SegmenterConfig().to_json() | change)


def test_a_list_is_no_configuration() -> None:
    with pytest.raises(ValueError, match="is an object"):
        SegmenterConfig.from_json([])  # type: ignore[arg-type]
