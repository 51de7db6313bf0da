"""Inner products in float64 that come out bit for bit the same on every machine, and fast.

A compiled sum is either slow (one addition after another, in source order) or, with ``fastmath``, fast in an order
that depends on the width of the machine's vectors, so that its last bits differ between machines. Here the order is
part of the definition: 32 lanes, element ``k`` is added to lane ``k mod 32``, and the lanes are added up by halving
(lane ``i`` + lane ``i + 16``, then ``i + 8``, …). LLVM maps the lanes onto whatever registers there are (two doubles
wide or eight) without a licence to reorder, and nothing allows it to contract a multiplication and an addition into
one. numba does not vectorise the same thing written as a Python loop, hence the intrinsics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

LANES = 32  # four chains of additions at AVX-512 width, eight at AVX2: enough to hide an addition's latency

_DOUBLE, _FLOAT, _INDEX, _PICK = ir.DoubleType(), ir.FloatType(), ir.IntType(64), ir.IntType(32)
_WIDE = ir.VectorType(_DOUBLE, LANES)


def _emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """LLVM code for Σ x[k]·y[k], y = rows[row] or rows[row] + rows[low_row] as float64."""
    vector = context.make_array(signature.args[0])(context, builder, args[0])
    table = context.make_array(signature.args[1])(context, builder, args[1])
    length = builder.extract_value(vector.shape, 0)
    starts = [builder.gep(table.data, [builder.mul(builder.sext(row, _INDEX) if row.type.width < 64 else row, length)]) for row in args[2:]]

    def product(position: Any, wide: bool) -> Any:
        def load(start: Any, element: Any, align: int) -> Any:
            pointer = builder.gep(start, [position])
            return builder.load(builder.bitcast(pointer, ir.VectorType(element, LANES).as_pointer()) if wide else pointer, align=align)

        parts = [builder.fpext(load(start, _FLOAT, 4), _WIDE if wide else _DOUBLE) for start in starts]
        return builder.fmul(load(vector.data, _DOUBLE, 8), parts[0] if len(parts) == 1 else builder.fadd(parts[0], parts[1]))

    lanes = cgutils.alloca_once(builder, _WIDE)
    builder.store(ir.Constant(_WIDE, [0.0] * LANES), lanes)
    blocks = builder.sdiv(length, ir.Constant(_INDEX, LANES))
    with cgutils.for_range(builder, blocks) as loop:
        position = builder.mul(loop.index, ir.Constant(_INDEX, LANES), flags=["nsw"])
        builder.store(builder.fadd(builder.load(lanes), product(position, wide=True)), lanes)
    rest = builder.mul(blocks, ir.Constant(_INDEX, LANES))
    # Only this copy has its address taken, so that ``lanes`` can live in registers.
    spilled = cgutils.alloca_once(builder, _WIDE)
    builder.store(builder.load(lanes), spilled)
    first_lane = builder.bitcast(spilled, _DOUBLE.as_pointer())
    with cgutils.for_range(builder, builder.sub(length, rest)) as loop:
        lane = builder.gep(first_lane, [loop.index])
        builder.store(builder.fadd(builder.load(lane), product(builder.add(rest, loop.index), wide=False)), lane)

    total, width = builder.load(spilled), LANES
    while width > 1:
        width //= 2
        half = ir.VectorType(_PICK, width)
        blank = ir.Constant(total.type, ir.Undefined)
        low = builder.shuffle_vector(total, blank, ir.Constant(half, list(range(width))))
        high = builder.shuffle_vector(total, blank, ir.Constant(half, list(range(width, 2 * width))))
        total = builder.fadd(low, high)
    return builder.extract_element(total, ir.Constant(_PICK, 0))


def _check(name: str, x: Any, rows: Any, *indices: Any) -> None:
    fits = isinstance(x, types.Array) and x.ndim == 1 and x.layout == "C" and x.dtype == types.float64
    fits &= isinstance(rows, types.Array) and rows.ndim == 2 and rows.layout == "C" and rows.dtype == types.float32
    if not fits or not all(index in types.signed_domain for index in indices):
        raise TypingError(f"{name} takes a contiguous float64 vector, contiguous float32 rows and row numbers, not {(x, rows, *indices)}")


@intrinsic
def _dot(typing_context: Any, x: Any, rows: Any, row: Any) -> tuple[Any, Callable[..., Any]]:
    _check("dot", x, rows, row)
    return types.float64(x, rows, row), _emit


@intrinsic
def _dot_split(typing_context: Any, x: Any, rows: Any, row: Any, low_row: Any) -> tuple[Any, Callable[..., Any]]:
    _check("dot_split", x, rows, row, low_row)
    return types.float64(x, rows, row, low_row), _emit


# Typed as Any because a caller leaves out the typing context, which numba's annotations do not tell.
dot: Any = _dot
"""``dot(x, rows, row)``: Σ x[k]·rows[row, k] in float64, in compiled code only.

``x``: (C,) float64, ``rows``: (N, C) float32, both C-contiguous; neither ``row`` nor the shapes are checked.
"""

dot_split: Any = _dot_split
"""``dot_split(x, rows, row, low_row)``: Σ x[k]·(rows[row, k] + rows[low_row, k]), as ``dot``, of a vector kept in two parts."""
