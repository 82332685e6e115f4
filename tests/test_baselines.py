"""The baselines: modules equal their functions, and MaskCon at the ends of its settings."""

import math

import pytest
import torch
from strategies import IMPLEMENTATIONS, problem

from maskcon_loss import CoInsLoss, GrafitLoss, MaskConLoss, MemoryQueue, SelfConLoss, SupConLoss, functional

each_impl = pytest.mark.parametrize("impl", IMPLEMENTATIONS)


@pytest.fixture
def batch():
    """Arguments of a loss over a partly filled queue with ids, and the ids of the batch."""
    p = problem(9, 40, 6, with_ids=True)
    queue = MemoryQueue(50, 6, dtype=torch.float64)
    queue.enqueue(p.memory, p.memory_labels, p.memory_ids)
    return (2 * p.query, 3 * p.key, p.labels, queue), p.ids


@each_impl
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_modules_equal_their_functions(impl: str, reduction: str, batch) -> None:
    (*tensors, queue), ids = batch
    settings = {"temperature": 0.3, "reduction": reduction, "normalize": True, "impl": impl}
    logits = torch.randn(9, 3, dtype=torch.float64)
    cases = [
        (SelfConLoss(**settings), functional.selfcon, {}, {}),
        (SupConLoss(**settings), functional.supcon, {}, {}),
        (GrafitLoss(0.7, **settings), functional.grafit, {"weight": 0.7}, {}),
        (CoInsLoss(0.7, **settings), functional.coins, {"weight": 0.7}, {"logits": logits}),
    ]
    for module, function, weight, extra in cases:
        memory = (queue.keys, queue.labels)
        expected = function(*tensors, *memory, **weight, **extra, **settings, sample_ids=ids, memory_ids=queue.ids)
        torch.testing.assert_close(module(*tensors, queue, sample_ids=ids, **extra), expected, rtol=0, atol=1e-14)
        in_batch = function(*tensors, None, None, **weight, **extra, **settings, sample_ids=ids)
        torch.testing.assert_close(module(*tensors, sample_ids=ids, **extra), in_batch, rtol=0, atol=1e-14)


@each_impl
def test_each_baseline_is_maskcon_at_the_end_of_a_setting(impl: str, batch) -> None:
    arguments, ids = batch
    cases = [
        (SelfConLoss(impl=impl), MaskConLoss(0.0, target_temperature=3.0, impl=impl)),
        (SupConLoss(impl=impl), MaskConLoss(1.0, target_temperature=math.inf, impl=impl)),
        (GrafitLoss(0.3, impl=impl), MaskConLoss(0.3, target_temperature=math.inf, impl=impl)),
    ]
    for baseline, maskcon in cases:
        assert torch.equal(baseline(*arguments, sample_ids=ids), maskcon(*arguments, sample_ids=ids))


@each_impl
def test_the_ends_of_the_mixtures(impl: str, batch) -> None:
    arguments, _ = batch
    logits = torch.randn(9, 3, dtype=torch.float64)
    selfcon, supcon = SelfConLoss(impl=impl)(*arguments), SupConLoss(impl=impl)(*arguments)
    cross_entropy = torch.nn.functional.cross_entropy(logits, arguments[2])
    torch.testing.assert_close(GrafitLoss(0.0, impl=impl)(*arguments), selfcon)
    torch.testing.assert_close(GrafitLoss(1.0, impl=impl)(*arguments), supcon)
    torch.testing.assert_close(CoInsLoss(0.0, impl=impl)(*arguments, logits=logits), selfcon)
    torch.testing.assert_close(CoInsLoss(1.0, impl=impl)(*arguments, logits=logits), cross_entropy)


def test_coins_gives_gradients_to_logits_and_query_in_their_shares(batch) -> None:
    (query, *others), _ = batch
    query, logits = query.requires_grad_(), torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    CoInsLoss(0.25)(query, *others, logits=logits).backward()
    alone = torch.autograd.grad(SelfConLoss()(query, *others), query)[0]
    torch.testing.assert_close(query.grad, 0.75 * alone)
    scores = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, others[1]), logits)[0]
    torch.testing.assert_close(logits.grad, 0.25 * scores)


def test_coins_takes_half_precision_logits_in_float32() -> None:
    logits = torch.tensor([[60000.0, -60000.0]], dtype=torch.float16)
    eye = torch.eye(1, 4)
    loss = CoInsLoss(1.0)(eye, eye, torch.tensor([1]), logits=logits)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(120000.0, rel=1e-3)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (SelfConLoss(), "SelfConLoss(weight=0.0, temperature=0.1, target_temperature=0.05, reduction='mean', "),
        (SupConLoss(), "SupConLoss(weight=1.0, temperature=0.1, target_temperature=inf, reduction='mean', "),
        (GrafitLoss(), "GrafitLoss(weight=0.5, temperature=0.1, target_temperature=inf, reduction='mean', "),
        (CoInsLoss(), "CoInsLoss(weight=0.5, temperature=0.1, reduction='mean', "),
    ],
)
def test_repr_shows_the_settings(module: torch.nn.Module, expected: str) -> None:
    assert repr(module) == expected + "normalize=True, impl='auto')"
