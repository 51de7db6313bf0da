"""What is made of features and masks on the card: k-means of every image by itself, and the windowed CRF."""

from __future__ import annotations

import os
import time

import numpy as np
import torch

from gpu.photographs import few_scenes, mosaics
from gpu.work import Clock, Peak, Work
from ovskit.core.models.kmeans import KMeansOptions, fit_each
from ovskit.core.records import Image
from ovskit.core.refine.convcrf import convcrf_refiner
from ovskit.core.refine.methods.convcrf import ConvCrfOptions
from tests.scenes import mask_set

SIDE, CHANNELS, K, STEPS = 28, 384, 8, 20  # S-Seg's: a ViT-S/8 at 224²
REGIONS = 12


def region_maps(images: int, side: int, channels: int, device: torch.device) -> torch.Tensor:
    """(images, side², channels) of length 1, float32: Voronoi regions with a direction of their own, and noise."""
    generator = torch.Generator().manual_seed(0)
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    centres = side * torch.rand(images, REGIONS, 2, generator=generator)
    region = torch.cdist(places.expand(images, -1, -1), centres).argmin(dim=2)
    directions = torch.randn(images, REGIONS, channels, generator=generator).to(device)
    rows = directions.gather(1, region.to(device)[:, :, None].expand(-1, -1, channels))
    rows = rows + 1.5 * torch.randn(rows.shape, generator=torch.Generator(device).manual_seed(0), device=device)
    return rows / rows.norm(dim=2, keepdim=True)


def kmeans(work: Work) -> None:
    """Images a minute of ``fit_each`` on the device, in lots; and on the CPU, on all cores."""
    side, channels = (8, 32) if work.dry else (SIDE, CHANNELS)
    what = f"k-means of each image, {side}² × {channels}, K = {K}, {STEPS} steps"
    options = KMeansOptions(K, iterations=STEPS)
    for images in (4, 8) if work.dry else (1, 64, 445, 1780):
        with work.measuring(f"{what}, {images} images") as values:
            maps = region_maps(images, side, channels, work.device)
            peak = Peak(work.device)
            took = work.clock.time(lambda maps=maps: fit_each(maps, options, range(len(maps))), repeat=2, warm=1)
            values |= {"images_min": 60 * images / took.median, "ms_image": 1000 * took.median / images, **peak.values()}
    if work.gpu:
        with work.measuring(f"{what}, on the CPU") as values:
            cpu, images = torch.device("cpu"), 32
            maps = region_maps(images, side, channels, cpu)
            took = Clock(cpu).time(lambda: fit_each(maps, options, range(images)), repeat=1)
            values |= {"images_min": 60 * images / took.median, "threads": torch.get_num_threads(), "cores": os.cpu_count()}


def convcrf(work: Work) -> None:
    """Seconds an image of the windowed CRF, over some hundred masks of a photograph of 640 × 640, by torch on the device."""
    tiles, side = (2, 48) if work.dry else (4, 160)
    with work.measuring(f"convcrf, {tiles * side}²") as values:
        pixels, masks = mosaics(1, tiles, side)[0], []
        for k, scene in enumerate(few_scenes(side, tiles * tiles)):
            rows, columns = (slice(at * side, (at + 1) * side) for at in divmod(k, tiles))
            for mask in scene.masks:
                masks.append(np.zeros(pixels.shape[:2], bool))
                masks[-1][rows, columns] = mask
            pixels[rows, columns] = scene.pixels
        known = mask_set(Image(1, "mosaic.jpg", tiles * side, tiles * side), np.array(masks), np.full(len(masks), -1)).masks
        refiner = convcrf_refiner(ConvCrfOptions(), work.device)
        refiner.refine(pixels, known[:2])
        peak = Peak(work.device)
        begun = time.perf_counter()
        refiner.refine(pixels, known)
        work.clock.wait()
        values |= {"masks": len(known), "s_image": time.perf_counter() - begun, **peak.values()}
