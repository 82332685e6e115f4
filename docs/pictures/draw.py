"""The pictures of the docs that explain the targets, from the digits and from `sweep.csv`.

    python -m docs.pictures.draw             # a minute on one core; writes PNG files beside this file

- `targets.png`: what w and T' do to the targets of one encoder.
- `relations.png`: the targets of five losses on the same batch.
- `embedding.png`: a map of the test images by three encoders.
- `choosing.png`: the sweep over w and T', and which numbers without fine labels go along with it.
"""

import argparse
import csv
import math
from pathlib import Path

import matplotlib as mpl
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from docs.pictures.sweep import filled
from examples.digits import DIM, QUEUE, TUNED, WARM_EPOCHS, Data, Encoder, draw_embedding, embed, load, train
from maskcon_loss import CoarseMaskSoftTargets, MaskConLoss, MemoryQueue, SelfConLoss, diagnose

HERE = Path(__file__).parent
GREY = "#7a7a7a"  # legible on white and on black
COLOURS = ["#4c8bd0", "#2a9d8f", "#e08e2b", "#d1495b", "#8f6bc1"]
SHOWN = (0.02, 0.05, 0.1, 0.5, math.inf)
Row = dict[str, float | str]


def symbol(target_temperature: float) -> str:
    return "∞" if target_temperature == math.inf else f"{target_temperature:g}"


def stages(data: Data, epochs: int) -> dict[str, Encoder]:
    """Three encoders: one that has learned nothing, one of SelfCon, and one of MaskCon after it."""
    torch.manual_seed(0)
    with tqdm(total=2 * epochs, unit="epoch") as bar:
        untrained = Encoder()
        warm = train(untrained, SelfConLoss(), data.images, data.coarse, epochs, bar)
        maskcon = train(warm, TUNED["parity"][2], data.images, data.coarse, epochs, bar)
    return {"untrained": untrained, "SelfCon": warm, "then MaskCon": maskcon}


def draw_targets(encoders: dict[str, Encoder], memory: Data, test: Data) -> Figure:
    figure = Figure(figsize=(13, 4.3), layout="constrained")
    shares, positives, right = figure.subplots(1, 3)
    encoder = encoders["SelfCon"]
    key, queue = embed(encoder, test.images)[1], filled(encoder, memory)
    for colour, target_temperature in zip(COLOURS, SHOWN, strict=True):
        targets = CoarseMaskSoftTargets(target_temperature=target_temperature)(key, test.coarse, queue)
        by_rank = torch.cat([targets[:, :1], targets[:, 1:].sort(descending=True).values], 1).mean(0)
        label = f"T' = {symbol(target_temperature)}"
        shares.loglog(range(1, 251), by_rank[:250].tolist(), color=colour, label=label, linewidth=2)
    shares.set(xlabel="own key, then the class by similarity", ylabel="mean share of the mass", ylim=(1e-5, 1))
    shares.set_title("How far the mass reaches, w = 1")
    shares.legend(frameon=False, labelcolor=GREY, loc="lower left")

    grid = [10 ** (exponent / 8) for exponent in range(-16, 5)]
    for colour, weight in zip(COLOURS, (0.5, 0.8, 1.0), strict=False):
        effective = [
            diagnose(MaskConLoss(weight, target_temperature=t), key, test.coarse, queue)["effective_positives"]
            for t in grid
        ]
        positives.loglog(grid, effective, color=colour, label=f"w = {weight:g}", linewidth=2)
    positives.set(xlabel="T'", ylabel="effective positives")
    positives.set_title("How many positives that is")
    positives.legend(frameon=False, labelcolor=GREY)

    fine = F.one_hot(memory.fine, 10).float()
    for colour, (stage, model) in zip(COLOURS, encoders.items(), strict=False):
        key, queue = embed(model, test.images)[1], filled(model, memory)
        found = []
        for target_temperature in grid:
            mass = CoarseMaskSoftTargets(target_temperature=target_temperature)(key, test.coarse, queue)[:, 1:]
            own_class = (mass @ fine).gather(1, test.fine.unsqueeze(1)).squeeze(1)
            found.append(100 * float((own_class / mass.sum(1)).mean()))
        right.semilogx(grid, found, color=colour, label=stage, linewidth=2)
    right.set(xlabel="T'", ylabel="% of the class's mass on the right digit", ylim=(0, 100))
    right.set_title("How much of it is right, by encoder")
    right.legend(frameon=False, labelcolor=GREY, loc="upper right")
    for axes in (shares, positives, right):
        plain(axes)
    return figure


