"""lightly: where NTXentLoss with its memory bank stood. `# before:` is what is replaced.

    pip install -e ".[loops]"
    python examples/loops/with_lightly.py            # 20 seconds on one core
    python examples/loops/with_lightly.py --smoke    # only to see that it runs

Trains on scanned digits that are labelled odd or even, and prints how often a held-out digit finds the same digit
among its nearest neighbours, before and after.
"""

# pyright: reportMissingImports=false
import argparse
import copy
import functools

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.multi_view_transform import MultiViewTransform
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from maskcon_loss import MaskConLoss, MemoryQueue, recall_at_k

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPOCHS, BATCH, RATE, QUEUE, DIM, MOMENTUM = 30, 64, 6e-3, 512, 64, 0.99
crooked = K.RandomAffine(20.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10.0, p=1.0)  # the data, once and for all
affine = functools.partial(v2.RandomAffine, interpolation=v2.InterpolationMode.BILINEAR)
strong_view, weak_view = affine([-20.0, 20.0], (0.1, 0.1), (0.8, 1.2), 10.0), affine([-5.0, 5.0], (0.03, 0.03))
two_views = MultiViewTransform([strong_view, weak_view])


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and whether they are odd; held-out images and which digit they are."""
    pixels, digits = load_digits(return_X_y=True)
    torch.manual_seed(0)
    images = crooked(F.pad(torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, (1, 1, 1, 1)))
    fine = torch.tensor(digits)
    train, test = train_test_split(range(len(digits)), test_size=540, stratify=digits, random_state=0)
    return images[train], fine[train] % 2, images[test], fine[test]


class Digits(Dataset):
    """Two views of an image, its coarse label, and its place, by which an image does not meet itself in the queue."""

    def __init__(self, images: Tensor, coarse_labels: Tensor) -> None:
        self.images, self.coarse_labels = images, coarse_labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[object, Tensor, int]:
        return two_views(self.images[row]), self.coarse_labels[row], row


def block(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


def new_encoder() -> nn.Sequential:
    """A backbone, whose features are judged, and a projector, whose output the loss compares."""
    blocks = [block(1, 16, 1), block(16, 32, 2), block(32, 32, 1), block(32, 64, 2)]
    backbone = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(backbone, MoCoProjectionHead(64, 128, DIM)).to(DEVICE)


def train(encoder: nn.Module, images: Tensor, coarse_labels: Tensor, epochs: int) -> None:
    encoder.train()
    momentum_encoder = copy.deepcopy(encoder)
    deactivate_requires_grad(momentum_encoder)
    # before: criterion = NTXentLoss(temperature=0.1, memory_bank_size=(QUEUE, DIM))
    # A random encoder's similarities mean little, and with weight=1.0 all of the mass follows them: it can collapse.
    criterion = MaskConLoss(weight=0.8, target_temperature=0.1)
    queue = MemoryQueue(QUEUE, DIM, device=DEVICE)
    loader = DataLoader(Digits(images, coarse_labels), BATCH, shuffle=True)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * len(loader))

    for _ in range(epochs):
        # before: for (strong, weak), _ in loader:
        for (strong, weak), labels, ids in loader:
            strong, weak, labels, ids = (tensor.to(DEVICE) for tensor in (strong, weak, labels, ids))
            update_momentum(encoder, momentum_encoder, m=MOMENTUM)  # parameters; each encoder keeps its own buffers
            query = encoder(strong)
            with torch.no_grad():
                key = momentum_encoder(weak)

            # before: loss = criterion(query, key), which stores the keys as well, if `query` requires a gradient
            loss = criterion(query, key, labels, queue, sample_ids=ids)
            queue.enqueue(key, labels, ids)

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def recalls(encoder: nn.Sequential, images: Tensor, fine: Tensor) -> str:
    """Recall@K in percent, of the features before the projector."""
    return " | ".join(f"{100 * share:.1f}" for share in recall_at_k(encoder.eval()[0](images), fine).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two epochs, only to see that it runs")
    epochs = 2 if parser.parse_args().smoke else EPOCHS
    torch.set_num_threads(1)  # the matrices are tiny
    images, coarse_labels, test_images, test_fine = load()
    encoder = new_encoder()
    before = recalls(encoder, test_images.to(DEVICE), test_fine)
    train(encoder, images, coarse_labels, epochs)
    print("| Recall in % | R@1 | R@2 | R@5 | R@10 |\n| --- | --- | --- | --- | --- |")
    print(f"| untrained encoder | {before} |")
    print(f"| MaskCon, {epochs} epochs | {recalls(encoder, test_images.to(DEVICE), test_fine)} |")


if __name__ == "__main__":
    main()
