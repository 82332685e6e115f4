"""Accelerate: what to prepare, and what not. `# before:` is what is replaced.

    pip install -e ".[loops]"
    python examples/loops/with_accelerate.py            # 15 seconds on one core
    python examples/loops/with_accelerate.py --smoke    # only to see that it runs

Trains on scanned digits that are labelled odd or even, and prints how often a held-out digit finds the same digit
among its nearest neighbours, before and after.
"""

# pyright: reportMissingImports=false
import argparse

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from maskcon_loss import MaskConLoss, MemoryQueue, recall_at_k

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
    projector = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, DIM))
    return nn.Sequential(backbone, projector)


def train(accelerator: Accelerator, encoder: nn.Module, images: Tensor, coarse_labels: Tensor, epochs: int) -> None:
    encoder.to(accelerator.device).train()
    # Not prepared: neither is trained by the optimiser. `save_state` and `load_state` keep them all the same.
    momentum_encoder = AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(MOMENTUM), use_buffers=True)
    # before: queue = F.normalize(torch.randn(DIM, QUEUE), dim=0), lost at every resume
    queue = MemoryQueue(QUEUE, DIM, device=accelerator.device)
    accelerator.register_for_checkpointing(momentum_encoder, queue)
    # before: cross_entropy = nn.CrossEntropyLoss()
    # A random encoder's similarities mean little, and with weight=1.0 all of the mass follows them: it can collapse.
    criterion = MaskConLoss(weight=0.8, target_temperature=0.1)
    loader = DataLoader(TensorDataset(images, coarse_labels, torch.arange(len(images))), BATCH, shuffle=True)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * len(loader))
    model, optimizer, loader, schedule = accelerator.prepare(encoder, optimizer, loader, schedule)

    for _ in range(epochs):
        for batch, labels, ids in loader:
            query = model(strong(batch))
            with torch.no_grad(), accelerator.autocast():  # which `prepare` has put around `model`
                key = momentum_encoder(weak(batch))

            # before: logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue], 1) / temperature
            #         loss = cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
            loss = criterion(query, key, labels, queue, sample_ids=ids)
            # before: keys = accelerator.gather(key); queue[:, pointer : pointer + len(keys)] = keys.T
            queue.enqueue(key, labels, ids)  # gathers from all processes by itself

            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            momentum_encoder.update_parameters(encoder)


@torch.no_grad()
def recalls(encoder: nn.Sequential, images: Tensor, fine: Tensor) -> str:
    """Recall@K in percent, of the features before the projector."""
    return " | ".join(f"{100 * share:.1f}" for share in recall_at_k(encoder.cpu().eval()[0](images), fine).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two epochs, only to see that it runs")
    epochs = 2 if parser.parse_args().smoke else EPOCHS
    torch.set_num_threads(1)  # the matrices are tiny
    accelerator = Accelerator()
    images, coarse_labels, test_images, test_fine = load()
    encoder = new_encoder()
    before = recalls(encoder, test_images, test_fine)
    train(accelerator, encoder, images, coarse_labels, epochs)
    accelerator.print("| Recall in % | R@1 | R@2 | R@5 | R@10 |\n| --- | --- | --- | --- | --- |")
    accelerator.print(f"| untrained encoder | {before} |")
    accelerator.print(f"| MaskCon, {epochs} epochs | {recalls(encoder, test_images, test_fine)} |")


if __name__ == "__main__":
    main()
