"""The sums of `kernels/sums.py` on a processor, for less than two products of query and memory.

The logits' sums come from PyTorch's own flash attention, which keeps its tiles in the cache. The targets' sums need
only the keys of the own class, so rows and keys are taken in the order of their labels: 1 / C of it for C classes.

Shapes: B rows in the batch, K rows in the memory, D features, R rows in a group, C keys in a piece.
"""

import math
from collections.abc import Iterator
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from maskcon_loss._batch import Batch
from maskcon_loss.kernels.sums import Sums

#: Private to PyTorch, so it is looked for: without it the chunks of `kernels/streamed.py` do the work.
_flash = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

LEAST_KEYS = 1024  # below, sorting and grouping cost more than they save
KEYS_AT_ONCE = 8192  # of the memory, copied where some of them do not count or are stored in another precision
MASKED = 250_000  # multiplications for nothing that cost less than a product of their own
TILE, PIECE = 2**19, 4096  # numbers in the similarities of a group and a piece, and keys in a piece, at the most


def applies(batch: Batch) -> bool:
    """Whether the batch is on a processor, with a memory of its own that is worth it."""
    return (
        _flash is not None
        and batch.query.device.type == "cpu"
        and batch.own_rows is None
        and batch.query.shape[0] > 0
        and batch.memory.shape[0] >= LEAST_KEYS
    )


def split(batch: Batch) -> tuple[Tensor, Tensor]:
    """Numbers of the memory rows that all of the batch meets, and of those that some row must not (a stale key)."""
    exists_K = batch.exists()
    stale_K = torch.zeros_like(exists_K)
    if batch.ids is not None and batch.memory_ids is not None:
        ids_B = batch.ids[batch.ids >= 0].sort().values
        if ids_B.numel():
            place_K = torch.searchsorted(ids_B, batch.memory_ids).clamp_(max=ids_B.numel() - 1)
            stale_K = (ids_B[place_K] == batch.memory_ids) & exists_K
    return (exists_K & ~stale_K).nonzero().squeeze(1), stale_K.nonzero().squeeze(1)


def logit_sums(batch: Batch, rows: Tensor, temperature: float) -> Sums:
    """The sums of s_ij = q_i . m_j / T over these rows of the memory."""
    flash, all_rows = _flash, rows.shape[0] == batch.memory.shape[0]
    assert flash is not None
    query = batch.query.contiguous()[None, None]  # the operator reads other strides wrongly, without a word

    def piece(start: int) -> Sums:
        part = slice(start, start + KEYS_AT_ONCE)
        memory_CD = batch.memory[part] if all_rows else batch.memory.index_select(0, rows[part])
        keys = memory_CD.to(query.dtype).contiguous()[None, None]
        mean, log_sum = flash(query, keys, keys, 0.0, False, scale=1.0 / temperature)
        log_sum_B = log_sum[0, 0].to(query.dtype)
        return Sums(log_sum_B, torch.ones_like(log_sum_B), mean[0, 0])

    return reduce(Sums.join, map(piece, range(0, rows.shape[0], KEYS_AT_ONCE)))


def similarity_sums(batch: Batch, rows: Tensor, target_temperature: float) -> Sums:
    """The sums of k_i . m_j / T' over those of these rows of the memory that share the class of row i.

    Rows and keys in the order of their labels make the mask a chain of blocks, and only the blocks are computed. With
    labels 0 0 1 2 in the batch and 0 1 1 1 2 2 in the memory, and the classes 1 and 2 too small for a product each:

        0 | x . . . . .      first group: rows 0 to 1, keys 0 to 0
        0 | x . . . . .
        1 | . x x x - -      second group: rows 2 to 3, keys 1 to 5, of which those at "-" are masked
        2 | . - - - x x
    """
    order_B, order_K = _order(batch.labels), _order(batch.memory_labels.index_select(0, rows))
    rows = rows.index_select(0, order_K)
    labels_B, labels_K = batch.labels.index_select(0, order_B), batch.memory_labels.index_select(0, rows)
    key_BD = batch.key.index_select(0, order_B)
    if target_temperature != math.inf:
        key_BD = key_BD / target_temperature
    room_CD = batch.memory.new_empty(PIECE, key_BD.shape[1])  # of its own, as fresh memory costs more than the copy

    groups = []
    for mine, span in _groups(labels_B, labels_K, key_BD.shape[1]):
        key_RD, labels_R1 = key_BD[mine], labels_B[mine].unsqueeze(1)
        found = None
        step = min(max(TILE // key_RD.shape[0], 256), PIECE)
        for start in range(span.start, span.stop, step):
            piece = slice(start, min(start + step, span.stop))
            memory_CD = torch.index_select(batch.memory, 0, rows[piece], out=room_CD[: piece.stop - piece.start])
            memory_CD = memory_CD.to(key_BD.dtype)
            if target_temperature == math.inf:
                x_RC = key_RD.new_zeros(key_RD.shape[0], memory_CD.shape[0])
            else:
                x_RC = key_RD @ memory_CD.mT
            if labels_R1[0] != labels_R1[-1]:
                x_RC.masked_fill_(labels_R1 != labels_K[piece], -math.inf)
            sums = Sums.of(x_RC, memory_CD)
            found = sums if found is None else found.join(sums)
        if found is None:
            lowest_R = key_RD.new_full((key_RD.shape[0],), torch.finfo(key_RD.dtype).min)
            found = Sums.of_nothing(lowest_R, key_RD)
        groups.append(found)
    joined = (torch.cat(parts) for parts in zip(*groups, strict=True))
    return Sums(*(torch.empty_like(part).index_copy_(0, order_B, part) for part in joined))


def _order(labels: Tensor) -> Tensor:
    """Numbers of the labels in the order of the labels; NumPy sorts 16 bits by counting, in a tenth of the time."""
    if labels.numel() and int(labels.max()) < 2**15 and int(labels.min()) >= -(2**15):
        return torch.from_numpy(np.argsort(labels.to(torch.int16).numpy(), kind="stable"))
    return labels.argsort()


def _groups(labels_B: Tensor, labels_K: Tensor, width: int) -> Iterator[tuple[slice, slice]]:
    """Of sorted labels: rows of one class, or of several where a mask costs less than more products, and their keys."""
    classes, counts = labels_B.unique_consecutive(return_counts=True)
    first = torch.searchsorted(labels_K, classes.clamp(min=0))
    end = torch.maximum(torch.searchsorted(labels_K, classes, right=True), first)  # none for unlabelled rows
    mine, span = slice(0, 0), slice(0, 0)
    for count, *keys in zip(*(each.tolist() for each in (counts, first, end)), strict=True):
        apart = (mine.stop - mine.start) * (span.stop - span.start) + count * (keys[1] - keys[0])
        together = (mine.stop - mine.start + count) * (keys[1] - span.start)
        if mine.stop and (together - apart) * width > MASKED:
            yield mine, span
            mine, span = slice(mine.stop, mine.stop), slice(keys[0], keys[0])
        elif not mine.stop:
            span = slice(keys[0], keys[0])
        mine, span = slice(mine.start, mine.stop + count), slice(span.start, keys[1])
    yield mine, span
