"""Features on the card: a ViT's keys and the built-in extractor, by the batch, against what the card can do; and what goes around them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch.autograd import DeviceType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from gpu.card import BACKENDS, attention_by
from gpu.flops import VitShape, floor_seconds, keys_flops
from gpu.lines import Value
from gpu.work import Peak, Work
from ovskit.core.models.backbones.interface import Backbone
from ovskit.core.models.registry import load_backbone

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "tf32": torch.float32}
GOAL_MS = 30.0  # an image of 1024² on a card of the H200's class


class Vit:
    """The ViT that is measured, by the name that a user would give, and its weights: random, in a file as a user would have it.

    On a CPU it is a small one.
    """

    def __init__(self, work: Work) -> None:
        self.name, self.timm = ("timm:vit_tiny_patch16_224",) * 2 if work.dry else ("dino-vitb8", "timm:vit_base_patch8_224.dino")
        self.shape = VitShape(12, 192, 16) if work.dry else VitShape(12, 768, 8)
        self.called = "ViT-Ti/16" if work.dry else "ViT-B/8"
        self.sides = (64, 32) if work.dry else (1024, 512)
        self._path = work.folder / "weights.safetensors"
        self._work = work

    def weights(self) -> Path:
        """The file, made at the first asking."""
        if not self._path.exists():
            torch.manual_seed(0)
            network = timm.create_model(self.timm.removeprefix("timm:"), pretrained=False, num_classes=0)
            part = self._path.with_suffix(".part")
            save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, part)
            part.rename(self._path)  # whole or not at all: a measurement may be ended at any time
        return self._path

    def load(self, dtype: torch.dtype) -> Backbone:
        """The extractor, as ``ovs-extract --model … --facet key`` has it."""
        return load_backbone(self.name, facet="key", weights=self.weights(), device=self._work.device, dtype=dtype)


def keys(work: Work) -> None:
    """A ViT-B/8's keys in bf16, 1024² and 512², batch by batch; what takes the time; and what is around the network."""
    vit = Vit(work)
    _by_batch(work, vit)
    _around(work, vit)


def _by_batch(work: Work, vit: Vit) -> None:
    with work.measuring(f"{vit.called}: load, s") as values:
        values["make_weights"] = work.clock.wall(vit.weights)
        begun = time.perf_counter()
        backbone = vit.load(torch.bfloat16)
        values["load"] = time.perf_counter() - begun
    for side in vit.sides:
        for batch in (1, 2) if work.dry else (1, 2, 4, 8, 16):
            with work.measuring(f"{vit.called} keys, {side}², bf16, batch {batch}") as values:
                values |= timed_keys(work, vit, backbone, "bf16", side, batch)
    with work.measuring(f"{vit.called} keys, {vit.sides[0]}², bf16: kernels") as values:
        images = random_images(work, vit.sides[0], 1 if work.dry else 4)
        values |= kernels(work, lambda: backbone.extract(images), len(images))
    with work.measuring(f"{vit.called} keys, {vit.sides[-1]}²: operations") as values:
        values |= counted(work, vit, backbone)


def _around(work: Work, vit: Vit) -> None:
    """What is around the network: images up, features down, as ``ovs-extract`` does it, in float16, its default."""
    backbone = vit.load(torch.float16)
    for side in vit.sides:
        with work.measuring(f"{vit.called} keys, {side}², fp16: from NumPy to NumPy") as values:
            values |= around(work, backbone, side, 2 if work.dry else 16)


def keys_otherwise(work: Work) -> None:
    """The same keys in other precisions, and by other programs for attention than torch's choice."""
    vit = Vit(work)
    side = vit.sides[0]
    for name in ("fp16", "tf32", "fp32"):
        batch = 1 if work.dry else 8 if name == "fp16" else 2
        with work.measuring(f"{vit.called} keys, {side}², {name}, batch {batch}") as values:
            torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
            values |= timed_keys(work, vit, vit.load(DTYPES[name]), name, side, batch)
    torch.set_float32_matmul_precision("highest")
    backbone = vit.load(torch.bfloat16)
    few = torch.randn(3, 1, 2, 64, 64, device=work.device, dtype=torch.bfloat16)
    for name in ("cudnn", "flash"):
        batch = 1 if work.dry else 8
        with work.measuring(f"{vit.called} keys, {side}², bf16, batch {batch}, attention by {name}") as values:
            tried = attention_by(work.clock, *few.unbind(0), BACKENDS[name])
            if isinstance(tried, str):
                values["attention"] = tried
                continue
            with sdpa_kernel([BACKENDS[name]]):
                values |= timed_keys(work, vit, backbone, "bf16", side, batch)


