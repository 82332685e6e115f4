"""MaskCon on the digits over w and T', from scratch and from a warm encoder, judged with and without fine labels.

    python -m docs.pictures.sweep             # 15 minutes on one core; writes sweep.csv beside this file
    python -m docs.pictures.sweep --smoke     # two settings, one epoch

Trains on three quarters of the training images of `examples/digits.py` and judges on the last quarter: no test image
takes part. Beside Recall@1 on the fine labels stand three numbers that need none:

- `own_image`: how often a distorted view of an image finds another view of the same image;
- `coarse`: Recall@1 on the coarse labels;
- `effective`: the effective positives at the end of the training (`diagnose`).
"""

import argparse
import csv
import math
from pathlib import Path

import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from tqdm import tqdm

from examples.digits import DIM, EPOCHS, QUEUE, WARM_EPOCHS, Data, Encoder, embed, load, strong, train
from maskcon_loss import MaskConLoss, MemoryQueue, SelfConLoss, diagnose, recall_at_k

HERE = Path(__file__).parent
WEIGHTS, TARGET_TEMPERATURES = (0.5, 0.8, 1.0), (0.02, 0.05, 0.1, 0.2, math.inf)
FIELDS = ("start", "seed", "weight", "target_temperature", "fine", "own_image", "coarse", "effective")


def filled(encoder: Encoder, memory: Data) -> MemoryQueue:
    queue = MemoryQueue(QUEUE, DIM)
    queue.enqueue(embed(encoder, memory.images)[1], memory.coarse)
    return queue


@torch.no_grad()
def judge(model: Encoder, criterion: MaskConLoss, memory: Data, held_out: Data) -> dict[str, float]:
    """What can be said of a trained encoder, in percent but for `effective`."""
    features, key = embed(model, held_out.images)
    queue = filled(model, memory)
    torch.manual_seed(0)
    views: list[Tensor] = [embed(model, strong(held_out.images))[0] for _ in range(2)]
    which = torch.arange(len(key))
    return {
        "fine": 100 * recall_at_k(features, held_out.fine, 1)[1],
        "own_image": 100 * recall_at_k(views[0], which, 1, gallery=views[1], gallery_labels=which)[1],
        "coarse": 100 * recall_at_k(features, held_out.coarse, 1)[1],
        "effective": diagnose(criterion, key, held_out.coarse, queue)["effective_positives"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "sweep.csv")
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds, warm_epochs, epochs = (1, 1, 1) if arguments.smoke else (arguments.seeds, WARM_EPOCHS, EPOCHS)
    pairs = [(0.0, math.inf)] + [(w, t) for w in WEIGHTS for t in TARGET_TEMPERATURES]
    pairs = pairs[:2] if arguments.smoke else pairs
    data, _ = load("parity")
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(data.fine, data.fine))

    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        with tqdm(total=seeds * (warm_epochs + len(pairs) * (2 * epochs + warm_epochs)), unit="epoch") as bar:
            for seed in range(seeds):
                kept, held_out = (data.at(rows) for rows in folds[seed % 4])
                torch.manual_seed(seed)
                untrained = Encoder()
                warm = train(untrained, SelfConLoss(), kept.images, kept.coarse, warm_epochs, bar)
                for weight, target_temperature in pairs:
                    criterion = MaskConLoss(weight, target_temperature=target_temperature)
                    for start, encoder in (("warm", warm), ("scratch", untrained)):
                        torch.manual_seed(seed)
                        # From scratch it trains as long as the warm start and what follows it together.
                        length = epochs if start == "warm" else warm_epochs + epochs
                        model = train(encoder, criterion, kept.images, kept.coarse, length, bar)
                        settings = (start, seed, weight, target_temperature)
                        judged = {
                            name: round(value, 3) for name, value in judge(model, criterion, kept, held_out).items()
                        }
                        writer.writerow(dict(zip(FIELDS, settings, strict=False)) | judged)
                        file.flush()


if __name__ == "__main__":
    main()
