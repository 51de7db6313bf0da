"""Training-free dense CLIP written down from the papers' equations in float64, one image at a time.

``visual`` is open_clip's vision transformer in float64; ``image`` (1, 3, H, W) is normalised. Results are (h, w, d), rows of length 1. What
another network says comes as unit rows (rows, columns, c). Slow: heads, and where it matters pairs, are loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
Heads = list[tuple[Tensor, Tensor, Tensor]]


def entering(visual: Any, image: Tensor, blocks: int) -> Tensor:
    """Tokens (1 + h·w, c) after that many blocks, CLS first."""
    return outputs(visual, image)[blocks]


def outputs(visual: Any, image: Tensor) -> list[Tensor]:
    """Tokens before the first block and after each."""
    patches = visual.conv1(image)[0].flatten(1).T
    rows, columns = image.shape[2] // visual.patch_size[0], image.shape[3] // visual.patch_size[1]
    table = visual.positional_embedding
    maps = table[1:].T.unflatten(1, visual.grid_size)[None]
    if (rows, columns) != tuple(visual.grid_size):
        maps = F.interpolate(maps, (rows, columns), mode="bicubic", antialias=True)
    x = visual.ln_pre(torch.cat([(visual.class_embedding + table[0])[None], patches + maps[0].flatten(1).T]))
    found = [x]
    for block in visual.transformer.resblocks:
        x = x + joined(block, [softmax(q @ k.T / len(q.T) ** 0.5) @ v for q, k, v in heads_of(block, x)])
        x = x + feed_forward(block, x)
        found.append(x)
    return found


def heads_of(block: Any, x: Tensor) -> Heads:
    """Query, key and value (n, d) of each head."""
    joint = block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
    query, key, value = joint.split(x.shape[1], dim=1)
    width = x.shape[1] // block.attn.num_heads
    return list(zip(query.split(width, 1), key.split(width, 1), value.split(width, 1), strict=True))


def softmax(scores: Tensor) -> Tensor:
    weights = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
    return weights / weights.sum(dim=1, keepdim=True)


def joined(block: Any, mixed: list[Tensor]) -> Tensor:
    return torch.cat(mixed, dim=1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias


def feed_forward(block: Any, x: Tensor) -> Tensor:
    hidden = block.ln_2(x) @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias
    return (hidden * torch.sigmoid(1.702 * hidden)) @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias


def named(visual: Any, x: Tensor, grid: tuple[int, int]) -> Tensor:
    vectors = x @ visual.proj
    return (vectors / vectors.norm(dim=1, keepdim=True)).unflatten(0, grid)


def last_block(visual: Any, image: Tensor, mixing: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Only the last block's attention, without residual and feed-forward; ``mixing`` of q and k gives weights of all tokens."""
    block = visual.transformer.resblocks[-1]
    heads = heads_of(block, entering(visual, image, len(visual.transformer.resblocks) - 1))
    mixed = [mixing(q, k) @ v for q, k, v in heads]
    return named(visual, visual.ln_post(joined(block, mixed)[1:]), grid_of(visual, image))


def grid_of(visual: Any, image: Tensor) -> tuple[int, int]:
    return image.shape[2] // visual.patch_size[0], image.shape[3] // visual.patch_size[1]


def plain(visual: Any, image: Tensor) -> Tensor:
    return named(visual, visual.ln_post(outputs(visual, image)[-1][1:]), grid_of(visual, image))


def clear(visual: Any, image: Tensor) -> Tensor:
    return last_block(visual, image, lambda q, k: softmax(q @ q.T / len(q.T) ** 0.5))


def sclip(visual: Any, image: Tensor) -> Tensor:
    block = visual.transformer.resblocks[-1]
    x = entering(visual, image, len(visual.transformer.resblocks) - 1)
    scale = [len(q.T) ** -0.5 for q, _, _ in heads_of(block, x)]
    mixed = [(softmax(q @ q.T * s) + softmax(k @ k.T * s)) @ v for (q, k, v), s in zip(heads_of(block, x), scale, strict=True)]
    x = x + joined(block, mixed)
    x = x + feed_forward(block, x)
    return named(visual, visual.ln_post(x[1:]), grid_of(visual, image))


