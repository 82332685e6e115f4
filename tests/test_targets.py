"""The soft targets on their own."""

import math

import pytest
import torch
from strategies import problem

from maskcon_loss import EMPTY, CoarseMaskSoftTargets, MaskConLoss, MemoryQueue, functional


def test_the_module_equals_its_function() -> None:
    p = problem(6, 30, 5, with_ids=True)
    queue = MemoryQueue(40, 5, dtype=torch.float64)
    queue.enqueue(p.memory, p.memory_labels, p.memory_ids)
    module = CoarseMaskSoftTargets(0.6, target_temperature=0.2)
    expected = functional.coarse_mask_soft_targets(
        3 * p.key, p.labels, queue.keys, queue.labels,
        weight=0.6, target_temperature=0.2, sample_ids=p.ids, memory_ids=queue.ids,
    )  # fmt: skip
    found = module(3 * p.key, p.labels, queue, sample_ids=p.ids)
    assert torch.equal(found, expected)
    assert found.shape == (6, 41)
    assert not found[:, 1:][:, queue.labels == EMPTY].any()


def test_with_cross_entropy_they_make_the_loss() -> None:
    p = problem(6, 30, 5)
    queue = MemoryQueue(30, 5, dtype=torch.float64)
    queue.enqueue(p.memory, p.memory_labels)
    targets = CoarseMaskSoftTargets(0.6)(p.key, p.labels, queue)
    logits = torch.cat([(p.query * p.key).sum(1, keepdim=True), p.query @ queue.keys.T], 1) / 0.1
    expected = torch.nn.functional.cross_entropy(logits, targets)
    torch.testing.assert_close(MaskConLoss(0.6)(p.query, p.key, p.labels, queue), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_they_are_detached_and_in_the_working_precision(dtype: torch.dtype) -> None:
    key = torch.randn(4, 3).to(dtype).requires_grad_()
    targets = CoarseMaskSoftTargets()(key, torch.zeros(4, dtype=torch.long))
    assert not targets.requires_grad
    assert targets.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_the_weight_bounds_what_the_class_gets_and_the_nearest_key_never_gets_more_than_the_own() -> None:
    p = problem(8, 50, 5, classes=2)
    for weight in (0.0, 0.4, 1.0):
        for target_temperature in (1e-3, 0.05, 1.0, math.inf):
            module = CoarseMaskSoftTargets(weight, target_temperature=target_temperature)
            queue = MemoryQueue(50, 5, dtype=torch.float64)
            queue.enqueue(p.memory, p.memory_labels)
            targets = module(p.key, p.labels, queue)
            assert (targets[:, 0] >= 1 - weight).all()
            assert (targets[:, 1:] <= targets[:, :1] - (1 - weight) + 1e-15).all()


def test_repr_shows_the_settings() -> None:
    assert repr(CoarseMaskSoftTargets()) == "CoarseMaskSoftTargets(weight=1.0, target_temperature=0.05, normalize=True)"
