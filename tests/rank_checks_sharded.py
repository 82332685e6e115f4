"""What every rank checks of a queue that is spread over the ranks; `tests/test_distributed.py` starts the ranks."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from launch import Traffic
from rank_checks import assert_same, everywhere, joined, rows_of
from torch import Tensor, nn

from maskcon_loss import CoarseMaskSoftTargets, CoInsLoss, MaskConLoss, MemoryQueue, SelfConLoss, SupConLoss

LOSSES = [
    MaskConLoss(0.6, reduction="none"),
    MaskConLoss(1.0, temperature=0.3, target_temperature=0.2, reduction="none"),
    SelfConLoss(reduction="none"),
    SupConLoss(reduction="none"),
    CoInsLoss(0.4, reduction="none"),
]


def value_and_gradients(loss: nn.Module, queue: MemoryQueue, rows: tuple[Tensor, ...], **ids: Tensor) -> list[Tensor]:
    query, key, labels, upstream = rows
    query, key = query.clone().requires_grad_(), key.clone().requires_grad_()
    logits = {"logits": query[:, :4]} if isinstance(loss, CoInsLoss) else {}
    value = loss(query, key, labels, queue, **logits, **ids)
    (value * upstream).sum().backward()
    return [value.detach(), query.grad, key.grad]


def problem(step: int, sizes: list[int], dtype: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    """Peaked rows: queries close to keys, keys close to some of the memory; labels from -1 to 3; any upstream."""
    key, labels, ids = joined(step, sizes, 5)
    noise, _, _ = joined(step + 1000, sizes, 5)
    return ((key + 0.3 * noise).to(dtype), key.to(dtype), labels, noise[:, 0].to(dtype)), ids


def a_loss_over_shards_is_the_loss_over_the_whole_memory(rank: int, world: int, folder: Path) -> None:
    for dtype, bound in ((torch.float64, 4e-15), (torch.float32, 2e-6)):
        for size in (3, 40, 4001):  # fewer rows than ranks bring; some; enough for the fast way on a processor
            shards = MemoryQueue(size, 5, sharded=True, dtype=dtype)
            whole = MemoryQueue(size, 5, gather_distributed=False, dtype=torch.float64)
            for step, sizes in enumerate([[0, 0, 0], [6, 6, 6], [3, 0, 7], [1, 9, 4], [size, 2, 0]]):
                sizes = sizes[:world]
                own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
                rows, ids = problem(step, sizes, dtype)
                for loss in LOSSES:
                    exact = tuple(each.double() if each.is_floating_point() else each for each in rows)
                    expected = value_and_gradients(loss, whole, exact, sample_ids=ids)
                    mine = tuple(each[own] for each in rows)
                    ours = value_and_gradients(loss, shards, mine, sample_ids=ids[own])
                    for our, truth in zip(ours, expected, strict=True):
                        assert our.dtype == dtype
                        assert our.shape == truth[own].shape
                        scale = max(1.0, float(truth.abs().max())) if truth.numel() else 1.0
                        difference = float((our.double() - truth[own]).abs().max()) if our.numel() else 0.0
                        assert difference <= 20 * bound * scale, (dtype, size, step, loss, difference)
                shards.enqueue(*rows_of(step, rank, sizes[rank], 5))
                whole.enqueue(*joined(step, sizes, 5))
                assert len(shards) == len(whole)
                full = shards.full_state_dict()
                if dtype == torch.float64:
                    assert_same(full, whole.state_dict())
                assert shards.keys.shape[0] == len(range(rank, size, world))


def a_sharded_loss_is_three_collectives(rank: int, world: int, folder: Path) -> None:
    """And their bytes are those that the docs derive."""
    group = dist.new_group(list(range(world)))
    queue = MemoryQueue(64, 5, sharded=True, group=group)
    for _ in range(2):
        rows, _ = problem(0, [4] * world, torch.float32)
        with Traffic() as traffic:
            MaskConLoss()(*(each[4 * rank : 4 * rank + 4] for each in rows[:3]), queue)
    n, d = 4 * world, 5
    assert traffic.sent == [
        ("_allgather_base_", 128 * world + n * (8 * d + 16)),
        ("allreduce_", n * 8),
        ("_reduce_scatter_base_", n * 8 * (d + 1)),
    ]


def a_sharded_loss_is_one_graph(rank: int, world: int, folder: Path) -> None:
    if world > 2:
        return  # to save time
    queue = MemoryQueue(64, 5, sharded=True)
    queue.enqueue(*rows_of(0, rank, 9, 5))
    (query, key, labels, _), _ = problem(0, [4 + rank], torch.float32)
    query.requires_grad_()
    loss = MaskConLoss()
    expected = torch.autograd.grad(loss(query, key, labels, queue), query)[0]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert torch.equal(torch.autograd.grad(compiled(query, key, labels, queue), query)[0], expected)


def what_a_shard_cannot_do_is_refused(rank: int, world: int, folder: Path) -> None:
    queue = MemoryQueue(8, 5, sharded=True)
    (query, key, labels, _), _ = problem(0, [4], torch.float32)
    with pytest.raises(ValueError, match="`queue` is sharded: rank"):
        CoarseMaskSoftTargets()(key, labels, queue)
    with pytest.raises(ValueError, match='`impl` is "dense" but the queue is sharded'):
        MaskConLoss(impl="dense")(query, key, labels, queue)
    loss = MaskConLoss()(query.requires_grad_(), key, labels, queue)
    with pytest.raises(RuntimeError, match="A second derivative was asked for"):
        torch.autograd.grad(loss, query, create_graph=True)
    if rank == 0:
        with pytest.raises(ValueError, match="`query` has 0 rows, and the mean"):
            MaskConLoss()(query[:0], key[:0], labels[:0], queue)
    else:
        with pytest.raises(RuntimeError, match="`a loss over a sharded queue` was refused on rank 0"):
            MaskConLoss()(query, key, labels, queue)
    with pytest.raises(ValueError, match="`weight` is 0\\.5 on rank 0 but 1\\.0 on rank"):
        MaskConLoss(0.5 if rank == 0 else 1.0)(query, key, labels, queue)
    with pytest.raises(ValueError, match="`normalize` is True on rank 0 but False on rank"):
        MaskConLoss(normalize=rank == 0)(query, key, labels, queue)
    MaskConLoss()(query, key, labels, queue)


def a_checkpoint_of_the_whole_queue_fits_any_number_of_ranks(rank: int, world: int, folder: Path) -> None:
    one, shards, other = MemoryQueue(8, 3), MemoryQueue(8, 3, sharded=True), MemoryQueue(8, 3, sharded=True)
    one.gather_distributed = False  # as a single process would fill it
    one.enqueue(*joined(0, [6, 5]))  # wraps
    shards.load_state_dict(one.state_dict())
    assert len(shards) == 8
    assert_same(shards.full_state_dict(), one.state_dict())
    shards.enqueue(*rows_of(1, rank, 2))
    one.enqueue(*joined(1, [2] * world))
    assert_same(shards.full_state_dict(), one.state_dict())

    model = nn.ModuleDict({"queue": shards})
    other.load_state_dict({name.removeprefix("queue."): value for name, value in model.state_dict().items()})
    assert_same(other.state_dict(), shards.state_dict())
    before = {name: value.clone() for name, value in shards.state_dict().items()}
    neighbour = everywhere(before, world)[(rank + 1) % world]
    with pytest.raises(ValueError, match="a shard fits its own rank alone"):
        shards.load_state_dict(neighbour)
    for wrong in (MemoryQueue(9, 3), MemoryQueue(8, 4)):
        with pytest.raises(ValueError, match="build the queue as it was saved"):
            shards.load_state_dict(wrong.state_dict())
    incomplete = {name: value for name, value in one.state_dict().items() if name != "ids"}
    with pytest.raises(RuntimeError, match="Missing key"):
        shards.load_state_dict(incomplete)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict({**before, "more": torch.zeros(1)})
    assert_same(shards.state_dict(), before)
    copied = copy.deepcopy(shards).to(torch.float64)
    assert copied.keys.dtype == torch.float64
    assert torch.equal(copied.keys.float(), shards.keys)
    shards.reset()
    assert len(shards) == 0


CHECKS = [
    a_checkpoint_of_the_whole_queue_fits_any_number_of_ranks,
    a_loss_over_shards_is_the_loss_over_the_whole_memory,
    a_sharded_loss_is_three_collectives,
    a_sharded_loss_is_one_graph,
    what_a_shard_cannot_do_is_refused,
]
