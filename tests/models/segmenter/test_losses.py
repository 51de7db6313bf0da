"""The losses against slow sums in float64, and what they must hold for any target."""

from __future__ import annotations

from itertools import permutations
from math import exp, floor, log
from typing import Any

import numpy as np
import pytest
import torch
from stand_in import made, scene
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from ovskit.core.models.segmenter import losses
from ovskit.core.models.segmenter.losses import LossOptions, Match, Target, match, matched_losses, segmenter_losses
from ovskit.core.models.segmenter.network import Predictions

NAMES = {"loss", "class", "mask", "dice", "ancestor", "ancestor positives", "ancestor negatives"}
EMPTY = Target(torch.zeros(0, 64, 64, dtype=torch.bool), torch.zeros(0, 0, dtype=torch.bool))
MATCHES = [Match(torch.tensor([3, 0, 2]), torch.tensor([1, 2, 0])), Match(torch.tensor([1, 2]), torch.tensor([0, 1]))]


def random_case(seed: int = 0, layers: int = 2) -> tuple[Predictions, list[Target]]:
    """Four queries, two images of three and two masks at other resolutions than the predictions' and each other's."""
    torch.manual_seed(seed)
    predictions = Predictions(
        [torch.randn(2, 4, 2) for _ in range(layers)], [torch.randn(2, 4, 4, 5) for _ in range(layers)], torch.randn(2, 4, 4)
    )
    targets = [
        Target(torch.rand(n, *size) < 0.5, torch.rand(n, n) < 0.5) for n, size in ((3, (8, 10)), (2, (3, 7)))
    ]  # fmt: skip
    return predictions, targets


