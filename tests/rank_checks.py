"""What every rank checks of its queue; `tests/test_distributed.py` starts the ranks."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from launch import Traffic, join
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskcon_loss import (
    UNLABELLED,
    MaskConLoss,
    MemoryQueue,
    diagnose,
    recall_at_k,
)

SIZES = [[3, 3], [2, 5], [0, 4], [0, 0], [9, 1], [1, 0]]  # of each step, the rows of each rank; some none, one wraps


def rows_of(step: int, rank: int, rows: int, dim: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(100 * step + rank)
    keys = torch.randn(rows, dim, generator=g)
    return keys, torch.randint(-1, 4, (rows,), generator=g), torch.randint(0, 99, (rows,), generator=g)


def sizes_of(step: int, world: int) -> list[int]:
    return [*SIZES[step], 2][:world]


def joined(step: int, sizes: list[int], dim: int = 3) -> tuple[Tensor, ...]:
    parts = [rows_of(step, rank, rows, dim) for rank, rows in enumerate(sizes)]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


def everywhere(value: object, world: int) -> list:
    values: list = [None] * world
    dist.all_gather_object(values, value)
    return values


def every_queue_is_that_of_one_process_fed_in_rank_order(rank: int, world: int, folder: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        gathered, one = MemoryQueue(7, 3, dtype=dtype), MemoryQueue(7, 3, dtype=dtype)
        one.gather_distributed = False
        alone, own = (MemoryQueue(7, 3, dtype=dtype, gather_distributed=False) for _ in range(2))
        for step in range(len(SIZES)):
            sizes = sizes_of(step, world)
            gathered.enqueue(*rows_of(step, rank, sizes[rank]))
            one.enqueue(*joined(step, sizes))
            alone.enqueue(*rows_of(step, rank, sizes[rank]))
            own.enqueue(*rows_of(step, rank, sizes[rank]))
            assert_same(gathered.state_dict(), one.state_dict())
        assert_same(alone.state_dict(), own.state_dict())


def an_enqueue_is_one_collective_unless_a_batch_is_the_largest_so_far(rank: int, world: int, folder: Path) -> None:
    group = dist.new_group(list(range(world)))  # a fresh one has seen no batch
    queue = MemoryQueue(16, 3, group=group)
    counts = []
    for step, rows in enumerate([4, 4, 2, 5, 5, 0]):
        with Traffic() as traffic:
            queue.enqueue(*rows_of(step, rank, rows if rank else min(rows, 4)))  # only rank 0 never brings 5
        counts.append(len(traffic.sent))
        assert {name for name, _ in traffic.sent} == {"_allgather_base_"}
    assert counts == [2, 1, 1, 2, 1, 1]
    assert traffic.sent[0][1] == world * (128 + 5 * (3 * 4 + 8 + 8))


def a_group_gathers_its_members_alone(rank: int, world: int, folder: Path) -> None:
    members = [0, world - 1]
    group = dist.new_group(members)
    if rank not in members:
        with pytest.raises(TypeError, match="must be a process group that this rank is a member of"):
            MemoryQueue(7, 3, group=group)
        return
    queue, one = MemoryQueue(7, 3, group=group), MemoryQueue(7, 3, gather_distributed=False)
    queue.enqueue(*rows_of(0, rank, 2 + rank))
    parts = [rows_of(0, member, 2 + member) for member in members]
    one.enqueue(*(torch.cat(column) for column in zip(*parts, strict=True)))
    assert_same(queue.state_dict(), one.state_dict())


class Model(nn.Module):
    def __init__(self, *, inside: bool = True, sharded: bool = False, size: int = 20) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(6, 4, dtype=torch.float64)
        self.queue = MemoryQueue(size, 4, dtype=torch.float64, sharded=sharded)
        self.inside = inside

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        query = self.encoder(images)
        key = query.detach().roll(1, 1)  # stands for a key encoder
        loss = MaskConLoss(0.7)(query, key, labels, self.queue)
        if self.inside:
            self.queue.enqueue(key, labels)
        return loss


def three_steps(model: nn.Module, rank: int | None, world: int) -> list[Tensor]:
    """Equal batches, as the mean of the ranks' means is that of all rows only then."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    gradients = []
    for step in range(3):
        rows = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
        images, labels, _ = joined(step, [4] * world, 6)
        optimizer.zero_grad()
        model(images[rows].double(), labels[rows]).backward()
        gradients += [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
    return gradients


def ddp_gives_the_gradient_and_the_queue_of_one_process(rank: int, world: int, folder: Path) -> None:
    one = Model()
    one.queue.gather_distributed = False
    expected = three_steps(one, None, world)
    for broadcast_buffers in (True, False):
        for sharded in (True, False):
            model = DistributedDataParallel(Model(sharded=sharded), broadcast_buffers=broadcast_buffers)
            ours = three_steps(model, rank, world)
            for mine, whole in zip(ours, expected, strict=True):
                torch.testing.assert_close(mine, whole, rtol=1e-13, atol=1e-14)
            keys = model.module.queue.full_state_dict()["keys"]
            torch.testing.assert_close(keys, one.queue.keys, rtol=1e-13, atol=1e-14)  # the weights differ by rounding
            assert len({bytes(each.numpy().tobytes()) for each in everywhere(keys, world)}) == 1


def one_graph_stores_what_plain_python_stores(rank: int, world: int, folder: Path) -> None:
    if world > 2:
        return  # to save time
    if torch.__version__ < "2.7":  # which has to be told that rows may come in any number
        torch._dynamo.config.capture_dynamic_output_shape_ops = True
    for sharded in (False, True):
        compiled, plain = (MemoryQueue(7, 3, sharded=sharded) for _ in range(2))
        enqueue = torch.compile(compiled.enqueue, fullgraph=True, backend="aot_eager", dynamic=True)
        for step in range(len(SIZES)):
            rows = rows_of(step, rank, sizes_of(step, world)[rank] + 2)
            enqueue(*rows)
            plain.enqueue(*rows)
        assert_same(compiled.state_dict(), plain.state_dict())


def ranks_that_differ_are_named_on_every_rank(rank: int, world: int, folder: Path) -> None:
    last = world - 1
    odd, even = f"rank {last}", "rank 0" if world == 2 else "ranks 0, 1"
    cases = [
        (MemoryQueue(7 + (rank == last), 3), f"`size` is 7 on {even} but 8 on {odd}"),
        (MemoryQueue(7, 3 + (rank == last)), f"`dim` is 3 on {even} but 4 on {odd}"),
        (
            MemoryQueue(7, 3, dtype=torch.bfloat16 if rank == last else torch.float32),
            f"`dtype` is torch.float32 on {even} but torch.bfloat16 on {odd}",
        ),
        (MemoryQueue(7, 3, normalize=rank != last), f"`normalize` is True on {even} but False on {odd}"),
        (MemoryQueue(7, 3, sharded=rank != last), f"`sharded` is True on {even} but False on {odd}"),
    ]
    resumed = MemoryQueue(7, 3)
    resumed.position.fill_(2 if rank == last else 0)
    cases.append((resumed, f"`position` is 0 on {even} but 2 on {odd}"))
    for queue, sentence in cases:
        before = {name: tensor.clone() for name, tensor in queue.state_dict().items()}
        with pytest.raises(ValueError, match=sentence):
            queue.enqueue(*rows_of(0, rank, 2, queue.dim))
        assert_same(queue.state_dict(), before)


def wrong_input_on_one_rank_stops_all(rank: int, world: int, folder: Path) -> None:
    for sharded in (False, True):
        queue = MemoryQueue(7, 3, sharded=sharded)
        keys, labels, ids = rows_of(0, rank, 2)
        if rank == 0:
            with pytest.raises(ValueError, match="`keys` has 2 features but the queue was built for 3"):
                queue.enqueue(keys[:, :2], labels, ids)
        else:
            with pytest.raises(RuntimeError, match="was refused on rank 0, so no rank went on"):
                queue.enqueue(keys, labels, ids)
        assert len(queue) == 0
        queue.enqueue(keys, labels.clamp(max=UNLABELLED), ids)  # and then all go on
        assert len(queue) == min(7, 2 * world)


def recall_over_ranks_is_that_of_one_process(rank: int, world: int, folder: Path) -> None:
    for sizes in ([20, 20, 20], [31, 0, 7], [0, 9, 2]):
        sizes = sizes[:world]
        keys, labels, _ = joined(3, sizes, 6)
        keys[-1] = keys[0]  # a duplicate on another rank
        own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        for normalize in (True, False):
            for chunk_size in (4, 1000):
                settings = {"k": (1, 2, 5), "normalize": normalize, "chunk_size": chunk_size}
                ours = recall_at_k(keys[own], labels[own], **settings, gather_distributed=True)
                assert ours == recall_at_k(keys, labels, **settings)
                gallery, names, _ = joined(4, sizes[::-1], 6)
                part = slice(sum(sizes[::-1][:rank]), sum(sizes[::-1][: rank + 1]))
                ours = recall_at_k(
                    keys[own],
                    labels[own],
                    gallery=gallery[part],
                    gallery_labels=names[part],
                    **settings,
                    gather_distributed=True,
                )
                assert ours == recall_at_k(keys, labels, gallery=gallery, gallery_labels=names, **settings)
    for k, one in ((12, "neighbours but each query has only"), (0, "`k` is 0")):
        with pytest.raises(ValueError, match=one):
            recall_at_k(keys[own], labels[own], k, gather_distributed=True)
    with pytest.raises(ValueError if rank == 0 else RuntimeError):
        recall_at_k(keys[own], labels[own], 0 if rank == 0 else 1, gather_distributed=True)


def the_age_of_the_queue_counts_the_keys_of_all_ranks_that_it_gathers(rank: int, world: int, folder: Path) -> None:
    keys, labels, _ = rows_of(0, rank, 2)
    for gathers, every_step in ((True, 2 * world), (False, 2)):
        queue = MemoryQueue(8 * world, 3, gather_distributed=gathers)
        for step in range(3):
            found = diagnose(MaskConLoss(), keys, labels, queue)
            assert found["queue_age"] == step
            assert found["queue_fill"] == step * every_step / queue.size
            queue.enqueue(keys, labels)


CHECKS = [
    the_age_of_the_queue_counts_the_keys_of_all_ranks_that_it_gathers,
    recall_over_ranks_is_that_of_one_process,
    every_queue_is_that_of_one_process_fed_in_rank_order,
    an_enqueue_is_one_collective_unless_a_batch_is_the_largest_so_far,
    a_group_gathers_its_members_alone,
    one_graph_stores_what_plain_python_stores,
    ranks_that_differ_are_named_on_every_rank,
    wrong_input_on_one_rank_stops_all,
    ddp_gives_the_gradient_and_the_queue_of_one_process,
]


def die(rank: int, world: int, folder: str, how: str) -> None:
    """The last rank is killed, or stops taking part; the others write down what they are told, and when."""
    join(rank, world, folder, seconds=4)
    queue = MemoryQueue(7, 3)
    queue.enqueue(*rows_of(0, rank, 2))
    dist.barrier()
    if rank == world - 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    began = time.monotonic()
    try:
        queue.enqueue(*rows_of(1, rank, 2))
    except RuntimeError as error:
        Path(folder, f"{rank}.told").write_text(f"{time.monotonic() - began:.1f}\n{error}")
    os._exit(0)
