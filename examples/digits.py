"""Find the ten digits with labels that say only "even" or "odd": MaskCon beside the losses it is compared with.

    pip install -e ".[examples]"
    python examples/digits.py            # 70 to 90 seconds on one core; nothing is downloaded
    python examples/digits.py --smoke    # the same in ten seconds, only to see that it runs: its numbers mean nothing

The data are scikit-learn's 1,797 scanned digits. As they come, centred and upright, they are too easy (raw pixels find
98 % of the neighbours), so each scan is turned, shifted and resized a little, once and for all. The paper starts from
ImageNet weights; here all methods start from one warm encoder, trained by SelfCon, which uses no label.

Prints one table of Recall@K on images that no training has seen, and writes two pictures: where the soft targets put
their mass, and a map of the embedding. The loop to copy is `train`.
"""

import argparse
import copy
import math
import time
from pathlib import Path
from typing import NamedTuple

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from maskcon_loss import (
    CoarseMaskSoftTargets,
    CoInsLoss,
    GrafitLoss,
    MaskConLoss,
    MemoryQueue,
    SelfConLoss,
    SupConLoss,
    recall_at_k,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
COARSE = {"parity": ("even", "odd"), "half": ("0 to 4", "5 to 9")}
DEPTHS = (1, 2, 5, 10)
RIGHT, WRONG, OWN = "tab:green", "tab:red", "tab:gray"  # colours in the picture of the soft targets

# The same for all methods, chosen by hand on the folds of `--tune`. No test image took part.
WARM_EPOCHS, EPOCHS, BATCH, RATE, QUEUE, MOMENTUM = 30, 15, 64, 6e-3, 512, 0.99
WIDTHS, STRIDES, DIM = (16, 32, 32, 64), (1, 2, 1, 2), 64
crooked = K.RandomAffine(20.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10.0, p=1.0)  # the data, once and for all
strong = K.RandomAffine(20.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10.0, p=1.0)
weak = K.RandomAffine(5.0, translate=(0.03, 0.03), p=1.0)

# Nine settings for each method that has any, and those with the best mean Recall@1 over the folds of `--tune`; their
# neighbours are often as good within the deviation. Weights 0 and 1 are methods of their own: SelfCon, SupCon, SupCE.
GRID: dict[str, nn.Module] = {
    **{f"Grafit {w / 10}": GrafitLoss(w / 10) for w in range(1, 10)},
    **{f"CoIns {w / 10}": CoInsLoss(w / 10) for w in range(1, 10)},
    **{f"MaskCon {w}, {t}": MaskConLoss(w, target_temperature=t) for w in (0.5, 0.8, 1.0) for t in (0.05, 0.1, 0.2)},
}
TUNED = {
    "parity": (GrafitLoss(0.6), CoInsLoss(0.5), MaskConLoss(1.0, target_temperature=0.1)),
    "half": (GrafitLoss(0.5), CoInsLoss(0.8), MaskConLoss(1.0, target_temperature=0.1)),
}


def methods(coarse: str) -> dict[str, nn.Module]:
    """The seven methods: this is all that differs between them."""
    grafit, coins, maskcon = TUNED[coarse]
    return {
        "SelfCon": SelfConLoss(),
        "SupCE": CoInsLoss(weight=1.0),  # the classifier's cross-entropy alone
        "SupCon": SupConLoss(),
        "Grafit": grafit,
        "CoIns": coins,
        "MaskCon": maskcon,
        "SupFINE": SupConLoss(),  # the ceiling: it alone is given the fine labels
    }


class Data(NamedTuple):
    """Images with both their labels."""

    images: Tensor  # (N, 1, 10, 10)
    coarse: Tensor  # (N,) what training is told
    fine: Tensor  # (N,) the digit, for SupFINE and for the evaluation

    def at(self, rows: ArrayLike) -> "Data":
        return Data(*(tensor[torch.as_tensor(rows)] for tensor in self))


def load(coarse: str) -> tuple[Data, Data]:
    """Training and test data, distorted and split the same way every time."""
    pixels, digits = load_digits(return_X_y=True)
    images, fine = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(digits).to(DEVICE)
    torch.manual_seed(0)
    images = crooked(F.pad(images, (1, 1, 1, 1))).to(DEVICE)
    data = Data(images, fine % 2 if coarse == "parity" else fine // 5, fine)
    train, test = train_test_split(range(len(digits)), test_size=540, stratify=digits, random_state=0)
    return data.at(train), data.at(test)


class Encoder(nn.Module):
    """A backbone, whose features are judged, and a projector, whose output the losses compare."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in zip((1, *WIDTHS), WIDTHS, STRIDES, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.projector = nn.Sequential(nn.Linear(WIDTHS[-1], 128), nn.ReLU(), nn.Linear(128, DIM))
        self.classifier = nn.Linear(WIDTHS[-1], 2)  # of the coarse classes, for SupCE and CoIns

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(images)
        return features, self.projector(features)


def train(start: Encoder, criterion: nn.Module, images: Tensor, labels: Tensor, epochs: int, bar: tqdm) -> Encoder:
    """A loop as in MoCo, from the weights of `start`: the same for every criterion."""
    model = copy.deepcopy(start).train()
    # Both encoders normalise each batch by itself (train mode); `use_buffers` keeps batch norm's averages in step too.
    momentum = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(MOMENTUM), use_buffers=True)
    queue = MemoryQueue(QUEUE, DIM, device=DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * math.ceil(len(images) / BATCH))

    for _ in range(epochs):
        for ids in torch.randperm(len(images)).to(DEVICE).split(BATCH):
            features, query = model(strong(images[ids]))
            with torch.no_grad():
                _, key = momentum(weak(images[ids]))
            scores = {"logits": model.classifier(features)} if isinstance(criterion, CoInsLoss) else {}

            # Early in an epoch the queue still holds keys of the last one: by the ids an image does not meet its own.
            loss = criterion(query, key, labels[ids], queue, sample_ids=ids, **scores)
            queue.enqueue(key, labels[ids], ids)

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            momentum.update_parameters(model)
        bar.update()
    return model


@torch.no_grad()
def embed(model: Encoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features and projections of the images as they are."""
    return model.eval()(images)


def recalls(features: Tensor, fine: Tensor) -> list[float]:
    """Recall@K in percent, of images against each other."""
    return [100 * share for share in recall_at_k(features, fine, DEPTHS).values()]


def contest(
    criteria: dict[str, nn.Module], runs: list[tuple[Data, Data]], epochs: tuple[int, int]
) -> tuple[dict[str, list[list[float]]], dict[str, Encoder]]:
    """What each criterion makes of one warm encoder: Recall@K on a run's held-out data, and the last run's encoders."""
    results, models = {}, {}
    with tqdm(total=len(runs) * (epochs[0] + len(criteria) * epochs[1]), unit="epoch") as bar:
        for seed, (data, held_out) in enumerate(runs):
            bar.set_description(f"run {seed + 1} of {len(runs)}")
            torch.manual_seed(seed)
            models["untrained encoder"] = untrained = Encoder().to(DEVICE)
            # Targets by similarity are as good as the encoder: from scratch, weight 1 would follow a random one.
            models["warm start"] = warm = train(untrained, SelfConLoss(), data.images, data.coarse, epochs[0], bar)
            for name, criterion in criteria.items():
                bar.set_postfix_str(name)
                torch.manual_seed(seed)
                labels = data.fine if name == "SupFINE" else data.coarse
                models[name] = train(warm, criterion, data.images, labels, epochs[1], bar)
            for name, model in models.items():
                results.setdefault(name, []).append(recalls(embed(model, held_out.images)[0], held_out.fine))
    return results, models


def table(results: dict[str, list[list[float]]]) -> str:
    """A row for each method: the mean of each Recall@K over the runs and, if there are several, the deviation."""
    lines = [" " * 20 + "".join(f"{f'R@{depth}':>13}" for depth in DEPTHS)]
    for name, runs in results.items():
        values = torch.tensor(runs, dtype=torch.float64)
        cells = [f"{mean:.1f}" for mean in values.mean(0).tolist()]
        if len(runs) > 1:
            cells = [f"{cell} ± {deviation:.1f}" for cell, deviation in zip(cells, values.std(0).tolist(), strict=True)]
        lines.append(f"{name:20}" + "".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


def soft_targets(model: Encoder, maskcon: MaskConLoss, memory: Data, test: Data) -> tuple[Tensor, Tensor]:
    """How MaskCon shares out the mass of each test image: (N, 1 + memory), column 0 the own key, and (N, 10) digits."""
    queue = MemoryQueue(len(memory.images), DIM, device=DEVICE)
    queue.enqueue(embed(model, memory.images)[1], memory.coarse)
    targets = CoarseMaskSoftTargets(maskcon.weight, target_temperature=maskcon.target_temperature)
    mass = targets(embed(model, test.images)[1], test.coarse, queue)
    return mass, mass[:, 1:] @ F.one_hot(memory.fine, 10).float()


def draw_soft_targets(stages: dict[str, Encoder], maskcon: MaskConLoss, memory: Data, test: Data, path: Path) -> None:
    """For four queries at each stage: the memory images with most of the mass, and the mass of each digit."""
    memory = memory.at(torch.arange(QUEUE))
    masses = [soft_targets(model, maskcon, memory, test) for model in stages.values()]
    right = [by_digit.gather(1, test.fine.unsqueeze(1)).squeeze(1) for _, by_digit in masses]
    of_digit = [(test.fine == digit).nonzero().squeeze(1) for digit in (2, 3, 8, 9)]
    queries = [int(rows[right[-1][rows].argsort()[len(rows) // 2]]) for rows in of_digit]  # neither lucky nor unlucky

    figure = Figure(figsize=(16, 7), layout="constrained")
    figure.suptitle(f"Where MaskCon's soft targets put their mass, over {QUEUE} training images", fontsize=16)
    left, *parts = figure.subfigures(1, 1 + len(stages), squeeze=False, width_ratios=[1.2] + [6] * len(stages))[0]
    left.suptitle("query\n", fontsize=13)
    for axes, query in zip(left.subplots(4), queries, strict=True):
        draw_image(axes, test.images[query], f"a {int(test.fine[query])}", "black")
    for part, stage, (mass, by_digit), on_right in zip(parts, stages, masses, right, strict=True):
        part.suptitle(f"{stage}\nmass on the right digit, all queries: {on_right.mean():.0%}", fontsize=13)
        for (*panels, bars), query in zip(part.subplots(4, 4, width_ratios=[1, 1, 1, 2.5]), queries, strict=True):
            digit, places = int(test.fine[query]), [-2, *range(10)]
            colors = [RIGHT if other == digit else WRONG for other in range(10)]
            for axes, row in zip(panels, mass[query, 1:].topk(3).indices.tolist(), strict=True):
                found = int(memory.fine[row])
                draw_image(axes, memory.images[row], f"{found}: {float(mass[query, 1 + row]):.1%}", colors[found])
            bars.bar(places, [float(mass[query, 0]), *by_digit[query].tolist()], color=[OWN, *colors])
            bars.set(xticks=places, xticklabels=["own", *range(10)], yticks=[0, 1], ylim=(0, 1))
            bars.set_title(f"{float(by_digit[query, digit]):.0%} on the {digit}s", fontsize=11)
            bars.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def draw_image(axes: Axes, image: Tensor, title: str, color: str) -> None:
    axes.imshow(image[0].cpu().numpy(), cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, color=color, fontsize=11)
    axes.spines[:].set(color=color, linewidth=2.5)


def draw_embedding(stages: dict[str, Encoder], coarse: str, test: Data, path: Path) -> None:
    """A map of the test images at each stage: colours for digits, markers for coarse classes."""
    figure = Figure(figsize=(16, 6.4), layout="constrained")
    figure.suptitle(f"{len(test.fine)} held-out digits, mapped by t-SNE", fontsize=16)
    panels = figure.subplots(1, len(stages))
    for axes, (stage, model) in zip(panels, stages.items(), strict=True):
        features, _ = embed(model, test.images)
        points = TSNE(init="pca", random_state=0).fit_transform(F.normalize(features).cpu().numpy())
        for digit in range(10):
            rows = (test.fine == digit).nonzero().squeeze(1).cpu()
            marker = "o^"[int(test.coarse[rows[0]])]
            axes.scatter(*points[rows.numpy()].T, s=22, marker=marker, color=f"C{digit}", label=digit, linewidths=0)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{stage}\nRecall@1 {recalls(features, test.fine)[0]:.1f} %", fontsize=13)
    title = f"coarse labels: circles {COARSE[coarse][0]}, triangles {COARSE[coarse][1]}"
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=10, title=title, fontsize=12, markerscale=1.6)
    figure.savefig(path)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def folder(text: str) -> Path:
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file, not a folder")
    return Path(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coarse", choices=COARSE, default="parity", help="what the labels tell (default: parity)")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="runs to average over (default: 3)")
    parser.add_argument("--out", type=folder, default="digits", help="folder for the pictures (default: digits)")
    parser.add_argument("--smoke", action="store_true", help="one seed, one epoch: only to see that it runs")
    parser.add_argument("--tune", action="store_true", help="print how the settings were chosen instead (5 minutes)")
    arguments = parser.parse_args()
    seeds, epochs = (1, (1, 1)) if arguments.smoke else (arguments.seeds, (WARM_EPOCHS, EPOCHS))
    # Two threads would save up to half of the time on an idle machine, but take ten times as long on a busy one.
    torch.set_num_threads(1)
    began = time.perf_counter()
    data, test = load(arguments.coarse)
    criteria = methods(arguments.coarse)
    if arguments.tune:
        digits = data.fine.cpu().numpy()
        folds = StratifiedKFold(4, shuffle=True, random_state=0).split(digits, digits)
        print(table(contest(GRID | criteria, [(data.at(kept), data.at(rest)) for kept, rest in folds], epochs)[0]))
        print("Folds of the training images. After a name: weight, target temperature. Last: the methods as set.")
        return

    arguments.out.mkdir(parents=True, exist_ok=True)
    results, models = contest(criteria, [(data, test)] * seeds, epochs)
    stages = {stage: models[stage] for stage in ("untrained encoder", "warm start", "MaskCon")}
    grafit, coins, maskcon = TUNED[arguments.coarse]
    draw_soft_targets(stages, maskcon, data, test, arguments.out / "soft_targets.png")
    draw_embedding(stages, arguments.coarse, test, arguments.out / "embedding.png")

    best = max([name for name in criteria if name != "SupFINE"], key=lambda name: sum(run[0] for run in results[name]))
    print(table({"raw pixels": [recalls(test.images.flatten(1), test.fine)], **results}))
    print(
        f"R@K: % of {len(test.fine)} held-out digits with one of their kind among the K most similar others.",
        f"All were told {' or '.join(COARSE[arguments.coarse])}, only SupFINE the digit. Best of the others: {best}.",
        f"Runs: {seeds}. Epochs: warm start {epochs[0]}, then {epochs[1]}. Weights: Grafit {grafit.weight}, "
        f"CoIns {coins.weight}, MaskCon {maskcon.weight} (target temperature {maskcon.target_temperature}).",
        f"Pictures: {arguments.out / 'soft_targets.png'}, {arguments.out / 'embedding.png'}.",
        f"Time: {time.perf_counter() - began:.0f} s on {DEVICE}.",
        sep="\n",
    )


if __name__ == "__main__":
    main()
