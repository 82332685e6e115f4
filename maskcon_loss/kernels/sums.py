r"""Sums over the memory, taken piece by piece, and the loss and gradient that come out of them.

Shapes: B rows in the batch, C rows in a piece of the memory, D features. The own key is column 0.

Each row of targets sums to 1, so eq. (3) and its gradient need sums over the memory alone:

    L_i             = log sum_j exp(s_ij) - sum_j t_ij s_ij            s_ij = q_i . m_j / T
    T dL_i / dq_i   = sum_j p_ij m_j      - sum_j t_ij m_j             p_i  = softmax(s_i)

and sum_j t_ij s_ij = q_i . (sum_j t_ij m_j) / T. Both sums of m_j are attention outputs: keys and values are the
memory; the queries are q with temperature T, and k with temperature T' and the mask. The gradient is ready when the
forward pass ends, and the memory is not needed again.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Sums(NamedTuple):
    """Of the rows met so far: the largest x, and the sums of exp(x - top) and of exp(x - top) m."""

    top_B: Tensor
    total_B: Tensor
    pulled_BD: Tensor

    @staticmethod
    def of_nothing(top_B: Tensor, like_BD: Tensor) -> "Sums":
        """Of no rows, with the least top there shall be."""
        return Sums(top_B, torch.zeros_like(top_B), like_BD.new_zeros(like_BD.shape))

    @staticmethod
    def of(x_BC: Tensor, memory_CD: Tensor, pull: bool = True) -> "Sums":
        """Of one piece of the memory. Columns at minus infinity do not count; x is overwritten."""
        top_B = x_BC.amax(1).clamp_(min=torch.finfo(x_BC.dtype).min)  # finite also where no column counts
        weights_BC = x_BC.sub_(top_B.unsqueeze(1)).exp_()
        pulled_BD = weights_BC @ memory_CD if pull else x_BC.new_zeros(x_BC.shape[0], memory_CD.shape[1])
        return Sums(top_B, weights_BC.sum(1), pulled_BD)

    def join(self, other: "Sums") -> "Sums":
        """Of the rows of both: what had a smaller top shrinks, as in flash attention."""
        top_B = torch.maximum(self.top_B, other.top_B)
        mine_B, others_B = torch.exp(self.top_B - top_B), torch.exp(other.top_B - top_B)
        pulled_BD = self.pulled_BD * mine_B.unsqueeze(1) + other.pulled_BD * others_B.unsqueeze(1)
        return Sums(top_B, self.total_B * mine_B + other.total_B * others_B, pulled_BD)


def finish(
    query_BD: Tensor, key_BD: Tensor, own_B: Tensor, logits: Sums, similar: Sums, weight: float, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss (B,), its gradients by the query (B, D) and by the own logit (B,), and `statistics` (B, 4).

    ``own_B`` is s_i0; ``logits`` are the sums of s_ij over the memory, with a top of at least s_i0; ``similar`` those
    of k_i . m_j / T' over the class.
    """
    share_B = weight / (1.0 + similar.total_B)  # of one unit of z in the targets, eq. (2)
    t_own_B, t_memory_B = share_B + (1.0 - weight), share_B * similar.total_B
    t_pulled_BD = similar.pulled_BD * share_B.unsqueeze(1)
    e_own_B = torch.exp(own_B - logits.top_B)
    total_B = e_own_B + logits.total_B
    # log sum_j exp(s_ij) - sum_j t_ij s_ij with the top taken off all logits, so that a small loss keeps its digits
    loss_B = (
        torch.log1p(e_own_B - 1.0 + logits.total_B)
        + t_own_B * (logits.top_B - own_B)
        + (t_memory_B * logits.top_B - (query_BD * t_pulled_BD).sum(1) / temperature)
    )
    # p_i0 - t_i0; where the own key dominates as the rest less the rest, as both rows sum to 1: no digits cancel
    by_own_B = torch.where(e_own_B < logits.total_B, e_own_B / total_B - t_own_B, t_memory_B - logits.total_B / total_B)
    by_query_BD = by_own_B.unsqueeze(1) * key_BD + (logits.pulled_BD / total_B.unsqueeze(1) - t_pulled_BD)
    statistics_B4 = torch.stack([logits.top_B, total_B, similar.top_B, share_B], dim=1)
    return loss_B, (by_query_BD / temperature).contiguous(), by_own_B, statistics_B4