def draw_relations(encoder: Encoder, memory: Data, test: Data) -> Figure:
    """The same 15 queries, odd digits, over the same 60 keys of the memory, of all digits."""
    queries = torch.cat([(test.fine == digit).nonzero().squeeze(1)[:3] for digit in (1, 3, 5, 7, 9)])
    places = torch.cat([(memory.fine == digit).nonzero().squeeze(1)[:6] for digit in (1, 3, 5, 7, 9, 0, 2, 4, 6, 8)])
    test, memory = test.at(queries), memory.at(places)
    key, queue = embed(encoder, test.images)[1], filled(encoder, memory)
    told_fine = MemoryQueue(QUEUE, DIM)
    told_fine.enqueue(embed(encoder, memory.images)[1], memory.fine)
    columns = 1 + len(places)
    losses: dict[str, Tensor] = {
        "SelfCon\n(w = 0)": CoarseMaskSoftTargets(0.0)(key, test.coarse, queue),
        "SupCon\n(w = 1, T' = ∞)": CoarseMaskSoftTargets(1.0, target_temperature=math.inf)(key, test.coarse, queue),
        "Grafit\n(w = 0.5, T' = ∞)": CoarseMaskSoftTargets(0.5, target_temperature=math.inf)(key, test.coarse, queue),
        "MaskCon\n(w = 1, T' = 0.1)": CoarseMaskSoftTargets(1.0, target_temperature=0.1)(key, test.coarse, queue),
        "SupFINE\n(told the digits)": CoarseMaskSoftTargets(1.0, target_temperature=math.inf)(
            key, test.fine, told_fine
        ),
    }
    figure = Figure(figsize=(16, 5), layout="constrained")
    panels = figure.subplots(1, len(losses))
    colours = mpl.colormaps["magma"].copy()
    colours.set_bad(colours(0.0))
    for axes, (name, targets) in zip(panels, losses.items(), strict=True):
        shown = axes.imshow(targets[:, :columns].numpy(), norm=LogNorm(1e-3, 1), cmap=colours, aspect="auto")
        axes.set_title(name, color=GREY)
        axes.set(xticks=[3.5 + 6 * n for n in range(10)], yticks=[1 + 3 * n for n in range(5)])
        axes.set_xticklabels([*"1357902468"])
        axes.set_yticklabels([*"13579"] if axes is panels[0] else [])
        axes.tick_params(colors=GREY, length=0)
        for edge in (0.5, 30.5):
            axes.axvline(edge, color=GREY, linewidth=1)
    panels[0].set_ylabel("queries: three of each odd digit", color=GREY)
    panels[2].set_xlabel(
        "keys: leftmost the own one, then six of each digit of the memory, the odd digits first", color=GREY
    )
    bar = figure.colorbar(shown, ax=panels, shrink=0.8)
    bar.set_label("share of the positive mass", color=GREY)
    bar.ax.tick_params(colors=GREY)
    return figure


def draw_choosing(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    *maps, scatter = figure.subplots(1, 3, width_ratios=[1, 1, 1.1])
    weights = sorted({float(row["weight"]) for row in rows if float(row["weight"])})
    temperatures = sorted({float(row["target_temperature"]) for row in rows})
    for axes, (start, name) in zip(maps, (("warm", "after SelfCon"), ("scratch", "from scratch")), strict=True):
        means = [[mean(rows, start, weight, t) for t in temperatures] for weight in weights]
        axes.imshow(means, cmap="viridis", vmin=60, vmax=95, aspect="auto")
        for y, line in enumerate(means):
            for x, value in enumerate(line):
                axes.text(x, y, f"{value:.0f}", ha="center", va="center", color="white" if value < 82 else "black")
        axes.set(xticks=range(len(temperatures)), yticks=range(len(weights)), xlabel="T'")
        axes.set_ylabel("w", rotation=0, labelpad=14)
        axes.set_xticklabels(map(symbol, temperatures))
        axes.set_yticklabels([f"{weight:g}" for weight in weights])
        axes.set_title(f"Recall@1, %, {name}\n(w = 0: {mean(rows, start, 0.0, math.inf):.0f})", color=GREY)
        axes.tick_params(colors=GREY, length=0)
        axes.xaxis.label.set_color(GREY)
        axes.yaxis.label.set_color(GREY)
    for colour, (start, name) in zip(COLOURS, (("warm", "after SelfCon"), ("scratch", "from scratch")), strict=False):
        mine = [row for row in rows if row["start"] == start]
        scatter.scatter([row["own_image"] for row in mine], [row["fine"] for row in mine], color=colour, label=name)
    scatter.set(xlabel="% of images that find another view of themselves", ylabel="Recall@1 on the digits, %")
    scatter.set_title("A number that needs no fine labels", color=GREY)
    scatter.legend(frameon=False, labelcolor=GREY)
    plain(scatter)
    return figure


def mean(rows: list[Row], start: str, weight: float, target_temperature: float, name: str = "fine") -> float:
    wanted = (start, weight, target_temperature)
    values = [row[name] for row in rows if (row["start"], row["weight"], row["target_temperature"]) == wanted]
    return sum(values) / len(values)


def correlations(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Of each number that needs no fine labels: its rank correlation with Recall@1 on them, over means of the seeds."""
    found: dict[str, dict[str, float]] = {}
    for start in ("warm", "scratch"):
        settings = sorted({(row["weight"], row["target_temperature"]) for row in rows})
        fine = [mean(rows, start, *pair) for pair in settings]
        found[start] = {
            name: float(spearmanr([mean(rows, start, *pair, name) for pair in settings], fine).statistic)
            for name in ("own_image", "coarse", "effective")
        }
    return found


def plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY, which="both")
    axes.grid(alpha=0.25)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(GREY)


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [
            {key: text if key == "start" else float(text) for key, text in row.items()} for row in csv.DictReader(file)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--smoke", action="store_true", help="one epoch of training: only to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, test = load("parity")
    memory = data.at(torch.arange(QUEUE))
    encoders = stages(data, 1 if arguments.smoke else WARM_EPOCHS)
    rows = read(HERE / "sweep.csv")
    pictures = {
        "targets": draw_targets(encoders, memory, test),
        "relations": draw_relations(encoders["SelfCon"], data, test),
        "choosing": draw_choosing(rows),
    }
    for name, figure in pictures.items():
        figure.savefig(arguments.out / f"{name}.png", dpi=110, transparent=True)
    draw_embedding(encoders, "parity", test, arguments.out / "embedding.png")
    for start, found in correlations(rows).items():
        print(start, *(f"{name} {value:.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
