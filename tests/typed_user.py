# pyright: strict
"""What a user's type checker sees. Nothing here runs; `test_types.py` has it checked, in a folder of its own.

An error is expected in the lines that end in `# wrong`, and in no other.
"""

from collections.abc import Callable
from typing import assert_type

import numpy as np
import torch
from torch import Tensor

from maskcon_loss import (
    EMPTY,
    UNLABELLED,
    CoarseMaskSoftTargets,
    CoInsLoss,
    GrafitLoss,
    MaskConLoss,
    MemoryQueue,
    SelfConLoss,
    SupConLoss,
    diagnose,
    functional,
    recall_at_k,
)


def right(query: Tensor, key: Tensor, labels: Tensor) -> None:
    criterion, queue = MaskConLoss(weight=0.8, target_temperature=0.05), MemoryQueue(size=8, dim=2)
    assert_type(criterion(query, key, labels), Tensor)
    assert_type(criterion(query, key, labels, queue, sample_ids=labels), Tensor)
    assert_type(criterion.forward(query, key, labels, queue), Tensor)
    for other in (SelfConLoss(), SupConLoss(temperature=0.2), GrafitLoss(0.3)):
        assert_type(other(query, key, labels, queue), Tensor)
    assert_type(CoInsLoss(weight=0.1)(query, key, labels, queue, logits=query), Tensor)
    assert_type(CoarseMaskSoftTargets()(key, labels, queue), Tensor)
    assert_type(functional.maskcon(query, key, labels, queue.keys, queue.labels, memory_ids=queue.ids), Tensor)
    assert_type(criterion.weight, float)
    any_of_them: Callable[[Tensor, Tensor, Tensor, MemoryQueue], Tensor] = criterion
    assert_type(any_of_them(query, key, labels, queue), Tensor)

    queue.enqueue(key, labels, sample_ids=labels)
    assert_type((queue.keys, queue.labels, queue.ids), tuple[Tensor, Tensor, Tensor])
    assert_type((len(queue), queue.size, queue.dim, queue.is_full), tuple[int, int, int, bool])
    assert_type(queue.full_state_dict(), dict[str, Tensor])
    assert_type(diagnose(criterion, key, labels, queue, sample_ids=labels), dict[str, float])
    assert_type(queue.to("cpu", torch.bfloat16), MemoryQueue)

    assert_type(recall_at_k(query, labels), dict[int, float])
    assert_type(recall_at_k(np.zeros((3, 2)), np.zeros(3, dtype=int), k=1), dict[int, float])
    assert_type((EMPTY, UNLABELLED), tuple[int, int])


def wrong(query: Tensor, key: Tensor, labels: Tensor, queue: MemoryQueue) -> None:
    MaskConLoss(weight="a")  # wrong
    MaskConLoss(1.0, 0.1)  # wrong
    SupConLoss(weight=0.5)  # wrong
    MemoryQueue(size=8)  # wrong
    MemoryQueue(size=8, dim=2.5)  # wrong
    criterion = MaskConLoss()
    criterion(query, key)  # wrong
    criterion(query, key, [0, 1])  # wrong
    criterion(query, key, labels, queue, labels)  # wrong
    criterion(query, key, labels, memory=queue)  # wrong
    criterion(query, key, labels, logits=query)  # wrong
    CoarseMaskSoftTargets()(key, "cat")  # wrong
    queue.enqueue(key)  # wrong
    queue.kyes.sum()  # wrong
    recall_at_k(query, labels, k=(1.5, 2.5))  # wrong
    recall_at_k(query, labels)["1"]  # wrong
