"""One run: a loop as in MoCo, the same for every method, with checkpoints and an exact resume."""

import csv
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from examples.reproduce.augment import augmentations, plain
from examples.reproduce.data import Data
from examples.reproduce.machine import Machine
from examples.reproduce.methods import Views, criterion, loss_of, told
from examples.reproduce.model import Encoder, load_backbone
from examples.reproduce.settings import Settings, differences, warm_start
from maskcon_loss import MemoryQueue, recall_at_k

DEPTHS = (1, 2, 5, 10)


class Run:
    """All that changes while a run goes on; `state` and `restore` are its checkpoint."""

    def __init__(self, settings: Settings, machine: Machine, train: Data) -> None:
        if len(train.fine) < settings.batch:
            raise ValueError(
                f"there are {len(train.fine)} training images, fewer than the batch of {settings.batch}; "
                "give a smaller --batch or more images."
            )
        self.settings, self.machine = settings, machine
        torch.manual_seed(settings.seed)
        layout = torch.channels_last if machine.channels_last else torch.contiguous_format
        self.model = Encoder(settings, int(train.coarse.max()) + 1)
        self.start = "from scratch"
        if settings.weights:
            self.start = load_backbone(self.model, Path(settings.weights))
        self.model = self.model.to(machine.device, memory_format=layout)  # pyright: ignore[reportCallIssue]
        self.prepare()

    def prepare(self) -> None:
        """All that follows from the encoder's first weights."""
        settings, device = self.settings, self.machine.device
        momentum = get_ema_multi_avg_fn(settings.momentum)
        # Both encoders normalise each batch by itself (train mode); `use_buffers` keeps the averages in step too.
        self.momentum = AveragedModel(self.model, multi_avg_fn=momentum, use_buffers=True)
        self.queue = MemoryQueue(settings.queue, settings.dim, device=device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), settings.lr, momentum=0.9, weight_decay=settings.weight_decay
        )
        self.scaler = torch.amp.GradScaler(device.split(":")[0], enabled=self.machine.amp == "fp16")
        self.epoch, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []

    def parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("model", "momentum", "queue", "optimizer", "scaler")}

    def state(self) -> dict[str, Any]:
        counters = {"epoch": self.epoch, "seconds": self.seconds, "history": self.history, "start": self.start}
        return counters | {name: part.state_dict() for name, part in self.parts().items()}

    def restore(self, path: Path) -> None:
        state = torch.load(path, map_location=self.machine.device, weights_only=True)
        for name, part in self.parts().items():
            part.load_state_dict(state.pop(name))
        for name, value in state.items():
            setattr(self, name, value)


