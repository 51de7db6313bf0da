"""The card by itself: what it is, how fast it multiplies, attends and copies. Floors of everything else are taken from this."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu.lines import Value
from gpu.work import FULL, Clock, Work
from ovskit.core.runtime.workers import default_workers

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
PRECISIONS = {
    "bf16": (torch.bfloat16, "highest"),
    "fp16": (torch.float16, "highest"),
    "tf32": (torch.float32, "high"),
    "fp32": (torch.float32, "highest"),
}


def card(work: Work) -> None:
    """Name, memory and versions; the rates of large square products, of copies on the card and to and from it; ``shapes``."""
    with work.measuring("the card") as values:
        values |= about(work.device)
    with work.measuring("square products, TFLOP/s") as values:
        side = 256 if work.dry else 8192
        values["side"] = side
        for name, (dtype, precision) in PRECISIONS.items():
            rate = product_rate(work.clock, work.device, (side, side, side), dtype, precision)
            values[name] = rate / 1e12
            work.remember({name: rate})
    with work.measuring("copies, GB/s") as values:
        values |= copies(work)
    shapes(work)


def about(device: torch.device) -> dict[str, Value]:
    values: dict[str, Value] = {"torch": torch.__version__, "python": platform.python_version(), "cores": default_workers()}
    if device.type != "cuda":
        return {"name": device.type, **values}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gib": properties.total_memory / 2**30,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver(),
        **values,
    }


def driver() -> str | None:
    """The driver's version as its own tool says it; None where there is no such tool, or it does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        words = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        found = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return None
    return found.stdout.strip().split("\n")[0] or None


def product_rate(clock: Clock, device: torch.device, sizes: tuple[int, int, int], dtype: torch.dtype, precision: str = "highest") -> float:
    """Operations a second of (m, k) @ (k, n) in ``dtype``, the best of several; ``precision`` is that of float32 products."""
    m, k, n = sizes
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        a, b = torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)
        out = torch.empty(m, n, device=device, dtype=dtype)
        return 2 * m * k * n / clock.time(lambda: torch.mm(a, b, out=out), repeat=10, warm=3).least
    finally:
        torch.set_float32_matmul_precision(before)


def copies(work: Work) -> dict[str, Value]:
    """GB (10⁹ bytes) a second: within the device (read and written, so twice the bytes), to it and from it, pageable and pinned."""
    size = (1 << 20) if work.dry else (1 << 28)
    clock, rates = work.clock, dict[str, Value]()
    there, other = (torch.zeros(4 * size, dtype=torch.uint8, device=work.device) for _ in range(2))
    rates["device"] = 2 * 4 * size / clock.time(lambda: other.copy_(there), repeat=5).least / 1e9
    if not work.gpu:
        return rates
    part = there[:size]

    def between(to: torch.Tensor, source: torch.Tensor) -> float:
        return size / min(clock.wall(lambda: to.copy_(source)) for _ in range(4)) / 1e9

    for kind in ("pageable", "pinned"):
        here = torch.zeros(size, dtype=torch.uint8, pin_memory=kind == "pinned")
        rates |= {f"to_it_{kind}": between(part, here), f"from_it_{kind}": between(here, part)}
    return rates


def shapes(work: Work) -> None:
    """The rates at the sizes that a ViT-B/8 has at 1024²: its four linear layers, and attention by each of torch's programs."""
    tokens, width, heads, batch = (65, 192, 3, 1) if work.dry else (16385, 768, 12, 4)
    dtype = torch.bfloat16
    with work.measuring("a block's linear layers, bf16, TFLOP/s") as values:
        values |= {"images": batch, "tokens": tokens}
        spent = 0.0
        sizes = {"qkv": (width, 3 * width), "proj": (width, width), "fc1": (width, 4 * width), "fc2": (4 * width, width)}
        for name, (k, n) in sizes.items():
            rate = product_rate(work.clock, work.device, (batch * tokens, k, n), dtype)
            values[name] = rate / 1e12
            spent += k * n / rate
        together = sum(k * n for k, n in sizes.values()) / spent
        values["together"] = together / 1e12
        work.remember({"linear": together})
    with work.measuring("attention, bf16, TFLOP/s") as values:
        values |= {"images": batch, "tokens": tokens, "heads": heads}
        # As timm's blocks hand them over: three views of one projection.
        qkv = torch.randn(batch, tokens, 3, heads, width // heads, device=work.device, dtype=dtype).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        values["chosen"] = attention_rate(work.clock, q, k, v, None)
        work.remember({"attention": 1e12 * float(values["chosen"])})
        for name, backend in BACKENDS.items():
            if name == "math" and not work.dry:
                continue  # it would hold every weight: 26 GB
            values[name] = attention_by(work.clock, q, k, v, backend)
        rates = {name: rate for name, rate in values.items() if name in BACKENDS and isinstance(rate, float)}
        if rates:
            values["fastest"] = max(rates, key=lambda name: rates[name])
        work.remember({"attention_best": 1e12 * max(float(values["chosen"]), *rates.values())})


def attention_by(clock: Clock, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backend: SDPBackend) -> float | str:
    """``attention_rate`` by one of torch's programs only; or that it cannot be had for such tensors."""
    try:
        return attention_rate(clock, q, k, v, [backend])
    except torch.OutOfMemoryError:
        return FULL
    except RuntimeError as error:  # torch says "No available kernel"; what cuDNN has to say is of many kinds
        return f"no ({str(error).splitlines()[0][:60]})"


def attention_rate(clock: Clock, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backends: Sequence[SDPBackend] | None) -> float:
    """TFLOP/s of attention over all tokens of (b, heads, n, d), the best of several; by torch's own choice if ``backends`` is None."""
    batch, heads, tokens, channels = q.shape

    def attend() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    with torch.inference_mode():
        if backends is None:
            seconds = clock.time(attend, repeat=5, warm=2).least
        else:
            with sdpa_kernel(list(backends)):
                seconds = clock.time(attend, repeat=5, warm=2).least
    return 4 * batch * heads * tokens**2 * channels / seconds / 1e12
