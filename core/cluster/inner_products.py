"""Inner products in float64 that come out bit for bit the same on every machine, and fast.

A compiled sum is either slow (one addition after another, in source order) or, with ``fastmath``, fast in an order
that depends on the width of the machine's vectors, so that its last bits differ between machines. Here the order is
part of the definition: 32 lanes, element ``k`` is added to lane ``k mod 32``, and the lanes are added up by halving
(lane ``i`` + lane ``i + 16``, then ``i + 8``, …). LLVM maps the lanes onto whatever registers there are (two doubles
wide or eight) without a licence to reorder, and nothing allows it to contract a multiplication and an addition into
one. numba does not vectorise the same thing written as a Python loop, hence the intrinsics. In single precision there
are 64 lanes.
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
SINGLE_LANES = 64  # the same, in float32

_DOUBLE, _FLOAT, _INDEX, _PICK = ir.DoubleType(), ir.FloatType(), ir.IntType(64), ir.IntType(32)


def _rows(context: Any, builder: Any, kind: Any, value: Any, indices: Any, zeros: Any = None) -> tuple[Any, list[Any]]:
    """The length of the rows of an array, and where the given ones start: at ``zeros`` for a negative one, if given."""
    table = context.make_array(kind)(context, builder, value)
    length = builder.extract_value(table.shape, 1)
    wide = [builder.sext(row, _INDEX) if row.type.width < 64 else row for row in indices]
    starts = [builder.gep(table.data, [builder.mul(row, length)]) for row in wide]
    if zeros is not None:
        missing = [builder.icmp_signed("<", row, ir.Constant(_INDEX, 0)) for row in wide]
        starts = [builder.select(none, zeros, start) for none, start in zip(missing, starts, strict=True)]
    return length, starts


def _type(element: Any, lanes: int) -> Any:
    return ir.VectorType(element, lanes) if lanes > 1 else element


def _at(builder: Any, start: Any, position: Any, lanes: int) -> Any:
    pointer = builder.gep(start, [position])
    return builder.bitcast(pointer, _type(pointer.type.pointee, lanes).as_pointer()) if lanes > 1 else pointer


def _load(builder: Any, start: Any, position: Any, lanes: int) -> Any:
    """One element, or as many as there are lanes."""
    return builder.load(_at(builder, start, position, lanes), align=8 if start.type.pointee == _DOUBLE else 4)


def _load_wide(builder: Any, starts: Any, position: Any, lanes: int) -> Any:
    """The same in float64, of one row or of the sum of two."""
    parts = [builder.fpext(_load(builder, start, position, lanes), _type(_DOUBLE, lanes)) for start in starts]
    return parts[0] if len(parts) == 1 else builder.fadd(parts[0], parts[1])


def _sum(builder: Any, length: Any, element: Any, width: int, term: Callable[[Any, int], Any]) -> Any:
    """Add up ``term(position, lanes)`` in that many lanes."""
    wide = ir.VectorType(element, width)
    lanes = cgutils.alloca_once(builder, wide)
    builder.store(ir.Constant(wide, [0.0] * width), lanes)
    blocks = builder.sdiv(length, ir.Constant(_INDEX, width))
    with cgutils.for_range(builder, blocks) as loop:
        position = builder.mul(loop.index, ir.Constant(_INDEX, width), flags=["nsw"])
        builder.store(builder.fadd(builder.load(lanes), term(position, width)), lanes)
    rest = builder.mul(blocks, ir.Constant(_INDEX, width))
    # Only this copy has its address taken, so that ``lanes`` can live in registers.
    spilled = cgutils.alloca_once(builder, wide)
    builder.store(builder.load(lanes), spilled)
    first_lane = builder.bitcast(spilled, element.as_pointer())
    with cgutils.for_range(builder, builder.sub(length, rest)) as loop:
        lane = builder.gep(first_lane, [loop.index])
        builder.store(builder.fadd(builder.load(lane), term(builder.add(rest, loop.index), 1)), lane)

    total = builder.load(spilled)
    while width > 1:
        width //= 2
        half = ir.VectorType(_PICK, width)
        blank = ir.Constant(total.type, ir.Undefined)
        low = builder.shuffle_vector(total, blank, ir.Constant(half, list(range(width))))
        high = builder.shuffle_vector(total, blank, ir.Constant(half, list(range(width, 2 * width))))
        total = builder.fadd(low, high)
    return builder.extract_element(total, ir.Constant(_PICK, 0))


def _emit_dot(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """LLVM code for ``dot``."""
    vector = context.make_array(signature.args[0])(context, builder, args[0])
    length, starts = _rows(context, builder, signature.args[1], args[1], args[2:])

    def term(position: Any, lanes: int) -> Any:
        return builder.fmul(_load(builder, vector.data, position, lanes), _load_wide(builder, starts, position, lanes))

    return _sum(builder, length, _DOUBLE, LANES, term)


def _emit_dot_split(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """LLVM code for ``dot_split``."""
    zeros = context.make_array(signature.args[1])(context, builder, args[1]).data
    length, starts = _rows(context, builder, signature.args[0], args[0], args[2:], zeros)

    def term(position: Any, lanes: int) -> Any:
        return builder.fmul(_load_wide(builder, starts[:2], position, lanes), _load_wide(builder, starts[2:], position, lanes))

    return _sum(builder, length, _DOUBLE, LANES, term)


def _emit_dot_single(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """LLVM code for ``dot_single``."""
    length, starts = _rows(context, builder, signature.args[0], args[0], args[1:])

    def term(position: Any, lanes: int) -> Any:
        return builder.fmul(_load(builder, starts[0], position, lanes), _load(builder, starts[1], position, lanes))

    return _sum(builder, length, _FLOAT, SINGLE_LANES, term)


def _emit_add_split(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """LLVM code for ``add_split``."""
    zeros = context.make_array(signature.args[1])(context, builder, args[1]).data
    length, starts = _rows(context, builder, signature.args[0], args[0], args[2:6], zeros)
    _, (to,) = _rows(context, builder, signature.args[0], args[0], args[6:])
    blocks = builder.sdiv(length, ir.Constant(_INDEX, LANES))
    rounded_off = cgutils.alloca_once_value(builder, ir.Constant(_PICK, 0))

    def add(position: Any, lanes: int) -> None:
        double, single = _type(_DOUBLE, lanes), _type(_FLOAT, lanes)
        total = builder.fadd(*(_load_wide(builder, pair, position, lanes) for pair in (starts[:2], starts[2:])))
        high = builder.fptrunc(total, single)
        low = builder.fptrunc(builder.fsub(total, builder.fpext(high, double)), single)
        builder.store(high, _at(builder, starts[0], position, lanes), align=4)
        builder.store(low, _at(builder, to, position, lanes), align=4)
        some = builder.fcmp_unordered("!=", low, ir.Constant(single, [0.0] * lanes if lanes > 1 else 0.0))
        bits = builder.bitcast(some, _PICK) if lanes > 1 else builder.zext(some, _PICK)  # as many as there are lanes
        builder.store(builder.or_(builder.load(rounded_off), bits), rounded_off)

    with cgutils.for_range(builder, blocks) as loop:
        add(builder.mul(loop.index, ir.Constant(_INDEX, LANES), flags=["nsw"]), LANES)
    rest = builder.mul(blocks, ir.Constant(_INDEX, LANES))
    with cgutils.for_range(builder, builder.sub(length, rest)) as loop:
        add(builder.add(rest, loop.index), 1)
    return builder.icmp_signed("!=", builder.load(rounded_off), ir.Constant(_PICK, 0))


def _check(name: str, rows: Any, indices: Any, **vectors: tuple[Any, Any]) -> None:
    fits = isinstance(rows, types.Array) and rows.ndim == 2 and rows.layout == "C" and rows.dtype == types.float32
    for vector, dtype in vectors.values():
        fits &= isinstance(vector, types.Array) and vector.ndim == 1 and vector.layout == "C" and vector.dtype == dtype
    if not fits or not all(index in types.signed_domain for index in indices):
        takes = [f"a contiguous {dtype} vector {vector}, " for vector, (_, dtype) in vectors.items()]
        found = (*(vector for vector, _ in vectors.values()), rows, *indices)
        raise TypingError(f"{name} takes {''.join(takes)}contiguous float32 rows and row numbers, not {found}")


@intrinsic
def _dot(typing_context: Any, x: Any, rows: Any, row: Any) -> tuple[Any, Callable[..., Any]]:
    _check("dot", rows, (row,), x=(x, types.float64))
    return types.float64(x, rows, row), _emit_dot


@intrinsic
def _dot_split(
    typing_context: Any, rows: Any, zeros: Any, one: Any, one_low: Any, other: Any, other_low: Any
) -> tuple[Any, Callable[..., Any]]:
    _check("dot_split", rows, (one, one_low, other, other_low), zeros=(zeros, types.float32))
    return types.float64(rows, zeros, one, one_low, other, other_low), _emit_dot_split


@intrinsic
def _dot_single(typing_context: Any, rows: Any, one: Any, other: Any) -> tuple[Any, Callable[..., Any]]:
    _check("dot_single", rows, (one, other))
    return types.float32(rows, one, other), _emit_dot_single


@intrinsic
def _add_split(
    typing_context: Any, rows: Any, zeros: Any, one: Any, one_low: Any, other: Any, other_low: Any, to: Any
) -> tuple[Any, Callable[..., Any]]:
    _check("add_split", rows, (one, one_low, other, other_low, to), zeros=(zeros, types.float32))
    return types.boolean(rows, zeros, one, one_low, other, other_low, to), _emit_add_split


# Typed as Any because a caller leaves out the typing context, which numba's annotations do not tell.
dot: Any = _dot
"""``dot(x, rows, row)``: Σ x[k]·rows[row, k] in float64, in compiled code only.

``x``: (C,) float64, ``rows``: (N, C) float32, both C-contiguous; neither ``row`` nor the shapes are checked.
"""

dot_split: Any = _dot_split
"""``dot_split(rows, zeros, one, one_low, other, other_low)``: inner product of two vectors kept in two rows each.

Σ (rows[one, k] + rows[one_low, k])·(rows[other, k] + rows[other_low, k]) as ``dot``. A negative row is one of zeros:
``zeros``, (C,) float32, which saves a branch for each of the four.
"""

dot_single: Any = _dot_single
"""``dot_single(rows, one, other)``: Σ rows[one, k]·rows[other, k] as ``dot``, but in float32 and in 64 lanes."""

add_split: Any = _add_split
"""``add_split(rows, zeros, one, one_low, other, other_low, to)``: add the second vector kept in two rows to the first.

The sums in float64 are rounded into row ``one``, what that rounds off into row ``to``, which may be one of the others.
Returns whether anything was rounded off.
"""