def rate(settings: Settings, epoch: float) -> float:
    """The learning rate: linear warm-up, then a cosine to 0; `epoch` counts fractions too."""
    if epoch < settings.warm_up:
        return settings.lr * epoch / settings.warm_up
    done = (epoch - settings.warm_up) / max(settings.epochs - settings.warm_up, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def train_epoch(run: Run, data: Data, forward: Callable, forward_key: Callable) -> float:
    """One epoch; the mean loss. Its randomness depends on seed and epoch alone, so a resumed run draws the same."""
    settings, machine = run.settings, run.machine
    strong, weak = augmentations(settings)
    loss_function = criterion(settings)
    labels = data.fine if told(settings) == "fine" else data.coarse
    torch.manual_seed(1_000_003 * (settings.seed + 1) + run.epoch)
    steps = len(labels) // settings.batch  # batches are all of one size: the last, incomplete one is left out
    order = torch.randperm(len(labels))[: steps * settings.batch].to(machine.device)
    total = torch.zeros((), device=machine.device)

    for step, ids in enumerate(order.split(settings.batch)):
        for group in run.optimizer.param_groups:
            group["lr"] = rate(settings, run.epoch + (step + 1) / steps)
        with machine.clock("augmentation"):
            images = data.images[ids]
            query_view, key_view = (laid_out(view(images), machine) for view in (strong, weak))
        with machine.clock("encoder"), machine.autocast():
            _, query, logits = forward(query_view)
            with torch.no_grad():
                _, key, _ = forward_key(key_view)
        with machine.clock("loss"):
            views = Views(query.float(), key.float(), logits, labels[ids], ids)
            loss = loss_of(loss_function, views, run.queue)
        with machine.clock("queue"):
            run.queue.enqueue(views.key, views.labels, ids)
        with machine.clock("encoder"):
            run.optimizer.zero_grad()
            run.scaler.scale(loss).backward()
            run.scaler.step(run.optimizer)
            run.scaler.update()
            run.momentum.update_parameters(run.model)
        total += loss.detach()
    return float(total) / steps


def laid_out(images: Tensor, machine: Machine) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if machine.channels_last else images


@torch.no_grad()
def features(model: nn.Module, data: Data, settings: Settings, machine: Machine) -> Tensor:
    """Backbone features (N, F) of the images as they are, in eval mode: what the paper judges."""
    model.eval()
    view = plain(settings)
    with machine.autocast():
        found = [model(laid_out(view(some.to(machine.device)), machine))[0].float() for some in data.images.split(500)]
    model.train()
    return torch.cat(found)


def judge(model: nn.Module, data: Data, settings: Settings, machine: Machine) -> dict[int, float]:
    """Recall@K in percent, of the images against each other, by the fine class."""
    shares = recall_at_k(features(model, data, settings, machine), data.fine.to(machine.device), DEPTHS)
    return {depth: round(100 * share, 3) for depth, share in shares.items()}


def train(
    settings: Settings, machine: Machine, data: Data, test: Data, out: Path, *, stop_after: int = 0, name: str = ""
) -> dict[str, Any] | None:
    """A run from its start, or from its checkpoint, to its result; None if it stopped before, by `stop_after`.

    Writes OUT/NAME/: settings.json, log.csv, checkpoint.pt and, in the end, result.json.
    """
    folder = out / settings.dataset / (name or settings.name)
    if (folder / "settings.json").is_file():
        same_settings(folder, settings)
        if (folder / "result.json").is_file():
            return json.loads((folder / "result.json").read_text())
    data = Data(*(tensor.to(machine.device) for tensor in data))
    run = Run(settings, machine, data)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.is_file():
        run.restore(checkpoint)
    elif settings.warm_start:
        warm = warm_start(settings)
        if train(warm, machine, data, test, out, stop_after=stop_after, name=f"warm-seed{settings.seed}") is None:
            return None
        before = torch.load(out / settings.dataset / f"warm-seed{settings.seed}" / "checkpoint.pt", weights_only=True)
        run.model.load_state_dict(before["model"])
        run.prepare()
        run.start = f"{settings.warm_start} epochs of SelfCon {before['start']}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "settings.json", asdict(settings))

    compiled = torch.compile if machine.compile else lambda module: module
    forward, forward_key = compiled(run.model), compiled(run.momentum.module)
    board = tensorboard(folder)
    machine.seconds.clear()
    bar = tqdm(total=settings.epochs, initial=run.epoch, desc=f"{settings.dataset} {folder.name}", unit="epoch")
    here = 0
    with bar:
        while run.epoch < settings.epochs:
            if stop_after and here == stop_after:
                return None
            began = time.perf_counter()
            loss = train_epoch(run, data, forward, forward_key)
            machine.wait()
            seconds = time.perf_counter() - began
            images = len(data.fine) // settings.batch * settings.batch
            run.epoch, run.seconds, here = run.epoch + 1, run.seconds + seconds, here + 1
            row = {"epoch": run.epoch, "loss": loss, "images_per_s": round(images / seconds, 1)}
            run.history.append(row)
            write_csv(folder / "log.csv", run.history)
            save(checkpoint, run.state())
            for key in ("loss", "images_per_s") if board else ():
                board.add_scalar(key, row[key], run.epoch)
            bar.set_postfix({"loss": f"{loss:.3f}", "images/s": f"{row['images_per_s']:.0f}"})
            bar.update()

    result = {
        "settings": asdict(settings),
        "recall": judge(run.model, test, settings, machine),
        "judged": f"{len(test.fine)} {'held-out training' if settings.hold_out else 'test'} images",
        "start": run.start,
        "train_images": len(data.fine),
        "minutes": round(run.seconds / 60, 3),
        "images_per_s": round(sum(row["images_per_s"] for row in run.history) / len(run.history), 1),
        "hardware": machine.describe(),
        "torch": torch.__version__,
        "shares": machine.shares(),
    }  # fmt: skip
    write_json(folder / "result.json", result)
    return json.loads((folder / "result.json").read_text())


def same_settings(folder: Path, settings: Settings) -> None:
    """Refuse to go on with, or to hand out, a run of other settings."""
    there = Settings(**json.loads((folder / "settings.json").read_text()))
    if there != settings:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(differences(there, settings))}); "
            "give another --out, or delete that folder."
        )


def save(path: Path, state: dict[str, Any]) -> None:
    """Whole or not at all: an interrupted write leaves the checkpoint before."""
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def tensorboard(folder: Path) -> Any:
    """TensorBoard's writer where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
