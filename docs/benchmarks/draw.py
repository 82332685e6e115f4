"""The figure of the benchmark from its CSV: time and extra memory against size, one row of panels for each device.

python docs/benchmarks/draw.py                                  # results.csv to results.png
python docs/benchmarks/draw.py one.csv two.csv --out both.png
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
GREY = "#7a7a7a"  # legible on white and on black
COLOURS = ["#d1495b", "#2a9d8f", "#e08e2b", "#8f6bc1", "#4c8bd0", "#a0764a", "#c060a1", "#6f9a3d", "#7b8794", "#b59f00"]
GRAPH = ", CUDA graph"  # drawn dashed, in the colour of the same without
TICKS = [0, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]

Row = dict[str, str]
Place = tuple[str, int, int, int]  # case, B, K, D


def draw(sources: list[Path], out: Path) -> Path:
    rows: list[Row] = []
    for source in sources:
        with source.open(newline="") as file:
            rows += [row for row in csv.DictReader(file) if row["pass"] == "forward + backward"]
    machines = list(dict.fromkeys((row["device"], row["dtype"]) for row in rows))
    names = list(dict.fromkeys(row["contender"] for row in rows if row["contender"] != "two bare products"))
    with mpl.rc_context(dict.fromkeys(["text.color", "axes.labelcolor", "xtick.color", "ytick.color"], GREY)):
        tall = 4.3 * len(machines) + 0.9
        figure, panels = plt.subplots(len(machines), 2, figsize=(11, tall), squeeze=False, layout="constrained")
        for machine, (left, right) in zip(machines, panels, strict=True):
            mine = [row for row in rows if (row["device"], row["dtype"]) == machine]
            left.set(yscale="log", title="Time of forward + backward,\nin multiples of two bare products")
            right.set_yscale("symlog", linthresh=0.1)
            right.set(title="Extra memory,\nin B × K matrices of float32")
            for panel, field in ((left, "times"), (right, "matrices")):
                plot(panel, mine, field, names)
                panel.axhline(1, color=GREY, linewidth=1, linestyle=":")
            left.set_ylabel(", ".join(machine))
        lines = {line.get_label(): line for panel in panels[:, 0] for line in panel.lines if line.get_label() in names}
        order = [name for name in names if name in lines]
        figure.legend([lines[name] for name in order], order, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(out, dpi=150, transparent=True)
        plt.close(figure)
    return out


def plot(panel: Axes, rows: list[Row], field: str, names: list[str]) -> None:
    """A line for each contender over the sizes of a case, in the order of their work; ours are thick."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    places = sorted({place(row) for row in rows}, key=lambda at: (cases.index(at[0]), at[1] * at[2] * at[3], at))
    bases = list(dict.fromkeys(name.removesuffix(GRAPH) for name in names))
    for name in names:
        ours = name.startswith("ours")
        look: dict[str, Any] = {"color": COLOURS[bases.index(name.removesuffix(GRAPH)) % len(COLOURS)], "label": name}
        look["linestyle"] = "--" if name.endswith(GRAPH) else "-"
        look |= {"linewidth": 2.6 if ours else 1.3, "marker": "o" if ours else "s", "markersize": 6 if ours else 4}
        for case in cases:
            mine = [row for row in rows if (row["contender"], row["case"]) == (name, case) and row[field]]
            points = sorted((places.index(place(row)), float(row[field])) for row in mine)
            if points:
                panel.plot([x for x, _ in points], [y for _, y in points], **look)
    panel.set_xticks(range(len(places)), [label(at) for at in places], rotation=90 if len(places) > 4 else 0)
    low, high = panel.get_ylim()
    low = -0.01 if field == "matrices" else min(low, 0.9)
    panel.set_yticks([tick for tick in TICKS if low <= tick <= high])
    panel.yaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    panel.set_ylim(low, high)
    panel.set_xlabel("B, K, D")
    panel.grid(color=GREY, alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(GREY)
    panel.tick_params(labelsize=8)


def place(row: Row) -> Place:
    return row["case"], int(row["rows"]), int(row["memory"]), int(row["dim"])


def label(at: Place) -> str:
    case, rows, memory, dim = at
    keys = f"{memory // 1024}k" if memory >= 1024 else str(memory)
    return f"{rows}, {keys}, {dim}" + ("" if case == "plain" else f"\n{case}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="*", type=Path, default=[HERE / "results.csv"], help="what bench.py stored")
    parser.add_argument("--out", type=Path, default=HERE / "results.png", help="where the figure is stored")
    options = parser.parse_args()
    print(f"drawn to {draw(options.csv, options.out)}")
