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
from tqdm import tqdm

from examples.reproduce.augment import augmentations
from examples.reproduce.data import Data
from examples.reproduce.evaluate import judge
from examples.reproduce.formats import tensors
from examples.reproduce.machine import Machine, laid_out
from examples.reproduce.methods import Views, criterion, loss_of, told
from examples.reproduce.run import Run
from examples.reproduce.settings import Settings, differences, warm_start


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
        before = tensors(out / settings.dataset / f"warm-seed{settings.seed}" / "checkpoint.pt", machine.device)
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
            run.save(checkpoint)
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


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all, as the checkpoint."""
    path.with_suffix(".new").write_text(json.dumps(value, indent=2) + "\n")
    os.replace(path.with_suffix(".new"), path)


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
