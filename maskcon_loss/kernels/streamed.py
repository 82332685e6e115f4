r"""The loss and its gradient in one pass over the memory, a chunk of keys at a time: plain PyTorch, any device.

Shapes: B rows in the batch, K rows in the memory, C rows in a chunk, D features. The own key is column 0.

Each row of targets sums to 1, so eq. (3) and its gradient come from sums over the memory alone:

    L_i             = log sum_j exp(s_ij) - sum_j t_ij s_ij            s_ij = q_i . m_j / T
    T dL_i / dq_i   = sum_j p_ij m_j      - sum_j t_ij m_j             p_i  = softmax(s_i)

and sum_j t_ij s_ij = q_i . (sum_j t_ij m_j) / T. Both sums of m_j are attention outputs: keys and values are the
memory; the queries are q with temperature T, and k with temperature T' and the mask. Running maxima rescale what was
summed before whenever a larger term arrives, as in flash attention. The gradient is ready when the forward pass ends,
and the memory is not needed again.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from maskcon_loss._batch import Batch


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
    query_BD, key_BD = batch.query / temperature, batch.key
    own_B = (query_BD * key_BD).sum(1)
    top_B = own_B  # max_j s_ij, begun with the own key; the sums run over the memory alone:
    e_sum_B, e_pulled_BD = torch.zeros_like(own_B), torch.zeros_like(key_BD)  # of exp(s_ij - top_i) and that times m_j
    nearest_B = torch.full_like(own_B, _lowest(own_B))  # max_j k_i . m_j in the class, begun with nobody
    z_sum_B, z_pulled_BD = torch.zeros_like(own_B), torch.zeros_like(key_BD)  # of z_ij and z_ij m_j

    for _, memory_CD, seen_BC, same_BC in _chunks(batch):
        s_BC = _logits(query_BD, memory_CD, seen_BC)
        top_now_B = torch.maximum(top_B, s_BC.amax(1))
        shrink_B = torch.exp(top_B - top_now_B)
        e_BC = s_BC.sub_(top_now_B.unsqueeze(1)).exp_()
        top_B, e_sum_B = top_now_B, e_sum_B * shrink_B + e_BC.sum(1)
        if with_gradient:
            e_pulled_BD = torch.addmm(e_pulled_BD * shrink_B.unsqueeze(1), e_BC, memory_CD)
        if weight > 0:
            similarity_BC = _similarities(key_BD, memory_CD, same_BC)
            nearest_now_B = torch.maximum(nearest_B, similarity_BC.amax(1))
            shrink_B = torch.exp((nearest_B - nearest_now_B) / target_temperature)
            z_BC = _weights(similarity_BC, nearest_now_B, same_BC, target_temperature)
            nearest_B, z_sum_B = nearest_now_B, z_sum_B * shrink_B + z_BC.sum(1)
            z_pulled_BD = torch.addmm(z_pulled_BD * shrink_B.unsqueeze(1), z_BC, memory_CD)

    share_B = weight / (1.0 + z_sum_B)  # of one unit of z in the targets, eq. (2)
    t_own_B, t_memory_B, t_pulled_BD = share_B + (1.0 - weight), share_B * z_sum_B, z_pulled_BD * share_B.unsqueeze(1)
    e_own_B = torch.exp(own_B - top_B)
    sum_B = e_own_B + e_sum_B
    # log sum_j exp(s_ij) - sum_j t_ij s_ij with the top taken off all logits, so that a small loss keeps its digits
    loss_B = (
        torch.log1p(e_own_B - 1.0 + e_sum_B)
        + t_own_B * (top_B - own_B)
        + (t_memory_B * top_B - (query_BD * t_pulled_BD).sum(1))
    )
    by_own_B = t_memory_B - e_sum_B / sum_B  # p_i0 - t_i0, as both rows sum to 1
    if with_gradient:
        by_query_BD = by_own_B.unsqueeze(1) * key_BD + (e_pulled_BD / sum_B.unsqueeze(1) - t_pulled_BD)
        by_query_BD = (by_query_BD / temperature).contiguous()
    else:
        by_query_BD = key_BD.new_empty(0, key_BD.shape[1])
    return loss_B, by_query_BD, by_own_B, torch.stack([top_B, sum_B, nearest_B, share_B], dim=1)


def memory_gradient(
    batch: Batch,
    upstream_B: Tensor,
    statistics_B4: Tensor,
    weight: float,
    temperature: float,
    target_temperature: float,
) -> Tensor:
    """The gradient of sum_i upstream_i L_i by the memory, (K, D): sum_i upstream_i (p_ij - t_ij) q_i / T."""
    query_BD, key_BD = batch.query / temperature, batch.key
    top_B, sum_B, nearest_B, share_B = statistics_B4.unbind(1)
    gradient_KD = query_BD.new_empty(batch.memory.shape)
    for chunk, memory_CD, seen_BC, same_BC in _chunks(batch):
        s_BC = _logits(query_BD, memory_CD, seen_BC)
        by_logit_BC = s_BC.sub_(top_B.unsqueeze(1)).exp_().div_(sum_B.unsqueeze(1))
        if weight > 0:
            z_BC = _weights(_similarities(key_BD, memory_CD, same_BC), nearest_B, same_BC, target_temperature)
            by_logit_BC.sub_(z_BC.mul_(share_B.unsqueeze(1)))
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


def _similarities(key_BD: Tensor, memory_CD: Tensor, same_BC: Tensor) -> Tensor:
    return (key_BD @ memory_CD.mT).masked_fill_(~same_BC, _lowest(key_BD))


def _weights(similarity_BC: Tensor, nearest_B: Tensor, same_BC: Tensor, target_temperature: float) -> Tensor:
    """Z of eq. (1). Similarities outside the class were set low but finite, so T' may be infinite."""
    z_BC = similarity_BC.sub_(nearest_B.unsqueeze(1)).div_(target_temperature).exp_()
    return z_BC.masked_fill_(~same_BC, 0.0)


def _lowest(like: Tensor) -> float:
    """Below every similarity, and finite also after another one is subtracted."""
    return torch.finfo(like.dtype).min / 2
