"""Other people's libraries, where they compute the same thing: values and gradients in float64, on raw inputs, with
normalisation inside both sides."""

import math

import pytest
import torch
import torch.nn.functional as F
from oracle import published_steps
from strategies import IMPLEMENTATIONS
from torch import Tensor

from maskcon_loss import MaskConLoss, MemoryQueue, SelfConLoss, SupConLoss

each_impl = pytest.mark.parametrize("impl", IMPLEMENTATIONS)


@pytest.fixture
def raw() -> tuple[Tensor, Tensor, Tensor, MemoryQueue]:
    """Query, key, labels and a full queue, in float64; nothing of unit length but the queue."""
    g = torch.Generator().manual_seed(0)
    query, key, old = (3 * torch.randn(rows, 16, generator=g, dtype=torch.float64) for rows in (12, 12, 50))
    queue = MemoryQueue(50, 16, dtype=torch.float64)
    queue.enqueue(old, torch.randint(3, (50,), generator=g))
    return query.requires_grad_(), key.requires_grad_(), torch.randint(3, (12,), generator=g), queue


def assert_same(ours: Tensor, theirs: Tensor, *leaves: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    upstream = torch.linspace(0.5, 2.0, ours.numel(), dtype=ours.dtype).reshape(ours.shape)
    for mine, other in zip(
        torch.autograd.grad(ours, leaves, upstream),
        torch.autograd.grad(theirs, leaves, upstream, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


@each_impl
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_info_nce_pytorch_is_selfcon(impl: str, reduction: str, raw) -> None:
    info_nce = pytest.importorskip("info_nce").info_nce
    query, key, labels, queue = raw
    theirs = info_nce(query, key, queue.keys, temperature=0.2, reduction=reduction, negative_mode="unpaired")
    assert_same(
        SelfConLoss(temperature=0.2, reduction=reduction, impl=impl)(query, key, labels, queue), theirs, query, key
    )
    ours = MaskConLoss(0.0, temperature=0.2, target_temperature=7.0, reduction=reduction, impl=impl)
    assert_same(ours(query, key, labels, queue), theirs, query, key)


@each_impl
def test_lightly_with_a_memory_bank_is_selfcon(impl: str, raw) -> None:
    ntx_ent = pytest.importorskip("lightly.loss.ntx_ent_loss", exc_type=ImportError)
    query, key, labels, queue = raw
    criterion = ntx_ent.NTXentLoss(temperature=0.2, memory_bank_size=(50, 16))
    criterion.memory_bank.bank = queue.keys.clone()
    criterion.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    assert_same(SelfConLoss(temperature=0.2, impl=impl)(query, key, labels, queue), criterion(query, key), query)


@each_impl
def test_pytorch_metric_learning_supcon_is_supcon(impl: str, raw) -> None:
    """With explicit pairs (own key, and the memory's keys of the class or not): its labels-only call would let the
    other rows' keys join the denominator."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    from pytorch_metric_learning.reducers import MeanReducer

    query, key, labels, queue = raw
    same = torch.cat([torch.eye(12, dtype=torch.bool), labels[:, None] == queue.labels], 1)
    other = torch.cat([torch.zeros(12, 12, dtype=torch.bool), labels[:, None] != queue.labels], 1)
    theirs = losses.SupConLoss(temperature=0.2, reducer=MeanReducer())(
        query, labels, indices_tuple=(*same.nonzero(as_tuple=True), *other.nonzero(as_tuple=True)),
        ref_emb=torch.cat([key, queue.keys]), ref_labels=torch.cat([labels, queue.labels]),
    )  # fmt: skip
    assert_same(SupConLoss(temperature=0.2, impl=impl)(query, key, labels, queue), theirs, query, key)
    ours = MaskConLoss(1.0, temperature=0.2, target_temperature=math.inf, impl=impl)(query, key, labels, queue)
    assert_same(ours, theirs, query, key)


@each_impl
def test_the_published_steps_give_maskcon_where_every_class_is_in_the_queue(impl: str, raw) -> None:
    query, key, labels, queue = raw
    theirs = published_steps(
        F.normalize(query, dim=1), F.normalize(key, dim=1), labels, queue.keys, queue.labels,
        weight=0.8, temperature=0.2, target_temperature=0.1,
    )  # fmt: skip
    ours = MaskConLoss(0.8, temperature=0.2, target_temperature=0.1, impl=impl)(query, key, labels, queue)
    assert_same(ours, theirs, query, key)


@pytest.mark.parametrize("sizes", [[5, 7, 4], [16], [40], [3] * 9])
def test_pytorch_metric_learning_cross_batch_memory_stores_the_same(sizes: list[int]) -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    theirs = losses.CrossBatchMemory(losses.ContrastiveLoss(), embedding_size=4, memory_size=16)
    ours = MemoryQueue(16, 4, normalize=False)
    for step, rows in enumerate(sizes):
        keys, labels = torch.randn(rows, 4, generator=torch.Generator().manual_seed(step)), torch.arange(rows)
        if rows > 16:  # it keeps no batch longer than its memory: feed the part that stays
            ours.enqueue(keys, labels)
            keys, labels = keys[-16:], labels[-16:]
            ordered = ours.keys.roll(-int(ours.position), 0)
            assert torch.equal(ordered, keys)
            continue
        ours.enqueue(keys, labels)
        theirs.add_to_memory(keys, labels, rows)
    if max(sizes) <= 16:
        filled = ours.labels >= 0
        assert torch.equal(ours.keys[filled], theirs.embedding_memory[filled])
        assert torch.equal(ours.labels[filled], theirs.label_memory[filled])
        assert int(ours.position) == theirs.queue_idx % 16
