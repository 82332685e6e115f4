"""MaskCon from two calls of PyTorch's FlexAttention: what a user could write on a GPU without this package.

Shapes: B rows in the batch, K rows in the memory, D features. The queries attend to the whole memory with temperature
T, the keys to their own class with T'. Both calls run without autograd, as the gradient is the difference of what they
return, with the own keys added.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def flex_maskcon(
    query: Tensor, key: Tensor, labels: Tensor, memory: Tensor, memory_labels: Tensor,
    *, weight: float, temperature: float, target_temperature: float, attend: Callable[..., Any],
) -> Tensor:  # fmt: skip
    """The loss on unit vectors, (B,), differentiable by the query; `attend` is `flex_attention`, compiled or not."""
    from torch.nn.attention.flex_attention import AuxRequest

    def own_class(score: Tensor, _batch: Tensor, _head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        same = (labels[row] == memory_labels[column]) & (labels[row] >= 0)
        return torch.where(same, score, -float("inf"))

    with torch.no_grad():
        values = memory[None, None]
        pulled, sums = attend(
            query.detach()[None, None], values, values, scale=1 / temperature, return_aux=AuxRequest(lse=True)
        )  # fmt: skip
        near, near_sums = attend(
            key.detach()[None, None], values, values, score_mod=own_class, scale=1 / target_temperature,
            return_aux=AuxRequest(lse=True, max_scores=True),
        )  # fmt: skip
        q_BD, k_BD, pulled_BD, near_BD = query.float(), key.float(), pulled[0, 0].float(), near[0, 0].float()
        own_B, log_memory_B = (q_BD * k_BD).sum(1) / temperature, sums.lse[0, 0]
        log_total_B = torch.logaddexp(own_B, log_memory_B)
        alone_B = near_sums.lse[0, 0] == -torch.inf  # no key of the class in the memory
        z_B = torch.exp(near_sums.lse[0, 0] - near_sums.max_scores[0, 0]).masked_fill(alone_B, 0.0)
        near_BD = near_BD.masked_fill(alone_B[:, None], 0.0)
        t_own_B, t_memory_B = weight / (1 + z_B) + 1 - weight, weight * z_B / (1 + z_B)
        target_BD = t_own_B[:, None] * k_BD + t_memory_B[:, None] * near_BD
        p_own_B, p_memory_B = torch.exp(own_B - log_total_B), torch.exp(log_memory_B - log_total_B)
        mean_BD = p_own_B[:, None] * k_BD + p_memory_B[:, None] * pulled_BD
        loss_B = log_total_B - (q_BD * target_BD).sum(1) / temperature
        gradient_BD = ((mean_BD - target_BD) / temperature).to(query.dtype)
    return _WithGradient.apply(query, loss_B, gradient_BD)


class _WithGradient(torch.autograd.Function):
    """A loss whose gradient by the query is known already."""

    @staticmethod
    def forward(ctx: Any, _query: Tensor, loss_B: Tensor, gradient_BD: Tensor) -> Tensor:
        ctx.save_for_backward(gradient_BD)
        return loss_B.clone()

    @staticmethod
    def backward(ctx: Any, upstream_B: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient_BD,) = ctx.saved_tensors
        return upstream_B[:, None].to(gradient_BD.dtype) * gradient_BD, None, None
