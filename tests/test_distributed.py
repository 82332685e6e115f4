"""Real processes (gloo): what every rank holds after it has enqueued its own rows."""

import datetime
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from maskcon_loss import MemoryQueue, distributed

SIZES = [[3, 3], [2, 5], [0, 4], [0, 0], [9, 1], [1, 0]]  # of each step, the rows of each rank; some none, one wraps


def rows_of(step: int, rank: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(100 * step + rank)
    keys = torch.randn(rows, 3, generator=g)
    return keys, torch.randint(-1, 4, (rows,), generator=g), torch.randint(0, 99, (rows,), generator=g)


def train(rank: int, ranks: int, file: str, folder: str, dtype: torch.dtype) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=ranks, timeout=datetime.timedelta(seconds=60)
    )
    gathered, alone = MemoryQueue(7, 3, dtype=dtype), MemoryQueue(7, 3, dtype=dtype, gather_distributed=False)
    for step, sizes in enumerate(SIZES):
        mine = rows_of(step, rank, [*sizes, 2][rank])
        gathered.enqueue(*mine)
        alone.enqueue(*mine)
    torch.save((gathered.state_dict(), alone.state_dict()), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def launch(ranks: int, *arguments: object) -> None:
    """All ranks, and never longer than a minute and a half: a rank that hangs fails the test."""
    started = mp.spawn(train, (ranks, *arguments), nprocs=ranks, join=False)
    end = time.monotonic() + 90
    try:
        while not started.join(timeout=5):
            assert time.monotonic() < end, "a rank hangs"
    finally:
        for process in started.processes:
            process.kill()


@pytest.mark.parametrize(("ranks", "dtype"), [(2, torch.float32), (3, torch.bfloat16)])
def test_all_ranks_hold_the_queue_of_one_process_fed_in_rank_order(
    ranks: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    launch(ranks, str(tmp_path / "meeting"), str(tmp_path), dtype)
    one = MemoryQueue(7, 3, dtype=dtype)
    for step, sizes in enumerate(SIZES):
        parts = [rows_of(step, rank, [*sizes, 2][rank]) for rank in range(ranks)]
        one.enqueue(*(torch.cat(column) for column in zip(*parts, strict=True)))
    for rank in range(ranks):
        gathered, alone = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, buffer in one.state_dict().items():
            assert torch.equal(gathered[name], buffer), (rank, name)
        single = MemoryQueue(7, 3, dtype=dtype)
        for step, sizes in enumerate(SIZES):
            single.enqueue(*rows_of(step, rank, [*sizes, 2][rank]))
        for name, buffer in single.state_dict().items():
            assert torch.equal(alone[name], buffer), (rank, name)


def test_without_a_process_group_nothing_is_gathered() -> None:
    columns = (torch.randn(3, 2), torch.arange(3))
    for mine, given in zip(distributed.gather_rows(*columns), columns, strict=True):
        assert mine is given
