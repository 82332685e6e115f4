"""Real processes, never longer than a limit: a rank that hangs fails the test instead of stopping it."""

import datetime
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Traffic(TorchDispatchMode):
    """Notes each collective, and the bytes of what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, int]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "c10d":
            self.sent.append((function.__name__.split(".")[0], max(each.nbytes for each in tensors_in(args))))
        return function(*args, **(kwargs or {}))


def tensors_in(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)


def join(rank: int, world: int, folder: str, seconds: int = 30, name: str = "meeting") -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/{name}.meeting",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=seconds),
    )
    torch.set_num_threads(1)


def run_checks(rank: int, world: int, folder: str, checks: list[Callable[[int, int, Path], None]]) -> None:
    """All checks in a row; what went wrong in each is written to a file of its own."""
    join(rank, world, folder)
    for check in checks:
        began = time.monotonic()
        try:
            check(rank, world, Path(folder))
        except Exception:
            Path(folder, f"{check.__name__}.{rank}.failed").write_text(traceback.format_exc())
        else:
            Path(folder, f"{check.__name__}.{rank}.passed").write_text(f"{time.monotonic() - began:.1f} s")
    dist.barrier()
    dist.destroy_process_group()


def launch(
    function: Callable[..., None], world: int, *arguments: object, limit: float = 90, awaited: int | None = None
) -> list[int | None]:
    """Start the ranks, wait for all or the first of them, end the rest, and give their exit codes."""
    context = mp.get_context("spawn")
    processes = [context.Process(target=function, args=(rank, world, *arguments)) for rank in range(world)]
    for process in processes:
        process.start()
    end = time.monotonic() + limit
    for process in processes[:awaited]:
        process.join(max(0.0, end - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
