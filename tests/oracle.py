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
