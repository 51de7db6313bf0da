"""k-means: images a second of ``fit_each`` at S-Seg's size, and ``fit`` with ``assign`` on a data set's patches.

First table: seeded maps of 28 × 28 patches with 384 channels (a ViT-S/8 at 224²), twelve Voronoi regions of a direction each
plus noise, L2-normalised, K = 8, spherical, k-means++ start, at most so many of Lloyd's steps; ``fit_each`` in batches of several
sizes, and image by image faiss.Kmeans (a start of random patches; told to take all of them) and scipy's kmeans2 (k-means++; not
spherical, so it does a little less). ``fit_each`` stops when nothing changes in its part of the batch, the others do all their
steps: *at rest* says how many images one step more would leave as they are. *objective* is the mean squared distance of a patch
to its centroid, over all images, taken in the same way for all. On a GPU the first run of each shape is left out, and a time
ends when the device is done.

Second table: ``--vectors`` of 64 channels around 40 centres; ``fit`` on its default sample of 256,000 and ``assign`` of all,
against faiss.Kmeans on as many and a search of its index for the two nearest. ``fit`` and ``assign`` give the same bits on any
number of threads, which faiss.Kmeans does not promise. The least of ``--repeat`` runs counts. faiss uses a GPU only if its package
was built for GPUs; ``fit_each`` needs torch alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np
import numpy.typing as npt
import torch
from harness.arguments import bench_parser, list_of
from harness.machine import surroundings
from harness.measure import timed
from harness.report import show, write_json
from scipy.cluster.vq import kmeans2

from ovskit.core.models.kmeans import KMeansOptions, assign, fit, fit_each
from ovskit.core.runtime.device import choose_device

Float32 = npt.NDArray[np.float32]
SIDE, CHANNELS, K = 28, 384, 8
WIDTH = 64
ALL_POINTS = {"min_points_per_centroid": 1, "max_points_per_centroid": 2**31 - 1}  # without it faiss samples 256 for each centroid


def voronoi_maps(images: int, regions: int = 12) -> Float32:
    """(images, 784, 384) of length 1, each with ``regions`` regions that have a direction of their own."""
    maps = np.empty((images, SIDE * SIDE, CHANNELS), np.float32)
    places = np.stack(np.mgrid[:SIDE, :SIDE], axis=-1).reshape(-1, 1, 2)
    for k in range(images):
        random = np.random.default_rng(k)
        region = ((places - random.uniform(0, SIDE, (regions, 2))) ** 2).sum(-1).argmin(1)
        maps[k] = random.standard_normal((regions, CHANNELS), np.float32)[region]
        maps[k] += 1.5 * random.standard_normal(maps[k].shape, np.float32)
    return maps / np.linalg.norm(maps, axis=2, keepdims=True)


def least(work: Callable[[], Any], repeat: int, device: torch.device) -> tuple[float, Any]:
    """Seconds of the quickest run, until the device is done, and what the last one gave."""

    def finished() -> Any:
        found = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return found

    timing = timed(finished, repeat)
    return timing.least, timing.result


def objective(maps: Float32, labels: npt.NDArray[Any]) -> float:
    """Mean squared distance of patches of length 1 to the direction of their cluster."""
    total = 0.0
    for rows, own in zip(maps, labels, strict=True):
        sums = np.zeros((K, CHANNELS))
        np.add.at(sums, own, rows)
        total += 2 - 2 * np.linalg.norm(sums, axis=1).sum() / len(rows)
    return total / len(maps)


def faiss_kmeans(rows: Float32, k: int, steps: int, gpu: bool, seed: int = 0) -> Any:
    model = faiss.Kmeans(rows.shape[1], k, niter=steps, spherical=True, gpu=gpu, seed=seed + 1, **ALL_POINTS)
    model.train(rows)
    return model


def per_image(arguments: argparse.Namespace, device: torch.device, gpu: bool) -> list[dict[str, Any]]:
    maps = voronoi_maps(arguments.images)
    there = torch.from_numpy(maps).to(device)
    rows = []
    for steps in arguments.steps:
        options = KMeansOptions(K, iterations=steps)
        longer = fit_each(there, KMeansOptions(K, iterations=steps + 1), range(len(maps)))[0]
        for size in (1, 16, len(maps)):

            def work(size: int = size, options: KMeansOptions = options) -> torch.Tensor:
                parts = [fit_each(there[i : i + size], options, range(i, min(i + size, len(maps)))) for i in range(0, len(maps), size)]
                return torch.cat([part[0] for part in parts])

            if device.type == "cuda":
                work()
            seconds, labels = least(work, arguments.repeat, device)
            at_rest = int((labels == longer).all(dim=1).sum())
            rows.append(result(f"fit_each, batch {size}", steps, seconds, len(maps), objective(maps, labels.cpu().numpy()), at_rest))

        def faiss_all(steps: int = steps) -> npt.NDArray[Any]:
            return np.stack([faiss_kmeans(one, K, steps, gpu).index.search(one, 1)[1][:, 0] for one in maps])

        seconds, found = least(faiss_all, arguments.repeat, device)
        rows.append(result(f"faiss.Kmeans{' on the GPU' if gpu else ''}", steps, seconds, len(maps), objective(maps, found)))
        few = maps[: max(1, len(maps) // 4)]

        def scipy_all(steps: int = steps, few: Float32 = few) -> npt.NDArray[Any]:
            return np.stack([kmeans2(one, K, iter=steps, minit="++", rng=0)[1] for one in few])

        seconds, found = least(scipy_all, 1, device)
        rows.append(result("scipy kmeans2", steps, seconds, len(few), objective(few, found)))
    return rows


def result(name: str, steps: int, seconds: float, images: int, mean: float, at_rest: int | None = None) -> dict[str, Any]:
    return {"program": name, "steps": steps, "images_s": images / seconds, "images": images, "objective": mean, "at_rest": at_rest}


def data_set(arguments: argparse.Namespace, device: torch.device, gpu: bool) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((arguments.vectors, WIDTH), np.float32)
    vectors += random.standard_normal((40, WIDTH), np.float32)[random.integers(0, 40, len(vectors))]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fit(vectors[:2000], KMeansOptions(3), device=device)  # compiles or loads
    assign(vectors[:2000], fit(vectors[:2000], KMeansOptions(3)), device=device)
    rows = []
    for k in arguments.clusters:
        options = KMeansOptions(k)
        fitting, centroids = least(lambda options=options: fit(vectors, options, device=device), arguments.repeat, device)
        giving, _ = least(lambda centroids=centroids: assign(vectors, centroids, device=device), arguments.repeat, device)
        rows.append({"program": "fit, assign", "k": k, "fit_s": fitting, "assign_s": giving, "objective": centroids.objective})
        chosen = vectors[np.sort(random.choice(len(vectors), min(len(vectors), options.max_points), replace=False))]
        fitting, model = least(
            lambda k=k, chosen=chosen, steps=options.iterations: faiss_kmeans(chosen, k, steps, gpu), arguments.repeat, device
        )
        giving, (near, _) = least(lambda model=model: model.index.search(vectors, min(2, len(model.centroids))), arguments.repeat, device)
        rows.append({"program": "faiss", "k": k, "fit_s": fitting, "assign_s": giving, "objective": float(2 - 2 * near[:, 0].mean())})
    return rows


def main() -> None:
    parser = bench_parser(__doc__, repeat=3, json=True)
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--images", type=int, default=128, help="maps of the first table [128]")
    parser.add_argument("--steps", type=list_of(int), default="10,20", metavar="N,N", help="steps of Lloyd's algorithm [10,20]")
    parser.add_argument("--vectors", type=int, default=1_000_000, help="vectors of the second table; 0 leaves it out [1000000]")
    parser.add_argument("--clusters", type=list_of(int), default="2,8,27", metavar="K,K", help="numbers of clusters there [2,8,27]")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and faiss [1]")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    gpu = device.type == "cuda" and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    about = {"bench": "kmeans", **surroundings(), "threads": arguments.threads}
    about["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    about["versions"]["faiss"] = faiss.__version__

    images = per_image(arguments, device, gpu)
    cells: list[tuple[object, ...]] = []
    for row in images:
        at_rest, rate = "" if row["at_rest"] is None else f"{row['at_rest']}/{row['images']}", row["images_s"]
        cells.append((row["program"], row["steps"], f"{rate:.1f}", f"{60 * rate:,.0f}", f"{row['objective']:.5f}", at_rest))
    title = f"k-means of each image: {SIDE * SIDE} patches, {CHANNELS} channels, K = {K}"
    show(title, ("program", "steps", "images/s", "images/min", "objective", "at rest"), cells)

    sets = data_set(arguments, device, gpu) if arguments.vectors else []
    if sets:
        title = f"k-means of {arguments.vectors:,} vectors of {WIDTH} channels, at most {KMeansOptions(1).iterations} steps"
        cells = [(row["program"], row["k"], f"{row['fit_s']:.2f}", f"{row['assign_s']:.2f}", f"{row['objective']:.5f}") for row in sets]
        show(title, ("program", "k", "fit s", "assign s", "objective"), cells)
    print(about)
    write_json(arguments.json, {**about, "per_image": images, "data_set": sets})


if __name__ == "__main__":
    main()