def bilinear(image: np.ndarray, x: float, y: float) -> float:
    """The value at x, y in 0 … 1, where pixels are areas, and zero lies outside."""
    height, width = image.shape
    column, row = x * width - 0.5, y * height - 0.5
    total = 0.0
    for r in (floor(row), floor(row) + 1):
        for c in (floor(column), floor(column) + 1):
            if 0 <= r < height and 0 <= c < width:
                total += image[r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def cross_entropy(logit: float, label: float) -> float:
    return label * log(1 + exp(-logit)) + (1 - label) * log(1 + exp(logit))


def slow(predictions: Predictions, targets: list[Target], places: np.ndarray, options: LossOptions) -> dict[str, float]:
    """All losses, for the matches and places given, pixel by pixel."""
    found = {"loss": 0.0}
    for classes, masks in zip(predictions.classes, predictions.masks, strict=True):
        weighted = weights = 0.0
        for k in range(2):
            for query, logits in enumerate(classes[k].double().tolist()):
                label = 0 if query in MATCHES[k].queries else 1
                weight = options.no_object if label else 1.0
                weighted += weight * (log(exp(logits[0]) + exp(logits[1])) - logits[label])
                weights += weight
        entropies, dices, m = [], [], 0
        for k in range(2):
            for query, index in zip(*(part.tolist() for part in MATCHES[k]), strict=True):
                logit = [bilinear(masks[k, query].double().numpy(), x, y) for x, y in places[m]]
                label = [bilinear(targets[k].masks[index].double().numpy(), x, y) for x, y in places[m]]
                m += 1
                entropies.append(sum(cross_entropy(a, b) for a, b in zip(logit, label, strict=True)) / len(logit))
                chance = [1 / (1 + exp(-a)) for a in logit]
                both = sum(a * b for a, b in zip(chance, label, strict=True))
                dices.append(1 - (2 * both + 1) / (sum(chance) + sum(label) + 1))
        found |= {"class": weighted / weights, "mask": sum(entropies) / 5, "dice": sum(dices) / 5}
        found["loss"] += options.classes * found["class"] + options.masks * found["mask"] + options.dice * found["dice"]
    pairs = [
        (predictions.ancestors[k, a, b].item(), bool(targets[k].ancestors[i, j]))
        for k in range(2)
        for (a, i), (b, j) in permutations(zip(*(part.tolist() for part in MATCHES[k]), strict=True), 2)
    ]
    positives = sum(label for _, label in pairs)
    heavier = (len(pairs) - positives) / positives if options.ancestor_balance == "weight" else 1.0
    parts = [(heavier if label else 1.0, cross_entropy(logit, label)) for logit, label in pairs]
    found["ancestor"] = sum(w * e for w, e in parts) / sum(w for w, _ in parts)
    found |= {"ancestor positives": positives, "ancestor negatives": len(pairs) - positives}
    found["loss"] += options.ancestors * found["ancestor"]
    return found


@pytest.mark.parametrize(
    "options", [LossOptions(), LossOptions(classes=1, masks=2, dice=3, no_object=0.3, ancestors=4, ancestor_balance="weight")]
)
def test_against_slow_sums(monkeypatch: pytest.MonkeyPatch, options: LossOptions) -> None:
    predictions, targets = random_case()
    places = torch.rand(5, 7, 2)
    monkeypatch.setattr(losses, "match", lambda *given: MATCHES)
    monkeypatch.setattr(losses, "_draw_points", lambda *given: places)
    found = segmenter_losses(predictions, targets, options)
    wanted = slow(predictions, targets, places.double().numpy(), options)
    assert found.keys() == wanted.keys() == NAMES
    for name, value in wanted.items():
        assert found[name].item() == pytest.approx(value, rel=2e-5), name


def test_the_number_of_masks_scales_masks_alone() -> None:
    predictions, targets = random_case()
    torch.manual_seed(1)
    own = segmenter_losses(predictions, targets, LossOptions(points=20))
    torch.manual_seed(1)
    double = segmenter_losses(predictions, targets, LossOptions(points=20), num_masks=10)
    for name, factor in (("mask", 0.5), ("dice", 0.5), ("class", 1), ("ancestor", 1)):
        assert double[name].item() == pytest.approx(factor * own[name].item(), rel=1e-5)


def test_points_come_from_torchs_generator() -> None:
    predictions, targets = random_case()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(segmenter_losses(predictions, targets, LossOptions(points=20))["loss"].item())
    assert found[0] == found[1] != found[2]


def test_matching_finds_the_masks() -> None:
    """Queries that predict the targets, in another order, at a quarter of their resolution."""
    _, target = scene((0, 0, 32, 32), (32, 0, 64, 64), (0, 32, 32, 64))
    masks = torch.full((1, 5, 16, 16), -8.0)
    for query, index in ((4, 0), (1, 1), (2, 2)):
        masks[0, query][target.masks[index, ::4, ::4]] = 8
    found = match(torch.zeros(1, 5, 2), masks, [target], LossOptions(points=200))[0]
    assert dict(zip(found.queries.tolist(), found.targets.tolist(), strict=True)) == {4: 0, 1: 1, 2: 2}


def test_each_layer_is_matched_once_and_the_last_one_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, targets = random_case(layers=3)
    made_matches: list[list[Match]] = []
    plain = losses.match

    def spy(*given: Any) -> list[Match]:
        made_matches.append(plain(*given))
        return made_matches[-1]

    monkeypatch.setattr(losses, "match", spy)
    _, found = matched_losses(predictions, targets, LossOptions(points=20))
    assert len(made_matches) == 3
    assert found is made_matches[-1]


def test_more_targets_than_queries() -> None:
    predictions, _ = random_case()
    targets = [Target(torch.rand(9, 8, 8) < 0.5, torch.zeros(9, 9, dtype=torch.bool)) for _ in range(2)]
    found, matches = matched_losses(predictions, targets, LossOptions(points=20))
    assert [len(match.queries) for match in matches] == [4, 4]
    assert found["ancestor negatives"] == 2 * 4 * 3


def test_masks_may_be_bytes() -> None:
    predictions, targets = random_case()
    found = []
    for given in (targets, [Target(target.masks.to(torch.uint8), target.ancestors) for target in targets]):
        torch.manual_seed(1)
        found.append(segmenter_losses(predictions, given, LossOptions(points=20))["loss"])
    assert torch.equal(*found)


@pytest.mark.parametrize("ancestor_balance", ["none", "weight"])
@pytest.mark.parametrize("empty", [(), (0,), (0, 1)])
def test_a_gradient_for_every_parameter(empty: tuple[int, ...], ancestor_balance: Any) -> None:
    network = made().train()
    scenes = [scene((4, 4, 60, 60), (8, 8, 30, 30)), scene((4, 4, 30, 30))]
    targets = [EMPTY if k in empty else target for k, (_, target) in enumerate(scenes)]
    found = segmenter_losses(
        network(torch.stack([image for image, _ in scenes])), targets, LossOptions.of(network.config, ancestor_balance=ancestor_balance)
    )
    assert found.keys() == NAMES
    assert all(value.dtype == torch.float32 and value.shape == () and torch.isfinite(value) for value in found.values())
    assert [name for name, value in found.items() if value.requires_grad] == ["loss"]
    found["loss"].backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)
    if len(empty) == 2:
        assert found["mask"] == found["dice"] == found["ancestor"] == found["ancestor positives"] == found["ancestor negatives"] == 0
    else:
        assert found["mask"] > 0


