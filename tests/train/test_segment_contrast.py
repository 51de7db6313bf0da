"""The losses against slow references: every place and every segment by itself, in float64."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from ovskit.core.train.recipes.segment_contrast import boundary_loss, image_contrast, segment_contrast

TEMPERATURE = 0.2


def scene(seed: int, pairs: int, side: int, segments: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    embedding = F.normalize(torch.from_numpy(rng.normal(size=(2 * pairs, 6, side, side))).float(), dim=1)
    return embedding, torch.from_numpy(rng.integers(0, segments, (2 * pairs, side, side)))


def means_of(embedding: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    found = {}
    for label in np.unique(labels):
        mean = embedding[:, labels == label].mean(axis=1)
        found[int(label)] = mean / np.linalg.norm(mean)
    return found


def reference(embedding: torch.Tensor, labels: torch.Tensor, picks: np.ndarray) -> tuple[float, float]:
    """Both losses with every segment of every other image as a negative; ``picks`` are the anchors (views, anchors)."""
    values, named = embedding.double().numpy(), labels.numpy()
    views = len(values)
    pairs = views // 2
    means = [means_of(values[v], named[v]) for v in range(views)]
    batch, image = [], []
    for v in range(views):
        other = (v + pairs) % views
        for place in picks[v]:
            y, x = divmod(int(place), values.shape[3])
            label, anchor = int(named[v, y, x]), values[v, :, y, x]
            if label not in means[other]:
                continue
            positive = anchor @ means[other][label] / TEMPERATURE
            own = [anchor @ mean / TEMPERATURE for mean in means[other].values()]
            foreign = [anchor @ m / TEMPERATURE for w in range(views) if w % pairs != v % pairs for m in means[w].values()]
            image.append(np.logaddexp.reduce(own) - positive)
            batch.append(np.logaddexp.reduce(own + foreign) - positive)
    return float(np.mean(batch)), float(np.mean(image))


def picks_of(views: int, places: int, anchors: int, seed: int) -> np.ndarray:
    return torch.randint(0, places, (views, anchors), generator=torch.Generator().manual_seed(seed)).numpy()


def test_segment_contrast_is_info_nce_against_the_means_of_the_other_view() -> None:
    for seed in range(5):
        embedding, labels = scene(seed, pairs=3, side=5, segments=4 + seed)
        found = segment_contrast(
            embedding, labels, anchors=7, negatives=10**6, temperature=TEMPERATURE, generator=torch.Generator().manual_seed(seed)
        )
        batch, image = reference(embedding, labels, picks_of(6, 25, 7, seed))
        assert math.isclose(float(found.batch), batch, rel_tol=1e-4)
        assert math.isclose(float(found.image), image, rel_tol=1e-4)


def test_views_without_a_common_segment_teach_nothing() -> None:
    embedding, labels = scene(0, pairs=2, side=4, segments=3)
    embedding.requires_grad_()
    labels[2:] += 100
    found = segment_contrast(embedding, labels, anchors=5, negatives=50, temperature=TEMPERATURE, generator=torch.Generator())
    assert float(found.batch.detach()) == 0
    assert float(found.image.detach()) == 0
    (found.batch + found.image).backward()
    assert embedding.grad is not None
    assert torch.isfinite(embedding.grad).all()
    assert float(embedding.grad.abs().max()) == 0


def test_gradients_are_finite_where_only_some_segments_are_shared() -> None:
    embedding, labels = scene(1, pairs=2, side=4, segments=6)
    embedding.requires_grad_()
    labels[2] += 3  # the first pair shares some
    found = segment_contrast(embedding, labels, anchors=9, negatives=50, temperature=0.05, generator=torch.Generator())
    (found.batch + found.image).backward()
    assert embedding.grad is not None
    assert torch.isfinite(embedding.grad).all()
    assert float(embedding.grad.abs().max()) > 0


def test_perfect_grouping_has_a_small_loss_and_confusion_a_large_one() -> None:
    labels = torch.zeros(4, 4, 4, dtype=torch.int64)
    labels[:, :, 2:] = 1
    labels[[1, 3]] += 2  # the second pair has segments of its own
    codes = torch.eye(4)
    right = codes[labels].permute(0, 3, 1, 2).contiguous()
    wrong = codes[torch.zeros_like(labels)].permute(0, 3, 1, 2).contiguous()
    arguments = {"anchors": 8, "negatives": 100, "temperature": 0.1}
    good = segment_contrast(right, labels, generator=torch.Generator(), **arguments)
    bad = segment_contrast(wrong, labels, generator=torch.Generator(), **arguments)
    assert float(good.image) < 1e-3
    assert float(good.batch) < 1e-3
    assert math.isclose(float(bad.image), math.log(2), rel_tol=1e-4)


def test_boundary_loss_counts_every_pair_of_neighbours() -> None:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, (2, 2, 3, 4)))
    right, below = (torch.from_numpy(rng.normal(size=(2, 2, 3, 4))) for _ in range(2))

    def entropy(logit: float, edge: bool) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -math.log(p if edge else 1 - p)

    across, down = [], []
    for b, c, y, x in np.ndindex(2, 2, 3, 4):
        if x < 3:
            across.append(entropy(float(right[b, c, y, x]), bool(labels[b, c, y, x] != labels[b, c, y, x + 1])))
        if y < 2:
            down.append(entropy(float(below[b, c, y, x]), bool(labels[b, c, y, x] != labels[b, c, y + 1, x])))
    assert math.isclose(float(boundary_loss(right, below, labels)), np.mean(across) + np.mean(down), rel_tol=1e-5)


def test_image_contrast_is_symmetric_info_nce() -> None:
    rng = np.random.default_rng(3)
    vectors = F.normalize(torch.from_numpy(rng.normal(size=(6, 5))), dim=1)
    queue = F.normalize(torch.from_numpy(rng.normal(size=(4, 5))), dim=1)
    losses = []
    for v in range(6):
        other = (v + 3) % 6
        half = range(3, 6) if v < 3 else range(3)
        logits = [float(vectors[v] @ vectors[w]) / 0.1 for w in half] + [float(vectors[v] @ q) / 0.1 for q in queue]
        losses.append(np.logaddexp.reduce(logits) - float(vectors[v] @ vectors[other]) / 0.1)
    assert math.isclose(float(image_contrast(vectors, queue, temperature=0.1)), float(np.mean(losses)), rel_tol=1e-6)
