"""The segmenter learns two pictures by heart: masks, classes and who is whose ancestor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from stand_in import made, scene

from ovskit.core.models.segmenter.forest import forest
from ovskit.core.models.segmenter.losses import LossOptions, matched_losses
from ovskit.core.models.segmenter.network import Segmenter

SCENES = [scene((4, 4, 60, 60), (8, 8, 32, 32), (36, 36, 56, 56)), scene((32, 4, 60, 40), (4, 34, 28, 60), (8, 40, 20, 56))]
IMAGES = torch.stack([image for image, _ in SCENES])
TARGETS = [target for _, target in SCENES]


def learn(network: Segmenter, steps: int) -> list[float]:
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    options, found = LossOptions.of(network.config), []
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = matched_losses(network(IMAGES), TARGETS, options)[0]["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        found.append(loss.item())
    return found


def test_two_pictures() -> None:
    network = made()
    losses = learn(network, 100)
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        found = network.eval()(IMAGES)
        _, matches = matched_losses(found, TARGETS, LossOptions.of(network.config))
    scores = found.scores()
    for k, (target, match) in enumerate(zip(TARGETS, matches, strict=True)):
        queries = match.queries
        masks = F.interpolate(found.masks[-1][k, queries][None], size=(64, 64), mode="bilinear")[0] > 0
        wanted = target.masks[match.targets]
        ious = (masks & wanted).sum((1, 2)) / (masks | wanted).sum((1, 2))
        assert ious.min() > 0.8
        # The three matched queries are the three that are sure of themselves.
        assert set((scores[k] > 0.5).nonzero()[:, 0].tolist()) == set(queries.tolist())
        chance = found.ancestors[k][queries][:, queries].sigmoid()
        ancestors = target.ancestors[match.targets][:, match.targets]
        expected = [int(column.nonzero()[0, 0]) if column.any() else -1 for column in ancestors.T]
        assert forest(chance.numpy(), masks.sum((1, 2)).numpy()).tolist() == expected


def test_the_same_seed_learns_the_same() -> None:
    first, second = made(seed=1), made(seed=1)
    assert learn(first, 3) == learn(second, 3)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
