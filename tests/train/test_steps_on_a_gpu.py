"""One step of every recipe on a card against the same step on the CPU: losses and gradients, of one batch, weights and random points."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from ovskit.core.models.segmenter.losses import segmenter_losses
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.engine.batches import to_device
from ovskit.core.train.recipes.backbone import BackboneRecipe, BackboneSettings
from ovskit.core.train.recipes.backbone import precompute as backbone_pool
from ovskit.core.train.recipes.correct import CorrectRecipe, CorrectSettings
from ovskit.core.train.recipes.dino import DinoRecipe, DinoSettings
from ovskit.core.train.recipes.dino import precompute as dino_pool
from ovskit.core.train.recipes.segment import SegmentRecipe, new_segmenter, targets_of
from tests.differences import joined, least_cosine, relative
from tests.train.small_segmenter import SETTINGS, Data, scenes_to_learn

pytestmark = pytest.mark.gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BACKBONE = BackboneSettings(
    widths=(8, 12, 16), blocks=(1, 1, 1), attention=1, pyramid=12, embedding=12, shorter_side=64, scales=(200.0, 1000.0),
    smallest_segment=12, batch=4, crop=32, anchors=16, negatives=200, queue=32, decay=0.9,
)  # fmt: skip
DINO = DinoSettings(
    arch="test_vit", drop_path=0.0, shorter_side=64, batch=4, global_crop=48, local_crop=32, local_crops=2, hidden=64, bottleneck=32,
    prototypes=64, freeze_last=0, warm_teacher=3, momentum=0.9,
)  # fmt: skip

Measured = Callable[..., None]
Waiting = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return scenes_to_learn(tmp_path_factory.mktemp("scenes"), 6)


@pytest.fixture
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card has random numbers of its own; here all come from the CPU."""
    own = torch.rand

    def drawn(*size: Any, device: Any = None, **others: Any) -> torch.Tensor:
        numbers = own(*size, **others)
        return numbers if device is None else numbers.to(device)

    monkeypatch.setattr(torch, "rand", drawn)


class Step(NamedTuple):
    losses: dict[str, float]
    gradients: torch.Tensor


def step(recipe: Any, device: torch.device, precision: torch.dtype = torch.float32) -> Step:
    """Losses and gradients of the first batch, as the loop would have them."""
    recipe.modules.to(device).train()
    batch = to_device(recipe.batch(0, 0, 1), device, channels_last=False)
    torch.manual_seed(7)
    with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
        losses = recipe.losses(batch, 0)
    losses["loss"].backward()
    assert losses["loss"].device.type == device.type
    learning = [p for group in recipe.parameter_groups() for p in group["params"]]
    assert all(p.grad is not None for p in learning)
    return Step({name: float(value.detach()) for name, value in losses.items()}, joined(p.grad for p in learning))


def compared(here: Step, there: Step, measured: Measured) -> tuple[float, float]:
    """The largest difference of a loss, as a share of the loss, and the gradient's relative error."""
    assert here.losses.keys() == there.losses.keys()
    losses = max(abs(there.losses[name] - value) / max(1.0, abs(value)) for name, value in here.losses.items())
    gradient, cosine = relative(there.gradients, here.gradients), least_cosine(there.gradients[None], here.gradients[None])
    measured(losses=losses, gradient=gradient, cosine=cosine)
    assert float(here.gradients.norm()) > 0
    return losses, gradient


def segment(data: Data, backbone: str, importance: float | None) -> SegmentRecipe:
    settings = replace(SETTINGS, backbone=backbone)
    recipe = SegmentRecipe(*data, new_segmenter(settings, weights=None, pretrained=False, seed=3), settings, Path(), seed=3)
    if importance is not None:
        recipe.loss_options = replace(recipe.loss_options, importance=importance)
    return recipe


@pytest.mark.usefixtures("exact", "same_draws")
@pytest.mark.parametrize("backbone", ["timm:test_vit", "builtin"])
def test_segment(data: Data, backbone: str, measured: Measured) -> None:
    """All points random, so that nothing is chosen by numbers that differ in their last bits: sums in another order alone, some 1e-6
    each, which attention and normalisation make some 1e-5 of; gradients pass twice as many."""
    losses, gradient = compared(*(step(segment(data, backbone, 0.0), device) for device in (CPU, GPU)), measured)
    assert losses < 1e-4
    assert gradient < 2e-3


@pytest.mark.usefixtures("exact", "same_draws")
def test_segment_with_points_where_it_is_uncertain(data: Data, measured: Measured) -> None:
    """As trained: of points that are equally uncertain but for rounding, another may be taken, one of 48; so ten times as much is left."""
    losses, gradient = compared(*(step(segment(data, "builtin", None), device) for device in (CPU, GPU)), measured)
    assert losses < 1e-3
    assert gradient < 2e-2


