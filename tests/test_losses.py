"""MaskConLoss as a module: its function with settings, and any object with keys and labels as its queue."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from strategies import IMPLEMENTATIONS, problem
from torch import Tensor

from maskcon_loss import MaskConLoss, MemoryQueue, functional


@dataclass
class Bank:
    """A memory of somebody else's, without ids."""

    keys: Tensor
    labels: Tensor


@dataclass
class BankWithIds(Bank):
    ids: Tensor


@pytest.mark.parametrize("impl", [*IMPLEMENTATIONS, "auto"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_module_equals_its_function(impl: str, reduction: str, normalize: bool) -> None:
    p = problem(7, 30, 5, with_ids=True, empty=0.2)
    settings = {
        "temperature": 0.2,
        "target_temperature": 0.3,
        "reduction": reduction,
        "normalize": normalize,
        "impl": impl,
    }
    criterion = MaskConLoss(0.6, **settings)
    query, key = 3 * p.query, 0.5 * p.key
    arguments = (query, key, p.labels)
    expected = functional.maskcon(
        *arguments, p.memory, p.memory_labels, weight=0.6, **settings, sample_ids=p.ids, memory_ids=p.memory_ids
    )
    assert torch.equal(
        criterion(*arguments, BankWithIds(p.memory, p.memory_labels, p.memory_ids), sample_ids=p.ids), expected
    )
    without_ids = functional.maskcon(*arguments, p.memory, p.memory_labels, weight=0.6, **settings)
    assert torch.equal(criterion(*arguments, Bank(p.memory, p.memory_labels)), without_ids)
    in_batch = functional.maskcon(*arguments, None, None, weight=0.6, **settings, sample_ids=p.ids)
    assert torch.equal(criterion(*arguments, sample_ids=p.ids), in_batch)


def test_without_sample_ids_the_ids_of_a_queue_change_nothing() -> None:
    p = problem(7, 30, 5, with_ids=True)
    bank, with_ids = Bank(p.memory, p.memory_labels), BankWithIds(p.memory, p.memory_labels, p.memory_ids)
    criterion = MaskConLoss()
    assert torch.equal(criterion(p.query, p.key, p.labels, bank), criterion(p.query, p.key, p.labels, with_ids))


def test_the_defaults_are_those_of_the_paper() -> None:
    settings = "weight=1.0, temperature=0.1, target_temperature=0.05, reduction='mean', normalize=True, impl='auto'"
    assert repr(MaskConLoss()) == f"MaskConLoss({settings})"


def test_a_changed_setting_counts_from_the_next_call() -> None:
    p = problem(7, 30, 5)
    criterion, queue = MaskConLoss(1.0), Bank(p.memory, p.memory_labels)
    criterion.weight = 0.25  # a schedule
    assert torch.equal(criterion(p.query, p.key, p.labels, queue), MaskConLoss(0.25)(p.query, p.key, p.labels, queue))


def test_numpy_numbers_are_kept_as_plain_ones() -> None:
    assert type(MaskConLoss(np.float64(0.5), temperature=np.float64(0.1)).temperature) is float
    assert MaskConLoss(1).weight == 1.0


def test_it_has_no_state() -> None:
    assert not MaskConLoss().state_dict()


def test_following_the_gradient_lowers_the_loss_to_its_floor() -> None:
    """One row beside one key of its class, w = 1: the targets are 1/2 and 1/2, so the least loss is their entropy."""
    torch.manual_seed(0)
    queue = MemoryQueue(1, 8)
    queue.enqueue(torch.randn(1, 8), torch.tensor([0]))
    query, key, label = torch.randn(1, 8, requires_grad=True), torch.randn(1, 8), torch.tensor([0])
    criterion, optimizer = MaskConLoss(), torch.optim.SGD([query], lr=5.0)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        losses.append(criterion(query, key, label, queue))
        losses[-1].backward()
        optimizer.step()
    assert float(losses[0].detach()) > 0.8
    assert float(losses[-1].detach()) == pytest.approx(
        0.6931, abs=1e-3
    )  # log 2: the only key of the class is the nearest one
