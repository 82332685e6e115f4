"""The loss and its gradient in one pass over the memory, a chunk of keys at a time: plain PyTorch, any device.

Shapes: B rows in the batch, K rows in the memory, C rows in a chunk, D features. The sums that are taken, and why they
are enough, stand in `kernels/sums.py`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from maskcon_loss._batch import Batch
from maskcon_loss.kernels import cpu
from maskcon_loss.kernels.sums import Sums, finish


def chunk_rows(rows: int, device: torch.device) -> int:
    """C: as many keys as keep a (B, C) tile in a processor's cache, or a GPU busy."""
    tile = 2**19 if device.type == "cpu" else 2**24
    return min(max(tile // max(rows, 1), 256), 2**16)


def contrast(
    batch: Batch, weight: float, temperature: float, target_temperature: float, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What eq. (3) and its gradients need, per row.

    Returns:
        The loss (B,); its gradient by the query (B, D), or (0, D) without a gradient; its gradient by the own
        logit q_i . k_i (B,); and the statistics (B, 4) from which `memory_gradient` finds p and t again.
    """
    own_B = (batch.query / temperature * batch.key).sum(1)
    logits, similar = sums(batch, own_B, weight, temperature, target_temperature, with_gradient)
    loss_B, by_query_BD, by_own_B, statistics_B4 = finish(
        batch.query, batch.key, own_B, logits, similar, weight, temperature
    )
    if not with_gradient:
        by_query_BD = by_query_BD.new_empty(0, by_query_BD.shape[1])
    return loss_B, by_query_BD, by_own_B, statistics_B4


def sums(
    batch: Batch, own_B: Tensor, weight: float, temperature: float, target_temperature: float, pull: bool = True
) -> tuple[Sums, Sums]:
    """Of s_ij over the memory, with a top of at least the own logit s_i0, and, where the weight is above 0, of
    k_i . m_j / T' over the class.
    """
    query_BD, key_BD = batch.query / temperature, batch.key
    logits = Sums.of_nothing(own_B, key_BD)
    similar = Sums.of_nothing(torch.full_like(own_B, torch.finfo(own_B.dtype).min), key_BD)
    rest = batch
    if cpu.applies(batch):
        rows, left = cpu.split(batch)
        rest = batch.pick(left)
        if rows.numel():
            logits = logits.join(cpu.logit_sums(batch, rows, temperature))
            similar = cpu.similarity_sums(batch, rows, target_temperature) if weight > 0 else similar
    for _, memory_CD, seen_BC, same_BC in _chunks(rest):
        logits = logits.join(Sums.of(_logits(query_BD, memory_CD, seen_BC), memory_CD, pull=pull))
        if weight > 0:
            x_BC = _similarities(key_BD, memory_CD, same_BC, target_temperature)
            similar = similar.join(Sums.of(x_BC, memory_CD))
    return logits, similar


def memory_gradient(
    batch: Batch,
    upstream_B: Tensor,
    statistics_B4: Tensor,
    weight: float,
    temperature: float,
    target_temperature: float,
) -> Tensor:
    """The gradient of sum_i upstream_i L_i by the memory, (K, D): sum_i upstream_i (p_ij - t_ij) q_i / T."""
    query_BD = batch.query / temperature
    top_B1, total_B1, nearest_B1, share_B1 = statistics_B4.split(1, dim=1)
    gradient_KD = query_BD.new_empty(batch.memory.shape)
    for chunk, memory_CD, seen_BC, same_BC in _chunks(batch):
        by_logit_BC = _logits(query_BD, memory_CD, seen_BC).sub_(top_B1).exp_().div_(total_B1)
        if weight > 0:
            x_BC = _similarities(batch.key, memory_CD, same_BC, target_temperature)
            by_logit_BC.sub_(x_BC.sub_(nearest_B1).exp_().mul_(share_B1))
        gradient_KD[chunk] = by_logit_BC.mul_(upstream_B.unsqueeze(1)).mT @ query_BD
    return gradient_KD


def _chunks(batch: Batch) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """The memory by chunks: which rows, their vectors, who is seen, who shares the class."""
    rows = chunk_rows(batch.query.shape[0], batch.query.device)
    for start in range(0, batch.memory.shape[0], rows):
        part = batch.chunk(start, rows)
        seen = part.seen()
        yield slice(start, start + rows), part.memory_vectors(), seen, part.same_class(seen)


def _logits(query_BD: Tensor, memory_CD: Tensor, seen_BC: Tensor) -> Tensor:
    return (query_BD @ memory_CD.mT).masked_fill_(~seen_BC, -math.inf)


def _similarities(key_BD: Tensor, memory_CD: Tensor, same_BC: Tensor, target_temperature: float) -> Tensor:
    """k_i . m_j / T' within the class, minus infinity outside; all equal where T' is infinite."""
    if target_temperature == math.inf:
        return torch.zeros_like(same_BC, dtype=key_BD.dtype).masked_fill_(~same_BC, -math.inf)
    return (key_BD / target_temperature @ memory_CD.mT).masked_fill_(~same_BC, -math.inf)
