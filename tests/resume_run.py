"""A training run that is killed in the middle of an epoch; `tests/test_resume.py` starts it.

Two models are trained side by side, with a replicated queue, saved by `torch.save`, and with a sharded one, saved by
`torch.distributed.checkpoint`. Both queues hold 13 keys, no multiple of a batch, so checkpoints fall into a wrap.
"""

import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from launch import join
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from maskcon_loss import MaskConLoss, MemoryQueue

SAMPLES, BATCH, EPOCHS, EVERY = 43, 4, 3, 4  # a checkpoint every 4 steps


class Run:
    """A model, its queue and its optimiser."""

    def __init__(self, sharded: bool) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
        self.model = DistributedDataParallel(model) if dist.is_initialized() else model
        self.queue = MemoryQueue(13, 4, sharded=sharded)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)

    def step(self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> str:
        query = self.model(images + 0.1 * torch.randn_like(images))
        key = query.detach().roll(1, 1)
        loss = MaskConLoss(0.8)(query, key, labels, self.queue, sample_ids=ids)
        self.queue.enqueue(key, labels, ids)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach()).hex()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "queue": self.queue.full_state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.queue.load_state_dict(state["queue"])
        self.optimizer.load_state_dict(state["optimizer"])


def save(runs: list[Run], step: int, rank: int, folder: Path) -> None:
    torch.save({**runs[0].state(), "step": step, "random": torch.get_rng_state()}, folder / f"{rank}.pt")
    model, optimizer = get_state_dict(runs[1].model, runs[1].optimizer)
    state = {"model": model, "optimizer": optimizer, "queue": runs[1].queue.full_state_dict()}
    dcp.save(state, checkpoint_id=str(folder / f"dcp{step}"))


def load(runs: list[Run], rank: int, folder: Path) -> int:
    state = torch.load(folder / f"{rank}.pt", weights_only=True)
    runs[0].load(state)
    model, optimizer = get_state_dict(runs[1].model, runs[1].optimizer)
    filled = {"model": model, "optimizer": optimizer, "queue": runs[1].queue.full_state_dict()}
    dcp.load(filled, checkpoint_id=str(folder / f"dcp{state['step']}"))
    set_state_dict(
        runs[1].model, runs[1].optimizer, model_state_dict=filled["model"], optim_state_dict=filled["optimizer"]
    )
    runs[1].queue.load_state_dict(filled["queue"])
    torch.set_rng_state(state["random"])
    return state["step"]


def train(rank: int, world: int, folder: str, log: str, die_at: int | None, resume: bool) -> None:
    torch.set_num_threads(1)
    if world == 1:
        train_joined(rank, world, folder, log, die_at, resume)
        return
    join(rank, world, folder, name=log)
    train_joined(rank, world, folder, log, die_at, resume)  # its DDP modules are gone when it returns: see the docs
    dist.barrier()
    dist.destroy_process_group()


def train_joined(rank: int, world: int, folder: str, log: str, die_at: int | None, resume: bool) -> None:
    runs = [Run(sharded=False), Run(sharded=True)]
    g = torch.Generator().manual_seed(1)
    images, labels = torch.randn(SAMPLES, 6, generator=g), torch.randint(3, (SAMPLES,), generator=g)
    sampler = DistributedSampler(range(SAMPLES), world, rank, shuffle=True, seed=7)
    torch.manual_seed(100 + rank)
    done = load(runs, rank, Path(folder)) if resume else 0
    step = 0
    with (Path(folder) / f"{log}.{rank}").open("a") as lines:
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            for ids in torch.tensor(list(sampler)).split(BATCH):
                step += 1
                if step <= done:
                    continue
                print(step, *(run.step(images[ids], labels[ids], ids) for run in runs), file=lines, flush=True)
                if step % EVERY == 0:
                    save(runs, step, rank, Path(folder))
                if step == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