def keys_compiled(work: Work) -> None:
    """The keys with every block compiled, which all have the same code: it is compiled once a shape."""
    vit = Vit(work)
    backbone: Any = vit.load(torch.bfloat16)
    for block in backbone._trunk.network.blocks:
        block.compile(dynamic=False, backend="eager" if work.dry else "inductor")
    for side, batch in zip(vit.sides, (1, 2) if work.dry else (8, 16), strict=True):
        with work.measuring(f"{vit.called} keys, {side}², bf16, batch {batch}, compiled") as values:
            images = random_images(work, side, batch)
            values["first_s"] = work.clock.wall(lambda images=images: backbone.extract(images))
            values |= timed_keys(work, vit, backbone, "bf16", side, batch)


def builtin(work: Work) -> None:
    """The whole built-in extractor as ``ovs-extract`` uses it, by the batch, and what takes its time."""
    backbone = load_backbone("builtin", device=work.device)
    sides = (64, 32) if work.dry else (1024, 512)
    for side in sides:
        for batch in (1, 2) if work.dry else (1, 4, 16):
            with work.measuring(f"builtin, {side}², batch {batch}") as values:
                images = random_images(work, side, batch)
                values |= timed(work, backbone, images)
        with work.measuring(f"builtin, {side}²: from NumPy to NumPy") as values:
            values |= around(work, backbone, side, 2 if work.dry else 16)
    with work.measuring(f"handmade, {sides[0]}², a part of it") as values:
        values |= timed(work, load_backbone("handmade", device=work.device), random_images(work, sides[0], 2 if work.dry else 16))
    with work.measuring("eigen-decompositions of 16 × 64 × 64, ms a matrix") as values:
        rows = torch.randn(16, 64, 200, dtype=torch.float64, device=work.device)
        squares = rows @ rows.mT
        values["there"] = 1000 / 16 * work.clock.time(lambda: torch.linalg.eigh(squares), repeat=3).least
        values["on_the_cpu"] = 1000 / 16 * min(work.clock.wall(lambda: torch.linalg.eigh(squares.cpu())) for _ in range(3))
    with work.measuring(f"builtin, {sides[0]}²: kernels") as values:
        images = random_images(work, sides[0], 1 if work.dry else 16)
        values |= kernels(work, lambda: backbone.extract(images), len(images))


