"""The sums of `kernels/sums.py` on a processor, for less than two products of query and memory.

The logits' sums come from PyTorch's own flash attention, which keeps its tiles in the cache. The targets' sums need
only the keys of the own class, so rows and keys are taken in the order of their labels: 1 / C of it for C classes.

Shapes: B rows in the batch, K rows in the memory, D features, R rows in a group, C keys in a piece.
"""

import math
from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from maskcon_loss._batch import Batch
from maskcon_loss.kernels.sums import Sums

#: Private to PyTorch, so it is looked for: without it the chunks of `kernels/streamed.py` do the work.
_flash = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

LEAST_KEYS = 1024  # below, sorting and grouping cost more than they save
KEYS_AT_ONCE = 8192  # of the memory, copied where some of them do not count or are stored in another precision
LEAST_GROUP = 16  # rows that are worth a product of their own
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
    assert _flash is not None
    all_rows = rows.shape[0] == batch.memory.shape[0]
    query = batch.query.contiguous()[None, None]  # the operator reads other strides wrongly, without a word
    pieces = []
    for start in range(0, rows.shape[0], KEYS_AT_ONCE):
        part = slice(start, start + KEYS_AT_ONCE)
        memory_CD = batch.memory[part] if all_rows else batch.memory.index_select(0, rows[part])
        keys = memory_CD.to(query.dtype).contiguous()[None, None]
        mean, log_sum = _flash(query, keys, keys, 0.0, False, scale=1.0 / temperature)
        log_sum_B = log_sum[0, 0].to(query.dtype)
        pieces.append(Sums(log_sum_B, torch.ones_like(log_sum_B), mean[0, 0]))
    return reduce(Sums.join, pieces)


def similarity_sums(batch: Batch, rows: Tensor, target_temperature: float) -> Sums:
    """The sums of k_i . m_j / T' over those of these rows of the memory that share the class of row i."""
    labels_B, order_B = batch.labels.sort()
    labels_K, order_K = batch.memory_labels.index_select(0, rows).sort()
    rows = rows.index_select(0, order_K)
    key_BD = batch.key.index_select(0, order_B)
    if target_temperature != math.inf:
        key_BD = key_BD / target_temperature

    groups = []
    for mine, spans in _groups(labels_B, labels_K):
        key_RD, labels_R1 = key_BD[mine], labels_B[mine].unsqueeze(1)
        keys = [torch.arange(span.start, span.stop) for span in spans]
        pieces = []
        for piece in torch.cat(keys).split(min(max(TILE // key_RD.shape[0], 256), PIECE)) if keys else ():
            memory_CD = batch.memory.index_select(0, rows[piece]).to(key_BD.dtype)
            if target_temperature == math.inf:
                x_RC = key_RD.new_zeros(key_RD.shape[0], piece.shape[0])
            else:
                x_RC = key_RD @ memory_CD.mT
            if labels_R1[0] != labels_R1[-1]:
                x_RC.masked_fill_(labels_R1 != labels_K[piece], -math.inf)
            pieces.append(Sums.of(x_RC, memory_CD))
        if not pieces:
            lowest_R = key_RD.new_full((key_RD.shape[0],), torch.finfo(key_RD.dtype).min)
            pieces.append(Sums.of_nothing(lowest_R, key_RD))
        groups.append(reduce(Sums.join, pieces))
    joined = (torch.cat(parts) for parts in zip(*groups, strict=True))
    return Sums(*(torch.empty_like(part).index_copy_(0, order_B, part) for part in joined))


def _groups(labels_B: Tensor, labels_K: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Of sorted labels: consecutive rows of the batch, of one class or several small ones, and where their keys lie."""
    classes, counts = labels_B.unique_consecutive(return_counts=True)
    first, end = torch.searchsorted(labels_K, classes), torch.searchsorted(labels_K, classes, right=True)
    start = stop = 0
    spans: list[slice] = []
    for label, count, *span in zip(*(each.tolist() for each in (classes, counts, first, end)), strict=True):
        stop += count
        if label >= 0 and span[0] < span[1]:  # an unlabelled row has no class to share
            spans.append(slice(*span))
        if stop - start >= LEAST_GROUP or stop == labels_B.shape[0]:
            yield slice(start, stop), spans
            start, spans = stop, []