def test_float32_under_autocast() -> None:
    predictions, targets = random_case()
    short = Predictions(
        [c.bfloat16() for c in predictions.classes], [m.bfloat16() for m in predictions.masks], predictions.ancestors.bfloat16()
    )
    long = Predictions([c.float() for c in short.classes], [m.float() for m in short.masks], short.ancestors.float())
    torch.manual_seed(1)
    wanted = segmenter_losses(long, targets, LossOptions(points=20))
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = segmenter_losses(short, targets, LossOptions(points=20))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_refused() -> None:
    predictions, targets = random_case()
    with pytest.raises(ValueError, match="1 targets for 2 images"):
        segmenter_losses(predictions, targets[:1], LossOptions())
    with pytest.raises(ValueError, match="expected \\(n, h, w\\) and \\(n, n\\)"):
        segmenter_losses(predictions, [targets[0], Target(targets[1].masks, targets[0].ancestors)], LossOptions())
    with pytest.raises(ValueError, match="no ancestor_balance 'more'"):
        LossOptions(ancestor_balance="more")  # type: ignore[arg-type]


def transformers_own(options: LossOptions) -> Mask2FormerLoss:
    config = Mask2FormerConfig(
        class_weight=options.classes, mask_weight=options.masks, dice_weight=options.dice, train_num_points=options.points
    )
    return Mask2FormerLoss(config, {})


@pytest.mark.parametrize("seed", range(8))
def test_matching_is_transformers_own(seed: int) -> None:
    torch.manual_seed(seed)
    queries, count = (9, 4) if seed % 2 else (4, 9)
    classes, masks = torch.randn(1, queries, 2), 3 * torch.randn(1, queries, 12, 9)
    target = Target(torch.rand(count, 24, 17) < 0.4, torch.zeros(count, count, dtype=torch.bool))
    options = LossOptions(points=150, classes=1.5, masks=4.0, dice=3.0)
    torch.manual_seed(99)
    found = match(classes, masks, [target], options)[0]
    torch.manual_seed(99)
    own = transformers_own(options).matcher(masks, classes, [target.masks.float()], [torch.zeros(count, dtype=torch.int64)])[0]
    assert torch.equal(found.queries, own[0])
    assert torch.equal(found.targets, own[1])


def test_a_query_that_diverged_is_matched_last() -> None:
    _, target = scene((0, 0, 32, 32), (32, 0, 64, 64))
    masks = torch.zeros(1, 3, 16, 16)
    masks[0, 1] = float("nan")
    found = match(torch.zeros(1, 3, 2), masks, [target], LossOptions(points=50))[0]
    assert set(found.queries.tolist()) == {0, 2}


@pytest.mark.parametrize("options", [LossOptions(points=64), LossOptions(points=50, oversampling=2.5, importance=0.3)])
def test_places_are_transformers_own(options: LossOptions) -> None:
    masks = torch.randn(5, 1, 13, 8)
    torch.manual_seed(7)
    found = losses._draw_points(masks, options)
    torch.manual_seed(7)
    criterion = transformers_own(options)
    own = criterion.sample_points_using_uncertainty(
        masks, criterion.calculate_uncertainty, options.points, options.oversampling, options.importance
    )
    assert found.shape == own.shape == (5, options.points, 2)
    for a, b in zip(found.tolist(), own.tolist(), strict=True):
        assert sorted(a) == sorted(b)
