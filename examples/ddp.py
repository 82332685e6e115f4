"""The digits of `digits.py` on several processes: DDP, one queue for all, checkpoints, and going on after a kill.

    pip install -e ".[examples]"
    torchrun --nproc-per-node 2 examples/ddp.py             # processors (gloo) or GPUs (NCCL), whichever there are
    torchrun --nproc-per-node 2 examples/ddp.py --sharded   # each process keeps its part of the queue alone
    python examples/ddp.py                                  # the same on one process
    torchrun --nproc-per-node 2 examples/ddp.py --smoke     # within 20 seconds, only to see that it runs

Kill it at any time and type the same line again: it goes on after the last finished epoch, also with another number of
processes. Prints a table of Recall@K on images that no training has seen. The loop to copy is `train_epoch`.
"""

import argparse
import math
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from digits import BATCH, DEPTHS, DIM, MOMENTUM, QUEUE, RATE, Data, Encoder, load, strong, weak
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DistributedSampler, TensorDataset
from tqdm import tqdm

from maskcon_loss import MaskConLoss, MemoryQueue, recall_at_k


def place() -> tuple[int, int, torch.device]:
    """Rank, number of processes and device of this process."""
    cuda = torch.cuda.is_available()
    if cuda and dist.is_initialized():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    device = torch.device("cuda" if cuda else "cpu")
    return (dist.get_rank(), dist.get_world_size(), device) if dist.is_initialized() else (0, 1, device)


class Training:
    """Everything that a checkpoint holds."""

    def __init__(self, epochs: int, steps: int, device: torch.device, sharded: bool) -> None:
        self.epochs = epochs
        torch.manual_seed(0)
        encoder = Encoder().to(device)
        encoder.classifier.requires_grad_(False)  # MaskCon needs none, and DDP wants a gradient for every parameter
        self.model = DistributedDataParallel(encoder) if dist.is_initialized() else encoder
        self.encoder = encoder
        self.momentum = AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(MOMENTUM), use_buffers=True)
        self.queue = MemoryQueue(QUEUE, DIM, device=device, sharded=sharded)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, RATE, epochs * steps)

    def parts(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder,
            "momentum": self.momentum,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def save(self, path: Path, epoch: int, rank: int) -> None:
        """The same file whatever the number of processes."""
        state = {name: part.state_dict() for name, part in self.parts().items()}
        state |= {
            "queue": self.queue.full_state_dict(),
            "epoch": epoch,
            "epochs": self.epochs,
        }  # on all ranks, as the queue may be sharded
        if rank == 0:
            torch.save(state, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)  # in one go: a kill while it writes leaves the last one whole

    def resume(self, path: Path, device: torch.device) -> int:
        """How many epochs are done."""
        if not path.exists():
            return 0
        state = torch.load(path, map_location=device, weights_only=True)
        if state["epochs"] != self.epochs:
            raise SystemExit(
                f"{path} is of a training of {state['epochs']} epochs, whose learning rate falls to 0 at their end; "
                f"go on with --epochs {state['epochs']}, or give another --checkpoint for {self.epochs}."
            )
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.queue.load_state_dict(state["queue"])
        return state["epoch"]


def train_epoch(training: Training, criterion: nn.Module, data: Data, sampler: DistributedSampler, batch: int) -> None:
    training.model.train()
    for rows in torch.tensor(list(sampler)).split(batch):
        ids = rows.to(data.images.device)
        _, query = training.model(strong(data.images[ids]))
        with torch.no_grad():
            _, key = training.momentum(weak(data.images[ids]))
        loss = criterion(query, key, data.coarse[ids], training.queue, sample_ids=ids)  # of this process's rows alone
        training.queue.enqueue(key, data.coarse[ids], ids)  # all processes store the keys of all

        training.optimizer.zero_grad()
        loss.backward()  # DDP takes the mean over the processes
        training.optimizer.step()
        training.schedule.step()
        training.momentum.update_parameters(training.encoder)


@torch.no_grad()
def recalls(encoder: Encoder, test: Data) -> list[float]:
    """Recall@K in percent, of images against each other: on every process the same."""
    return [100 * share for share in recall_at_k(encoder.eval()(test.images)[0], test.fine, DEPTHS).values()]


def train(epochs: int, checkpoint: Path, sharded: bool) -> None:
    """Up to ``epochs`` in all, going on from the checkpoint where there is one."""
    rank, world, device = place()
    data, test = load("parity")
    batch = math.ceil(BATCH / world)  # of each process
    sampler = DistributedSampler(TensorDataset(data.fine), world, rank, seed=0)
    training = Training(epochs, math.ceil(len(sampler) / batch), device, sharded)
    rows = {"untrained encoder": recalls(training.encoder, test)}
    done = training.resume(checkpoint, device)
    if rank == 0 and done:
        print(f"{checkpoint}: {done} epochs are done, going on.")

    criterion = MaskConLoss(weight=0.8, target_temperature=0.1)
    for epoch in tqdm(range(done, epochs), initial=done, total=epochs, unit="epoch", disable=rank > 0):
        sampler.set_epoch(epoch)
        torch.manual_seed(1000 * epoch + rank)  # of the distortions: a resumed epoch is the one that was broken off
        train_epoch(training, criterion, data, sampler, batch)
        training.save(checkpoint, epoch + 1, rank)
    rows[f"MaskCon, {max(done, epochs)} epochs"] = recalls(training.encoder, test)

    if rank == 0:
        print(f"| Recall in % | {' | '.join(f'R@{depth}' for depth in DEPTHS)} |\n|{' --- |' * (1 + len(DEPTHS))}")
        for name, row in rows.items():
            print(f"| {name} | {' | '.join(f'{value:.1f}' for value in row)} |")
        kept = f"{training.queue.keys.shape[0]} of its {QUEUE} keys on process 0" if sharded else "whole on each"
        print(f"Processes: {world}, on {device}. Queue: {kept}. Checkpoint: {checkpoint}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="how many to train in all (default: 30)")
    parser.add_argument(
        "--checkpoint", type=Path, default="ddp.pt", help="file to write and go on from (default: ddp.pt)"
    )
    parser.add_argument("--sharded", action="store_true", help="spread the queue over the processes")
    parser.add_argument("--smoke", action="store_true", help="two epochs, only to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "RANK" in os.environ:  # set by torchrun
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    train(2 if arguments.smoke else arguments.epochs, arguments.checkpoint, arguments.sharded)
    if dist.is_initialized():  # only now, as the DDP module is gone: it may never end otherwise
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