def naclip(visual: Any, image: Tensor, sigma: float = 5.0) -> Tensor:
    rows, columns = grid_of(visual, image)
    window = torch.zeros(1 + rows * columns, 1 + rows * columns, dtype=torch.float64)
    for i in range(rows * columns):
        for j in range(rows * columns):
            away = (i // columns - j // columns) ** 2 + (i % columns - j % columns) ** 2
            window[1 + i, 1 + j] = torch.exp(torch.tensor(-away / (2 * sigma**2), dtype=torch.float64))
    return last_block(visual, image, lambda q, k: softmax(k @ k.T / len(k.T) ** 0.5 + window))


def values(visual: Any, x: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The last block's values of patches, at another grid."""
    found = torch.cat([v for _, _, v in heads_of(visual.transformer.resblocks[-1], x)], dim=1)[1:]
    return F.interpolate(found.T.unflatten(1, own)[None], grid, mode="bilinear")[0].flatten(1).T


def proxy_weights(rows: Tensor, beta: float, gamma: float) -> Tensor:
    """F.1 row by row, from unit rows (n, c)."""
    similar = rows @ rows.T
    shifted = gamma * (similar - beta * similar.mean())
    weights = torch.zeros_like(similar)
    for i in range(len(rows)):
        kept = [j for j in range(len(rows)) if shifted[i, j] >= 0 or i == j]
        total = sum(torch.exp(shifted[i, j]) for j in kept)
        for j in kept:
            weights[i, j] = torch.exp(shifted[i, j]) / total
    return weights


def proxy(visual: Any, image: Tensor, rows: Tensor, beta: float = 1.2, gamma: float = 3.0) -> Tensor:
    grid = (rows.shape[0], rows.shape[1])
    x = entering(visual, image, len(visual.transformer.resblocks) - 1)
    mixed = proxy_weights(rows.flatten(0, 1), beta, gamma) @ values(visual, x, grid_of(visual, image), grid)
    return named(visual, visual.ln_post(joined(visual.transformer.resblocks[-1], [mixed])), grid)


def merged(rows: Tensor, labels: list[int], eps: float) -> list[int]:
    """DBSCAN of regions with one point enough: grow each cluster from a region that is in none yet."""
    ids = sorted(set(labels) - {-1})
    means = [rows[[k for k, label in enumerate(labels) if label == each]].mean(dim=0) for each in ids]
    means = [mean / mean.norm() for mean in means]
    most = max((float(a @ b) for a in means for b in means), default=0.0)
    cluster: dict[int, int] = {}
    for seed in range(len(ids)):
        waiting = [] if seed in cluster else [seed]
        while waiting:
            at = waiting.pop()
            cluster[at] = seed
            waiting += [k for k in range(len(ids)) if k not in cluster and most - float(means[at] @ means[k]) <= eps]
    return [-1 if label < 0 else cluster[ids.index(label)] for label in labels]


def correlation_weights(rows: Tensor, labels: list[int], scale: float) -> Tensor:
    """F.2 pair by pair, from unit rows (n, c) and merged regions."""
    similar, n = rows @ rows.T, len(rows)
    weights = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            uncovered = labels[i] < 0 or labels[j] < 0
            if i == j or (similar[i, j] > similar.mean() if uncovered else labels[i] == labels[j]):
                weights[i, j] = torch.exp(scale * similar[i, j])
    return weights / weights.sum(dim=1, keepdim=True)


def corr(
    visual: Any, image: Tensor, rows: Tensor, labels: list[int], earlier: range, alpha: float = 1.0, beta: float = 0.5, eps: float = 0.2
) -> Tensor:
    """``labels`` are the regions of the patches of ``rows``, before they are merged."""
    grid, own, block = (rows.shape[0], rows.shape[1]), grid_of(visual, image), visual.transformer.resblocks[-1]
    regions = merged(rows.flatten(0, 1), labels, eps)
    weights, tokens = correlation_weights(rows.flatten(0, 1), regions, 4.0), outputs(visual, image)
    branches = [tokens[-2], torch.stack([tokens[k + 1] for k in earlier]).mean(dim=0)]
    main, spatial = (visual.ln_post(joined(block, [weights @ values(visual, x, own, grid)])) for x in branches)
    of_token = [regions[i * grid[0] // own[0] * grid[1] + j * grid[1] // own[1]] for i in range(own[0]) for j in range(own[1])]
    copies = {region: class_copy(visual, tokens, [k + 1 for k, each in enumerate(of_token) if each == region]) for region in set(of_token)}
    of_row = [of_token[i * own[0] // grid[0] * own[1] + j * own[1] // grid[1]] for i in range(grid[0]) for j in range(grid[1])]
    semantic = visual.ln_post(torch.stack([copies[region] for region in of_row]))
    return named(visual, main + alpha * spatial + beta * semantic, grid)


def class_copy(visual: Any, tokens: list[Tensor], members: list[int]) -> Tensor:
    """A copy of CLS that sees, in every block, the image's CLS and some patches, and not itself."""
    copy = tokens[0][:1]
    for block, x in zip(visual.transformer.resblocks, tokens, strict=False):
        seen = heads_of(block, x[[0, *members]])
        asks = heads_of(block, copy)
        mixed = [softmax(q @ k.T / len(q.T) ** 0.5) @ v for (q, _, _), (_, k, v) in zip(asks, seen, strict=True)]
        copy = copy + joined(block, mixed)
        copy = copy + feed_forward(block, copy)
    return copy[0]
