"""The loss written from the paper's equations alone, one row and one memory key at a time, in float64.

Nothing of the package is used here. Slow, without any trick, and differentiable by autograd, so that values and
gradients of every implementation can be held against it.
"""

import math

import torch
from torch import Tensor

EMPTY = -(2**62)


def maskcon_rows(
    query: Tensor,
    key: Tensor,
    labels: list[int],
    memory: Tensor,
    memory_labels: list[int],
    *,
    weight: float,
    temperature: float,
    target_temperature: float,
    ids: list[int] | None = None,
    memory_ids: list[int] | None = None,
    own_rows: bool = False,
) -> Tensor:
    """Eq. (1) to (3) for rows of any length in float64: (B,)."""
    query, key, memory = query.double(), key.double(), memory.double()
    losses = []
    for i, label in enumerate(labels):
        vectors, same = [key[i]], [None]
        for j, memory_label in enumerate(memory_labels):
            stale = ids is not None and memory_ids is not None and ids[i] >= 0 and ids[i] == memory_ids[j]
            if memory_label == EMPTY or stale or (own_rows and i == j):
                continue
            vectors.append(memory[j])
            same.append(label >= 0 and label == memory_label)

        similarity = [float(key[i].detach() @ vector.detach()) for vector in vectors]
        nearest = max((s for s, yes in zip(similarity, same, strict=True) if yes), default=0.0)
        z = [1.0 if yes is None else math.exp((s - nearest) / target_temperature) if yes else 0.0
             for s, yes in zip(similarity, same, strict=True)]  # fmt: skip
        target = [weight * each / math.fsum(z) + (1 - weight) * (j == 0) for j, each in enumerate(z)]

        logit = torch.stack([query[i] @ vector / temperature for vector in vectors])
        losses.append(-(torch.tensor(target, dtype=torch.float64) * (logit - logit.logsumexp(0))).sum())
    return torch.stack(losses) if losses else query.new_zeros(0)


def published_steps(
    query: Tensor, key: Tensor, labels: Tensor, memory: Tensor, memory_labels: Tensor,
    *, weight: float, temperature: float, target_temperature: float,
) -> Tensor:  # fmt: skip
    """The mean loss by the steps of the authors' script, on unit vectors: the mask multiplied into a softmax, which is
    divided by its maximum, the own key put before it, renormalised, mixed with the one-hot row, cross-entropy by hand.
    Right where every class of the batch is in the memory (else 0 / 0), and what benchmarks compare with."""
    with torch.no_grad():
        mask_BK = (labels[:, None] == memory_labels).to(key.dtype)
        logits_BK = (key @ memory.T) / target_temperature * mask_BK
        logits_BK = logits_BK - logits_BK.max(dim=1, keepdim=True).values
        soft_BK = torch.exp(logits_BK) * mask_BK
        soft_BK = soft_BK / soft_BK.sum(dim=1, keepdim=True)
        soft_BK = soft_BK / soft_BK.max(dim=1, keepdim=True).values
        soft_BN = torch.cat([torch.ones_like(soft_BK[:, :1]), soft_BK], dim=1)
        soft_BN = soft_BN / soft_BN.sum(dim=1, keepdim=True)
        own_BN = torch.zeros_like(soft_BN)
        own_BN[:, 0] = 1
        target_BN = weight * soft_BN + (1 - weight) * own_BN
    logits_BN = torch.cat([(query * key).sum(1, keepdim=True), query @ memory.T], dim=1) / temperature
    return -(target_BN * torch.log_softmax(logits_BN, dim=1)).sum(1).mean()
