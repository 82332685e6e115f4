"""Lightning: queue and momentum encoder as parts of the module. `# before:` is what is replaced.

    pip install -e ".[loops]"
    python examples/loops/with_lightning.py            # 15 seconds on one core
    python examples/loops/with_lightning.py --smoke    # only to see that it runs

Trains on scanned digits that are labelled odd or even, and prints how often a held-out digit finds the same digit
among its nearest neighbours, before and after.
"""

# pyright: reportMissingImports=false
import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import kornia.augmentation as K
import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from maskcon_loss import MaskConLoss, MemoryQueue, diagnose, recall_at_k

EPOCHS, BATCH, RATE, QUEUE, DIM, MOMENTUM = 40, 64, 6e-3, 512, 64, 0.99
crooked = K.RandomAffine(20.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10.0, p=1.0)  # the data, once and for all
strong = K.RandomAffine(20.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10.0, p=1.0)
weak = K.RandomAffine(5.0, translate=(0.03, 0.03), p=1.0)


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and whether they are odd; held-out images and which digit they are."""
    pixels, digits = load_digits(return_X_y=True)
    torch.manual_seed(0)
    images = crooked(F.pad(torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, (1, 1, 1, 1)))
    fine = torch.tensor(digits)
    train, test = train_test_split(range(len(digits)), test_size=540, stratify=digits, random_state=0)
    return images[train], fine[train] % 2, images[test], fine[test]


def block(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


def new_encoder() -> nn.Sequential:
    """A backbone, whose features are judged, and a projector, whose output the loss compares."""
    blocks = [block(1, 16, 1), block(16, 32, 2), block(32, 32, 1), block(32, 64, 2)]
    backbone = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(backbone, nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, DIM)))


class MaskCon(L.LightningModule):
    """A module whose checkpoints hold the momentum encoder and the queue."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.encoder = new_encoder()
        # Submodules: in the checkpoint, and on the device with the rest. Frozen: DDP waits for a gradient otherwise.
        ema = get_ema_multi_avg_fn(MOMENTUM)
        self.momentum_encoder = AveragedModel(self.encoder, multi_avg_fn=ema, use_buffers=True).requires_grad_(False)
        # before: self.register_buffer("queue", torch.randn(DIM, QUEUE)), and its pointer
        self.queue = MemoryQueue(QUEUE, DIM)
        # With weight=1.0 all mass follows the similarities of a random encoder, which mean little: it can collapse.
        self.criterion = MaskConLoss(weight=0.8, target_temperature=0.1)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        images, labels, ids = batch
        query = self.encoder(strong(images))
        with torch.no_grad():
            key = self.momentum_encoder(weak(images))
        # before: loss = info_nce(query, key, self.queue)
        loss = self.criterion(query, key, labels, self.queue, sample_ids=ids)
        if (self.global_step + 1) % 100 == 0:  # the steps of which Lightning keeps what is logged
            self.log_dict(diagnose(self.criterion, key, labels, self.queue, sample_ids=ids))  # before `enqueue`
        # before: self.dequeue_and_enqueue(key)
        self.queue.enqueue(key, labels, ids)
        return loss

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:  # after the optimiser's step
        self.momentum_encoder.update_parameters(self.encoder)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.encoder.parameters(), lr=RATE)  # not the momentum encoder's
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def recalls(model: MaskCon, images: Tensor, fine: Tensor) -> str:
    """Recall@K in percent, of the features before the projector."""
    return " | ".join(f"{100 * share:.1f}" for share in recall_at_k(model.eval().encoder[0](images), fine).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two epochs, only to see that it runs")
    epochs = 2 if parser.parse_args().smoke else EPOCHS
    torch.set_num_threads(1)  # the matrices are tiny
    images, coarse_labels, test_images, test_fine = load()
    loader = DataLoader(TensorDataset(images, coarse_labels, torch.arange(len(images))), BATCH, shuffle=True)
    model = MaskCon(epochs * len(loader))
    before = recalls(model, test_images, test_fine)
    # Half of the epochs, then a new module and trainer go on from the checkpoint, which holds the queue as well.
    with TemporaryDirectory() as folder:
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        settings = {"accelerator": "cpu", "log_every_n_steps": 100, "logger": CSVLogger(folder), **quiet}
        trainer = L.Trainer(max_epochs=epochs // 2, **settings)
        trainer.fit(model.train(), loader)  # `recalls` left it in eval mode, and so would Lightning
        trainer.save_checkpoint(Path(folder) / "half.ckpt")
        model, trainer = MaskCon(epochs * len(loader)), L.Trainer(max_epochs=epochs, **settings)
        trainer.fit(model, loader, ckpt_path=Path(folder) / "half.ckpt", weights_only=True)
    print("logged last:", ", ".join(f"{name} {number:.3g}" for name, number in trainer.logged_metrics.items()))
    print("| Recall in % | R@1 | R@2 | R@5 | R@10 |\n| --- | --- | --- | --- | --- |")
    print(f"| untrained encoder | {before} |")
    print(f"| MaskCon, {epochs} epochs | {recalls(model, test_images, test_fine)} |")


if __name__ == "__main__":
    main()
