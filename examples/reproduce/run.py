"""All that changes while a run goes on, and its checkpoint."""

import os
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.reproduce.augment import plain
from examples.reproduce.data import Data
from examples.reproduce.formats import tensors
from examples.reproduce.machine import Machine
from examples.reproduce.model import Encoder, load_backbone
from examples.reproduce.patches import Patches
from examples.reproduce.settings import Settings
from maskcon_loss import MemoryQueue

SEEN = 2000  # training images whose patches become filters, where the backbone is made of them


class Run:
    """Encoders, queue and optimiser of one run, and how far it has come."""

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
        for layer in self.model.modules():
            if isinstance(layer, Patches):
                layer.fit(plain(settings)(train.images[:SEEN].cpu()))
                self.start = f"filters from the patches of {min(SEEN, len(train.images)):,} training images"
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
        counters["amp"] = self.machine.amp
        return counters | {name: part.state_dict() for name, part in self.parts().items()}

    def restore(self, path: Path) -> None:
        state = tensors(path, self.machine.device)
        if (amp := state.pop("amp")) != self.machine.amp:
            raise ValueError(
                f"{path} was written with --amp {amp}, and this run has --amp {self.machine.amp}, so it would not go "
                f"on as it began; give --amp {amp}, or another --out."
            )
        for name, part in self.parts().items():
            part.load_state_dict(state.pop(name))
        for name, value in state.items():
            setattr(self, name, value)

    def save(self, path: Path) -> None:
        """Whole or not at all: an interrupted write leaves the checkpoint before."""
        torch.save(self.state(), path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)
