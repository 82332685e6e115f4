"""The sums of `kernels/sums.py` in Triton: one attention kernel, used for the logits and for the targets, and one
kernel that joins the parts of each row and finishes its loss and gradient. `kernels/cuda.py` launches them.

Shapes: R rows of the batch and C keys of the memory in a tile, D features; P parts of a row's keys.
"""
# The language of kernels looks like Python and has other types.
# pyright: reportPossiblyUnboundVariable=false, reportIndexIssue=false, reportArgumentType=false, reportOperatorIssue=false

import math

import triton
import triton.language as tl

from maskcon_loss._batch import EMPTY

_EMPTY = tl.constexpr(EMPTY)
_LOWEST = tl.constexpr(-3.0e38)  # a top that is finite where no key counts
_LOG2_E, _LN_2 = tl.constexpr(math.log2(math.e)), tl.constexpr(math.log(2.0))


@triton.jit(do_not_specialize=["rows", "keys"])
def sums_kernel(
    vectors, labels, ids, own_rows, memory, memory_labels, memory_ids, spans, tops, totals, pulls,
    rows, keys, vector_stride, memory_stride, scale,
    D: tl.constexpr, WIDTH: tl.constexpr, SLICE: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
    PRECISION: tl.constexpr, LIFT: tl.constexpr, PULL: tl.constexpr,
    OWN_CLASS: tl.constexpr, SORTED: tl.constexpr, HAS_IDS: tl.constexpr, IN_BATCH: tl.constexpr,
):  # fmt: skip
    """Of R rows and one part of the keys: the top of x = scale v . m, and the sums of 2^(x - top) and 2^(x - top) m.

    With SORTED, rows and keys lie in the order of their labels, and the rows of a tile need one span of the keys. LIFT
    keeps small weights above what float16 rounds away. SLICE < WIDTH reads the vectors again and again, a few columns
    at a time, where registers do not hold them.
    """
    tile, part = tl.program_id(0), tl.program_id(1)
    rows_R = tile * R + tl.arange(0, R)
    inside_R = rows_R < rows
    columns_D, columns_S = tl.arange(0, WIDTH), tl.arange(0, SLICE)
    inside_D = columns_D < D
    start_R1 = (vectors + rows_R.to(tl.int64) * vector_stride)[:, None]
    if SLICE == WIDTH:
        vectors_RD = tl.load(start_R1 + columns_D, mask=inside_R[:, None] & inside_D, other=0.0)
    if OWN_CLASS:
        labels_R = tl.load(labels + rows_R, mask=inside_R, other=-1)
    if HAS_IDS:
        ids_R = tl.load(ids + rows_R, mask=inside_R, other=-1)
    if IN_BATCH:
        own_R = tl.load(own_rows + rows_R, mask=inside_R, other=-1)

    first, end = 0, keys
    if SORTED:
        first, end = tl.load(spans + 2 * tile).to(tl.int32), tl.load(spans + 2 * tile + 1).to(tl.int32)
    share = tl.cdiv(tl.cdiv(end - first, C), tl.num_programs(1)) * C
    first += part * share
    end = tl.minimum(first + share, end)

    offsets_C1 = tl.arange(0, C)[:, None] * memory_stride
    top_R = tl.full((R,), _LOWEST, tl.float32)
    total_R = tl.zeros((R,), tl.float32)
    pulled_RD = tl.zeros((R, WIDTH), tl.float32)
    for start in range(first, end, C):
        keys_C = start + tl.arange(0, C)
        labels_C = tl.load(memory_labels + keys_C, mask=keys_C < end, other=_EMPTY)
        exists_C = labels_C != _EMPTY
        start_C1 = memory + tl.cast(start, tl.int64) * memory_stride + offsets_C1
        memory_CD = tl.load(start_C1 + columns_D, mask=exists_C[:, None] & inside_D, other=0.0)

        if SLICE == WIDTH:
            x_RC = tl.dot(vectors_RD, tl.trans(memory_CD), input_precision=PRECISION) * scale
        else:
            x_RC = tl.zeros((R, C), tl.float32)
            for column in range(0, WIDTH, SLICE):
                inside_S = column + columns_S < D
                vectors_RS = tl.load(start_R1 + column + columns_S, mask=inside_R[:, None] & inside_S, other=0.0)
                memory_CS = tl.load(start_C1 + column + columns_S, mask=exists_C[:, None] & inside_S, other=0.0)
                x_RC = tl.dot(vectors_RS, tl.trans(memory_CS), x_RC, input_precision=PRECISION)
            x_RC *= scale
        counts_RC = exists_C[None, :]
        if OWN_CLASS:
            counts_RC = counts_RC & (labels_R[:, None] == labels_C) & (labels_R >= 0)[:, None]
        if HAS_IDS:
            ids_C = tl.load(memory_ids + keys_C, mask=keys_C < end, other=-1)
            counts_RC = counts_RC & ((ids_R[:, None] != ids_C) | (ids_R < 0)[:, None])
        if IN_BATCH:
            counts_RC = counts_RC & (own_R[:, None] != keys_C)
        x_RC = tl.where(counts_RC, x_RC, float("-inf"))

        higher_R = tl.maximum(top_R, tl.max(x_RC, 1))
        shrink_R = tl.exp2(top_R - higher_R)
        weights_RC = tl.exp2(x_RC - higher_R[:, None] + LIFT)
        total_R = total_R * shrink_R + tl.sum(weights_RC, 1)
        if PULL:
            pulled_RD *= shrink_R[:, None]
            pulled_RD = tl.dot(weights_RC.to(memory_CD.dtype), memory_CD, pulled_RD, input_precision=PRECISION)
        top_R = higher_R

    lower = tl.exp2(-1.0 * LIFT)
    part_R = part.to(tl.int64) * rows + rows_R
    tl.store(tops + part_R, top_R, mask=inside_R)
    tl.store(totals + part_R, total_R * lower, mask=inside_R)
    if PULL:
        tl.store(pulls + part_R[:, None] * D + columns_D, pulled_RD * lower, mask=inside_R[:, None] & inside_D)