@pytest.mark.usefixtures("same_draws")
@pytest.mark.parametrize(("precision", "loss", "least"), [(torch.bfloat16, 0.1, 0.6), (torch.float16, 0.05, 0.9)], ids=["bf16", "fp16"])
def test_segment_under_autocast(data: Data, precision: torch.dtype, loss: float, least: float, measured: Measured) -> None:
    """A mask's logit that rounding moves across 0 opens or shuts masked attention there, and weights at random leave many near 0: losses
    to some hundredths, and gradients that point the same way (cosine) are all there is to ask."""
    here = step(segment(data, "builtin", 0.0), CPU)
    there = step(segment(data, "builtin", 0.0), GPU, precision)
    losses, _ = compared(here, there, measured)
    assert losses < loss
    assert least_cosine(there.gradients[None], here.gradients[None]) > least


@pytest.mark.usefixtures("exact", "same_draws")
def test_correct(data: Data, measured: Measured) -> None:
    """The teacher's masks are cut at 0, so a point may fall to either side: of some thousand points of a target one or two."""

    def made() -> CorrectRecipe:
        segmenter = new_segmenter(SETTINGS, weights=None, pretrained=False, seed=3)
        sure = CorrectSettings(threshold="fixed", threshold_large=0.01)
        recipe = CorrectRecipe(*data, segmenter, SETTINGS, Path(), correct=sure, seed=3)
        recipe.loss_options = replace(recipe.loss_options, importance=0.0)
        return recipe

    here, there = (step(made(), device) for device in (CPU, GPU))
    assert sum(value for name, value in here.losses.items() if name.startswith("teacher ")) > 1
    losses, gradient = compared(here, there, measured)
    assert losses < 1e-2
    assert gradient < 5e-2


@pytest.mark.usefixtures("exact")
def test_backbone(data: Data, tmp_path: Path, measured: Measured) -> None:
    """Anchors and negatives are drawn by the CPU whatever the device, so the same; sums by atomic additions, in no order."""
    pool = backbone_pool(data.photographs, BACKBONE, tmp_path / "pool", workers=1, failures=Failures(skip=False))
    losses, gradient = compared(*(step(BackboneRecipe(pool, BACKBONE, seed=0), device) for device in (CPU, GPU)), measured)
    assert losses < 1e-4
    assert gradient < 2e-3


@pytest.mark.usefixtures("exact")
def test_dino(data: Data, tmp_path: Path, measured: Measured) -> None:
    """Logits are divided by temperatures down to 0.04, which enlarges their rounding 25 times."""
    pool = dino_pool(data.photographs, DINO, tmp_path / "pool", workers=1, failures=Failures(skip=False))
    losses, gradient = compared(*(step(DinoRecipe(pool, DINO, steps=9, seed=0), device) for device in (CPU, GPU)), measured)
    assert losses < 1e-3
    assert gradient < 5e-3


def test_dino_never_waits(data: Data, tmp_path: Path, waiting: Waiting) -> None:
    """The CPU runs ahead of the card through whole steps."""
    pool = dino_pool(data.photographs, DINO, tmp_path / "pool", workers=1, failures=Failures(skip=False))
    recipe = DinoRecipe(pool, DINO, steps=9, seed=0)
    step(recipe, GPU)
    recipe.after_step(0)
    batch = to_device(recipe.batch(1, 0, 1), GPU, channels_last=False)
    with waiting() as found:
        recipe.losses(batch, 1)["loss"].backward()
        recipe.after_step(1)
    assert not found


def test_backbones_queue_stays_on_the_card(data: Data, tmp_path: Path, waiting: Waiting) -> None:
    """A queue on the CPU would be read and written across at every step."""
    pool = backbone_pool(data.photographs, BACKBONE, tmp_path / "pool", workers=1, failures=Failures(skip=False))
    recipe = BackboneRecipe(pool, BACKBONE, seed=0)
    for number in range(6):  # so that the queue is full
        step(recipe, GPU)
        if number < 2:
            recipe.after_step(number)
            continue
        with waiting() as found:
            recipe.after_step(number)
        assert not found
    assert recipe.state()["queue"].device.type == "cuda"


def test_a_segmenters_losses_wait_once_a_prediction(data: Data, waiting: Waiting, measured: Measured) -> None:
    """For the costs of all images, which the CPU assigns. Every index that it hands over one by one would be another time."""
    recipe = segment(data, "builtin", None)
    recipe.modules.to(GPU).train()
    batch = to_device(recipe.batch(0, 0, 1), GPU, channels_last=False)
    targets = targets_of(batch)
    assert sum(len(target.masks) > 1 for target in targets) == SETTINGS.batch
    said = recipe.modules["segmenter"](batch.images)
    segmenter_losses(said, targets, recipe.loss_options)
    with waiting() as found:
        segmenter_losses(said, targets, recipe.loss_options)["loss"].backward()
    measured(waits=len(found))
    assert len(found) == len(said.masks)


@pytest.mark.slow
@pytest.mark.gpu(real="torch.compile does not see through it")
@pytest.mark.usefixtures("exact", "same_draws")
def test_a_compiled_segmenter_gives_the_same(data: Data, measured: Measured) -> None:
    """Minutes of compiling. Fused kernels keep float32 and its rounding, in other places."""
    here = step(segment(data, "builtin", 0.0), GPU)
    recipe = segment(data, "builtin", 0.0)
    for module in recipe.modules.values():
        module.compile()
    losses, gradient = compared(here, step(recipe, GPU), measured)
    assert losses < 1e-3
    assert gradient < 2e-2
