"""SimCLR: one encoder, two views, no queue. Under `# before:` stands what each changed line replaces.

    pip install -e ".[examples]"
    python examples/loops/simclr.py            # 15 seconds on one core
    python examples/loops/simclr.py --smoke    # only to see that it runs

Trains on scanned digits that are labelled odd or even, and prints how often a held-out digit finds the same digit
among its nearest neighbours, before and after.
"""

import argparse

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from maskcon_loss import MaskConLoss, recall_at_k

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPOCHS, BATCH, RATE, DIM = 40, 64, 6e-3, 64
crooked = K.RandomAffine(20.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10.0, p=1.0)  # the data, once and for all
distort = K.RandomAffine(20.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10.0, p=1.0)


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and whether they are odd; held-out images and which digit they are."""
    pixels, digits = load_digits(return_X_y=True)
    torch.manual_seed(0)
    images = crooked(F.pad(torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, (1, 1, 1, 1))).to(DEVICE)
    fine = torch.tensor(digits).to(DEVICE)
    train, test = train_test_split(range(len(digits)), test_size=540, stratify=digits, random_state=0)
    return images[train], fine[train] % 2, images[test], fine[test]


def block(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


def new_encoder() -> nn.Sequential:
    """A backbone, whose features are judged, and a projector, whose output the loss compares."""
    blocks = [block(1, 16, 1), block(16, 32, 2), block(32, 32, 1), block(32, 64, 2)]
    backbone = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    projector = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, DIM))
    return nn.Sequential(backbone, projector).to(DEVICE)


def train(encoder: nn.Module, images: Tensor, coarse_labels: Tensor, epochs: int) -> None:
    encoder.train()
    # before: criterion = NTXentLoss(temperature=0.1)
    # A random encoder's similarities mean little, and with weight=1.0 all of the mass follows them: it can collapse.
    criterion = MaskConLoss(weight=0.8, target_temperature=0.1)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * -(-len(images) // BATCH))

    for _ in range(epochs):
        for ids in torch.randperm(len(images)).to(DEVICE).split(BATCH):
            one, other = encoder(torch.cat([distort(images[ids]), distort(images[ids])])).chunk(2)

            # Both views are queries, each is the key of the other, and all keys of the batch are the memory. The ids
            # keep a query from meeting itself in it. Keys get their gradient: nothing is under `no_grad`.
            # before: loss = criterion(one, other)
            loss = criterion(
                torch.cat([one, other]),
                torch.cat([other, one]),
                coarse_labels[ids].repeat(2),
                sample_ids=ids.repeat(2),
            )

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
    before = recalls(encoder, test_images, test_fine)
    train(encoder, images, coarse_labels, epochs)
    print("| Recall in % | R@1 | R@2 | R@5 | R@10 |\n| --- | --- | --- | --- | --- |")
    print(f"| untrained encoder | {before} |")
    print(f"| MaskCon, {epochs} epochs | {recalls(encoder, test_images, test_fine)} |")


if __name__ == "__main__":
    main()