@triton.jit(do_not_specialize=["rows", "logit_parts", "similar_parts"])
def finish_kernel(
    query, key, logit_tops, logit_totals, logit_pulls, logit_parts,
    similar_tops, similar_totals, similar_pulls, similar_parts, places,
    losses, by_query, by_own, statistics, rows, query_stride, key_stride, weight, temperature,
    D: tl.constexpr, WIDTH: tl.constexpr, P: tl.constexpr,
    HAS_TARGETS: tl.constexpr, SORTED: tl.constexpr, GRADIENT: tl.constexpr,
):  # fmt: skip
    """`finish` of `kernels/sums.py` for one row, step by step, from logits in units of log 2."""
    row = tl.program_id(0).to(tl.int64)
    columns_D = tl.arange(0, WIDTH)
    inside_D = columns_D < D
    query_D = tl.load(query + row * query_stride + columns_D, mask=inside_D, other=0.0).to(tl.float32)
    key_D = tl.load(key + row * key_stride + columns_D, mask=inside_D, other=0.0).to(tl.float32)

    own = tl.sum(query_D * key_D, 0) * (_LOG2_E / temperature)
    top, total, pulled_D = _joined(
        logit_tops, logit_totals, logit_pulls, own, row, rows, logit_parts, D, WIDTH, P, GRADIENT
    )
    nearest, t_total, t_pulled_D = _LOWEST, 0.0, tl.zeros((WIDTH,), tl.float32)
    if HAS_TARGETS:
        place = tl.load(places + row) if SORTED else row
        nearest, t_total, t_pulled_D = _joined(
            similar_tops, similar_totals, similar_pulls, nearest, place, rows, similar_parts, D, WIDTH, P, True
        )
    share = weight / (1.0 + t_total)
    t_own, t_memory = share + (1.0 - weight), share * t_total
    t_pulled_D *= share
    e_own = tl.exp2(own - top)
    others = total
    total = e_own + others
    loss = (
        _log1p(e_own - 1.0 + others)
        + t_own * ((top - own) * _LN_2)
        + (t_memory * (top * _LN_2) - tl.sum(query_D * t_pulled_D, 0) / temperature)
    )
    own_gradient = tl.where(e_own < others, e_own / total - t_own, t_memory - others / total)
    tl.store(losses + row, loss)
    tl.store(by_own + row, own_gradient)
    tl.store(statistics + 4 * row, top * _LN_2)
    tl.store(statistics + 4 * row + 1, total)
    tl.store(statistics + 4 * row + 2, nearest * _LN_2)
    tl.store(statistics + 4 * row + 3, share)
    if GRADIENT:
        gradient_D = (own_gradient * key_D + (pulled_D / total - t_pulled_D)) / temperature
        tl.store(by_query + row * D + columns_D, gradient_D, mask=inside_D)


@triton.jit
def _joined(
    tops, totals, pulls, least, row, rows, parts, D: tl.constexpr, WIDTH: tl.constexpr, P: tl.constexpr,
    PULL: tl.constexpr,
):  # fmt: skip
    """The parts of one row as one, with a top of at least `least`."""
    top = least
    for start in range(0, parts, P):
        parts_P = start + tl.arange(0, P)
        tops_P = tl.load(tops + parts_P * rows + row, mask=parts_P < parts, other=_LOWEST)
        top = tl.maximum(top, tl.max(tops_P, 0))
    total = 0.0
    pulled_D = tl.zeros((WIDTH,), tl.float32)
    columns_D = tl.arange(0, WIDTH)
    for start in range(0, parts, P):
        parts_P = start + tl.arange(0, P)
        inside_P = parts_P < parts
        part_P = parts_P.to(tl.int64) * rows + row
        tops_P = tl.load(tops + part_P, mask=inside_P, other=_LOWEST)
        weights_P = tl.where(inside_P, tl.exp2(tops_P - top), 0.0)
        total += tl.sum(weights_P * tl.load(totals + part_P, mask=inside_P, other=0.0), 0)
        if PULL:
            inside_PD = inside_P[:, None] & (columns_D < D)[None, :]
            pulls_PD = tl.load(pulls + part_P[:, None] * D + columns_D[None, :], mask=inside_PD, other=0.0)
            pulled_D += tl.sum(weights_P[:, None] * pulls_PD, 0)
    return top, total, pulled_D


@triton.jit
def _log1p(x):
    """log(1 + x) for x >= 0 that keeps the digits of a small x: a series of 2 artanh(x / (2 + x))."""
    z = x / (2.0 + x)
    y = z * z
    series = 2.0 * z * (1.0 + y * (1 / 3 + y * (1 / 5 + y * (1 / 7 + y * (1 / 9)))))
    return tl.where(x < 0.25, series, tl.log(1.0 + x))
