"""The figure of the benchmark from its CSV: time and extra memory against size, one row of panels for each device.

python docs/benchmarks/draw.py                                  # results.csv to results.png
python docs/benchmarks/draw.py one.csv two.csv --out both.png
"""

import argparse
import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
GREY = "#7a7a7a"  # legible on white and on black
COLOURS = ["#d1495b", "#2a9d8f", "#e08e2b", "#8f6bc1", "#4c8bd0", "#a0764a", "#c060a1", "#6f9a3d"]


def draw(sources: list[Path], out: Path) -> Path:
    rows = [row for source in sources for row in csv.DictReader(source.open(newline="")) if row["pass"] != "enqueue"]
    rows = [row for row in rows if row["pass"] == "forward + backward"]
    machines = list(dict.fromkeys((row["device"], row["dtype"], row["case"]) for row in rows))
    names = list(dict.fromkeys(row["contender"] for row in rows if row["contender"] != "two bare products"))
    style = {name: mark(name, names) for name in names}
    with mpl.rc_context({"text.color": GREY, "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY}):
        figure, panels = plt.subplots(
            len(machines), 2, figsize=(11, 4.3 * len(machines) + 0.9), squeeze=False, layout="constrained"
        )
        for machine, (left, right) in zip(machines, panels, strict=True):
            mine = [row for row in rows if (row["device"], row["dtype"], row["case"]) == machine]
            plot(left, mine, "times", style)
            left.set(yscale="log", title="Time of forward + backward,\nin multiples of two bare products")
            left.axhline(1, color=GREY, linewidth=1, linestyle=":")
            plot(right, mine, "matrices", style)
            right.set_yscale("symlog", linthresh=0.1)
            right.set(title="Extra memory,\nin B × K matrices of float32", ylim=(-0.01, None))
            left.set_ylabel("\n".join(machine), fontsize=8)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(out, dpi=150, transparent=True)
        plt.close(figure)
    return out


def mark(name: str, names: list[str]) -> dict[str, object]:
    """Ours are drawn thick."""
    ours = name.startswith("ours")
    return {
        "color": COLOURS[names.index(name) % len(COLOURS)],
        "linewidth": 2.6 if ours else 1.3,
        "marker": "o" if ours else "s",
        "markersize": 6 if ours else 4,
    }


def plot(panel: Axes, rows: list[dict[str, str]], field: str, style: dict[str, dict[str, object]]) -> None:
    """One line for each contender over the sizes, in the order of their products' work."""
    sizes = sorted({size(row) for row in rows}, key=lambda each: (each[0] * each[1] * each[2], each))
    for name, look in style.items():
        points = {sizes.index(size(row)): float(row[field]) for row in rows if row["contender"] == name and row[field]}
        panel.plot(sorted(points), [points[place] for place in sorted(points)], label=name, **look)
    ticks = [f"{rows}, {short(memory)}, {dim}" for rows, memory, dim in sizes]
    panel.set_xticks(range(len(sizes)), ticks, rotation=90 if len(sizes) > 6 else 0, fontsize=8)
    panel.set_xlabel("B, K, D")
    panel.grid(color=GREY, alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(GREY)


def size(row: dict[str, str]) -> tuple[int, int, int]:
    return int(row["rows"]), int(row["memory"]), int(row["dim"])


def short(number: int) -> str:
    return f"{number // 1024}k" if number >= 1024 else str(number)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="*", type=Path, default=[HERE / "results.csv"], help="what bench.py stored")
    parser.add_argument("--out", type=Path, default=HERE / "results.png", help="where the figure is stored")
    options = parser.parse_args()
    print(f"drawn to {draw(options.csv, options.out)}")