def random_images(work: Work, side: int, batch: int) -> torch.Tensor:
    """(batch, 3, side, side) uint8 on the device, smooth enough to be no mere noise."""
    generator = torch.Generator().manual_seed(side + batch)
    small = torch.randint(0, 256, (batch, 3, max(2, side // 16), max(2, side // 16)), generator=generator).float()
    return torch.nn.functional.interpolate(small, (side, side), mode="bilinear").round().to(torch.uint8).to(work.device)


def timed(work: Work, backbone: Backbone, images: torch.Tensor) -> dict[str, Value]:
    """Milliseconds an image from images on the device to features on it, and the most memory."""
    peak = Peak(work.device)
    took = work.clock.time(lambda: backbone.extract(images), repeat=2 if work.dry else 5)
    scale = 1000 / len(images)
    return {"ms_image": scale * took.median, "least_ms": scale * took.least, **peak.values()}


def timed_keys(work: Work, vit: Vit, backbone: Backbone, precision: str, side: int, batch: int) -> dict[str, Value]:
    """``timed``, the operations, their rate, its share of the card's, and the floors: at that rate, and at those of the ViT's own sizes."""
    images = random_images(work, side, batch)
    values = timed(work, backbone, images)
    flops, known = keys_flops(vit.shape, side), work.known()
    rate = flops.total / (float(values["ms_image"] or 0) / 1000)
    values |= {"tflop_image": flops.total / 1e12, "attention_share": flops.attention / flops.total, "tflops": rate / 1e12}
    if precision in known:
        values |= {"share": rate / known[precision], "floor_ms": 1000 * floor_seconds(flops, known[precision])}
    if precision == "bf16" and {"linear", "attention_best"} <= known.keys():
        values["floor_own_sizes_ms"] = 1000 * floor_seconds(flops, known["linear"], known["attention_best"])
    if side == 1024:
        values["goal"] = f"{'met' if float(values['ms_image'] or 0) <= GOAL_MS else 'missed'}: {GOAL_MS:g} ms"
    return values


def around(work: Work, backbone: Backbone, side: int, batch: int) -> dict[str, Value]:
    """Milliseconds an image by the wall: the whole from uint8 in NumPy to float16 in NumPy, the network alone, and what is between.

    *up* and *down* are as ``ovs-extract`` copies, from and to pageable memory; *down_pinned* is what a copy to pinned memory would take.
    """
    here = random_images(work, side, batch).cpu().numpy()
    there = torch.from_numpy(here).to(work.device)

    def whole() -> np.ndarray:
        return backbone.extract(torch.from_numpy(here)).patch.to(torch.float16).cpu().numpy()

    def least(function: Callable[[], Any]) -> float:
        function()
        return 1000 / batch * min(work.clock.wall(function) for _ in range(2 if work.dry else 3))

    peak = Peak(work.device)
    values: dict[str, Value] = {"batch": batch, "whole_ms": least(whole), "network_ms": least(lambda: backbone.extract(there))}
    values |= peak.values()
    patch = backbone.extract(there).patch.to(torch.float16)
    values["up_ms"] = least(lambda: torch.from_numpy(here).to(work.device))
    values["down_ms"] = least(lambda: patch.cpu().numpy())
    if work.gpu:
        pinned = torch.empty(patch.shape, dtype=patch.dtype, pin_memory=True)
        values["down_pinned_ms"] = least(lambda: pinned.copy_(patch))
        values["one_behind_ms"] = 1000 / batch * one_behind(work, backbone, here)
    values["finite_ms"] = least(lambda: torch.stack(patch.aminmax()).tolist())
    values["mib_image"] = patch[0].numel() * patch.element_size() / 2**20
    values["network_share"] = float(values["network_ms"] or 0) / float(values["whole_ms"] or 1)
    return values


def one_behind(work: Work, backbone: Backbone, here: np.ndarray, batches: int = 4) -> float:
    """Seconds a batch from NumPy to NumPy where the features of one come down, by a stream of their own, while the next is computed."""
    beside = torch.cuda.Stream(work.device)

    def down(patch: torch.Tensor, ready: torch.cuda.Event) -> np.ndarray:
        beside.wait_event(ready)
        with torch.cuda.stream(beside):
            return patch.to(torch.float16).cpu().numpy()

    def all_batches() -> None:
        before: tuple[torch.Tensor, torch.cuda.Event] | None = None
        for _ in range(batches):
            patch, ready = backbone.extract(torch.from_numpy(here)).patch, torch.cuda.Event()
            ready.record()
            if before is not None:
                down(*before)
            before = patch, ready
        assert before is not None
        down(*before)

    return work.clock.wall(all_batches) / batches


def counted(work: Work, vit: Vit, backbone: Backbone) -> dict[str, Value]:
    """Operations of an image as torch counts them, where attention is two plain products, and by ``flops.py``."""
    side = vit.sides[-1]
    images = random_images(work, side, 1)
    with sdpa_kernel([SDPBackend.MATH]), FlopCounterMode(display=False) as counter:
        backbone.extract(images)
    found, closed = counter.get_total_flops(), keys_flops(vit.shape, side).total
    return {"counted_gflop": found / 1e9, "closed_form_gflop": closed / 1e9, "ratio": closed / found}


KINDS = {  # what a kernel does, by words in its name; the first that fits
    "attention": ("fmha", "flash", "sdpa", "attention"),
    "products": ("gemm", "nvjet", "cutlass", "xmma", "fprop", "addmm", "::mm", "::bmm", "convolution", "conv2d"),
    "copies": ("memcpy", "copy", "cat"),
}


def kernels(work: Work, call: Callable[[], Any], images: int) -> dict[str, Value]:
    """Milliseconds an image that the device is busy, by kind of kernel, and the longest ones.

    What is left of the wall, it waits for the host.
    """
    call()
    seconds = min(work.clock.wall(call) for _ in range(2))
    with profile(activities=[ProfilerActivity.CUDA if work.gpu else ProfilerActivity.CPU]) as found:
        call()
        work.clock.wait()
    spent: dict[str, float] = defaultdict(float)
    longest: list[tuple[float, str]] = []
    count = 0
    for event in found.key_averages():
        if work.gpu and event.device_type != DeviceType.CUDA:
            continue  # the host's call of a kernel
        took = (event.self_device_time_total if work.gpu else event.self_cpu_time_total) / 1000 / images
        name = str(event.key)
        kind = next((kind for kind, words in KINDS.items() if any(word in name.lower() for word in words)), "others")
        spent[kind] += took
        longest.append((took, name))
        count += event.count
    if not count:
        raise RuntimeError("the profiler saw no kernel")
    busy = sum(spent.values())
    values: dict[str, Value] = {
        "wall_ms": 1000 * seconds / images,
        "busy_ms": busy,
        "busy_share": busy * images / 1000 / seconds,
        "kernels": count,
    }
    values |= {f"{kind}_ms": took for kind, took in sorted(spent.items())}
    for place, (took, name) in enumerate(sorted(longest, reverse=True)[:6], 1):
        values[f"no_{place}"] = f"{took:.2f} ms {name[:70]}"
    return values
