"""Finished runs as a table beside the paper's numbers: python -m examples.reproduce.table RUNS [--out DIR]."""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.reproduce.settings import METHODS, Settings

DEPTHS = ("1", "2", "5", "10")
# What is known of the paper's numbers, in percent. CIFAR-100's MaskCon is read off a chart, to 0.02.
PAPER: dict[tuple[str, str], dict[str, float]] = {
    ("cifartoy-good", "MaskCon"): {"1": 90.28, "2": 94.04, "5": 97.33, "10": 98.53},
    ("cifartoy-bad", "MaskCon"): {"1": 91.56, "2": 95.23, "5": 97.70, "10": 98.70},
    ("cifar100", "MaskCon"): {"1": 65.52, "2": 74.46, "5": 83.64, "10": 89.25},
    ("cifar100", "Grafit"): {"1": 60.57, "10": 89.21},
    ("cars196", "MaskCon"): {"1": 45.53, "2": 58.56, "5": 74.36, "10": 84.36},
}
FREE = ("seed", "method", "weight", "target_temperature")  # may differ between the rows of one table


def finished(folder: Path) -> list[dict[str, Any]]:
    """The results below a folder, without the warm starts."""
    paths = [path for path in sorted(folder.rglob("result.json")) if not path.parent.name.startswith("warm-")]
    return [json.loads(path.read_text()) for path in paths]


def tables(results: Sequence[dict[str, Any]]) -> str:
    """One Markdown table for all runs whose settings agree but for method, its loss and seed."""
    if not results:
        return "No run is finished here."
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        common = {name: value for name, value in result["settings"].items() if name not in FREE}
        parts = (common, result["judged"], result["hardware"], result["train_images"], result["start"])
        groups.setdefault(json.dumps(parts), []).append(result)
    return "\n\n".join(table(group) for group in groups.values())


def table(results: Sequence[dict[str, Any]]) -> str:
    """Runs that differ in method, loss and seed: mean and deviation over the seeds, beside the paper."""
    first = results[0]
    settings = Settings(**first["settings"])
    lines = [
        f"**{settings.dataset}**, {settings.backbone} of width {settings.width}, {settings.epochs} epochs on "
        f"{first['train_images']:,} training images, start: {first['start']}; {first['judged']}; {first['hardware']}.",
        "",
        "| Recall in % | seeds | " + " | ".join(f"R@{d} | paper" for d in DEPTHS) + " | minutes a run |",
        "| --- " * (3 + 2 * len(DEPTHS)) + "|",
    ]
    for label, rows in by_row(results).items():
        paper = PAPER.get((settings.dataset, rows[0]["settings"]["method"]), {})
        cells = [label, str(len(rows))]
        for depth in DEPTHS:
            cells += [spread([row["recall"][depth] for row in rows]), f"{paper[depth]:.2f}" if depth in paper else ""]
        minutes = statistics.mean(row["minutes"] for row in rows)
        lines.append("| " + " | ".join([*cells, f"{minutes:.1f}"]) + " |")
    if not settings.weights:
        lines += ["", "Not from ImageNet weights, as the paper's runs are: not comparable with the paper's numbers."]
    return "\n".join(lines)


def by_row(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results by method and its settings, in the paper's order."""
    rows: dict[str, list[dict[str, Any]]] = {}
    ranked = sorted(results, key=lambda result: METHODS.index(result["settings"]["method"]))
    for result in ranked:
        settings = Settings(**result["settings"])
        rows.setdefault(row_name(settings), []).append(result)
    return rows


def row_name(settings: Settings) -> str:
    if settings.method == "MaskCon":
        return f"MaskCon, w {settings.weight:g}, T' {settings.target_temperature:g}"
    mixes = settings.method in ("Grafit", "CoIns")
    return f"{settings.method}, w {settings.weight:g}" if mixes else settings.method


def spread(values: list[float]) -> str:
    """The mean and, of several, the deviation."""
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Recall@1 of every row, a panel for each data set, with the paper's numbers as hollow marks."""
    from matplotlib.figure import Figure

    names = sorted({result["settings"]["dataset"] for result in results})
    figure = Figure(figsize=(9, 0.6 + 2.8 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), squeeze=False)[:, 0], names, strict=True):
        rows = by_row([result for result in results if result["settings"]["dataset"] == name])
        for place, some in enumerate(rows.values()):
            axes.plot([result["recall"]["1"] for result in some], [place] * len(some), "o", color="tab:blue")
            paper = PAPER.get((name, some[0]["settings"]["method"]), {}).get("1")
            if paper is not None:
                axes.plot(paper, place, "o", color="tab:gray", fillstyle="none")
                axes.annotate("paper", (paper, place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
            axes.axhline(place, color="0.9", zorder=0)
        axes.set(yticks=range(len(rows)), yticklabels=list(rows), xlabel="Recall@1 in %", title=name)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def write(runs: Path, out: Path | None = None) -> str:
    """Table and picture of the finished runs, as OUT/table.md and OUT/table.png; the table is returned as well."""
    results, out = finished(runs), out or runs
    text = tables(results)
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text + "\n")
    if results:
        draw(results, out / "table.png")
    return text


if __name__ == "__main__":
    flags = argparse.ArgumentParser("python -m examples.reproduce.table", description=__doc__)
    flags.add_argument("runs", type=Path, help="folder with finished runs, at any depth")
    flags.add_argument("--out", type=Path, help="folder for table.md and table.png (default: the runs' own)")
    given = flags.parse_args()
    if not given.runs.is_dir():
        flags.exit(2, f"there is no folder {given.runs}; give the one that --out named.\n")
    print(write(given.runs, given.out))
