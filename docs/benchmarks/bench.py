"""Time and memory of the loss against what else there is: one command, one table, one CSV, one figure.

    python docs/benchmarks/bench.py                                  # the sizes of the table, minutes on a CPU
    python docs/benchmarks/bench.py --sizes 256,65536,128 1024,65536,128 --rounds 21
    python docs/benchmarks/bench.py --cases 1-class zipf-classes --only streamed published

Each contender takes two steps on the same tensors in turn, of which the second is timed, round after round, so that a
machine whose speed drifts drifts for all. Times are medians, in multiples of the two bare products `(q @ M.T) @ M`;
those of `enqueue` in multiples of one `copy_` of the batch. Memory is the most that a step takes beyond its inputs, in
multiples of one B x K matrix of float32. Contenders that compute the same loss must show the same loss. What is left
out is printed and stored with the reason.
"""

import argparse
import csv
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from contenders import DEVICE, KINDS, Case, Contender, Inputs, contenders
from meter import extra_bytes, free_bytes, graphed, here, seconds
from torch import Tensor

from maskcon_loss import MemoryQueue

HERE = Path(__file__).parent
SIZES = [(128, 8192, 256), (256, 16384, 128), (256, 65536, 128), (1024, 65536, 128)]
if DEVICE.type == "cuda":
    SIZES = [(rows, 2**power, 128) for rows in (128, 256, 1024, 4096, 8192) for power in (13, 16, 18, 20)]
    SIZES += [(1024, 65536, dim) for dim in (64, 256, 512)]
BOTH, FORWARD, ENQUEUE = "forward + backward", "forward", "enqueue"
GRAPH = ", CUDA graph"
BARE, COPY = ("two bare products", "", BOTH), ("one copy_ of the batch", "", ENQUEUE)
FIELDS = [
    *("contender", "computes", "case", "rows", "memory", "dim", "dtype", "pass"),
    *("milliseconds", "times", "matrices", "loss", "note"),
    *("device", "torch", "package", "commit", "date"),
]

Which = tuple[str, str, str]  # contender, computes, pass
Step = Callable[[], object]


def references(inputs: Inputs, case: Case) -> dict[Which, Step]:
    """The two units of time, and the queue's enqueue."""
    query, memory = inputs.query.detach(), inputs.memory()
    queue = MemoryQueue(case.memory, case.dim, dtype=inputs.queue.keys.dtype, device=DEVICE)
    batch = torch.empty(case.rows, case.dim, dtype=queue.keys.dtype, device=DEVICE)
    return {
        BARE: lambda: (query @ memory.T) @ memory,
        COPY: lambda: batch.copy_(inputs.raw_key),
        ("ours, MemoryQueue", "", ENQUEUE): lambda: queue.enqueue(inputs.raw_key, inputs.labels, inputs.ids),
    }


def steps_of(contender: Contender, query: Tensor) -> dict[Which, Step]:
    """Both passes of a contender, warmed up."""
    loss = contender.make()

    def both() -> None:
        query.grad = None
        loss().backward()

    steps: dict[Which, Step] = {
        (contender.name, contender.computes, BOTH): both,
        (contender.name, contender.computes, FORWARD): torch.no_grad()(loss),
    }
    for step in steps.values():
        step()  # compiles, and warms caches up
    if contender.name.endswith(GRAPH):
        return {which: graphed(step) for which, step in steps.items()}
    return steps


def prepare(contender: Contender, case: Case, query: Tensor, options: argparse.Namespace) -> dict[Which, Step] | str:
    """The contender's steps, or why it has none here."""
    unable = [field for field in contender.cannot if getattr(KINDS[case.kind], field)]
    if unable:
        return f"it cannot express {unable[0].replace('_', ' ')}"
    needed, free = 4.0 * contender.matrices * case.rows * case.memory, free_bytes()
    if needed > free:
        return f"it needs about {needed / 2**30:.0f} GiB and {free / 2**30:.0f} GiB are free"
    try:
        steps = steps_of(contender, query)
        slowest = max(map(seconds, steps.values()))
    except Exception as problem:  # whatever it is, it is printed and stored, and the others go on
        return f"{type(problem).__name__}: {(str(problem).strip() or 'no message').splitlines()[0]}"
    if slowest > options.patience:
        return f"a step takes {slowest:.1f} s, more than --patience {options.patience:g}"
    return steps


def measure(case: Case, options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each contender and pass."""
    if (needed := 4 * case.rows * case.memory) > (free := free_bytes()):
        reason = f"one B x K matrix takes {needed / 2**30:.0f} GiB and {free / 2**30:.0f} GiB are free"
        print(f"  skipped all: {reason}")
        return [{**described(BARE, case), "note": f"skipped: {reason}"}]
    torch.compiler.reset()  # else the limit of recompilations is reached, and the rest runs uncompiled
    inputs = Inputs(case)
    chosen = [each for each in contenders(inputs) if any(word in each.name for word in options.only)]
    if options.graph:  # of ours that keep no B x K matrix
        ours = [each for each in chosen if each.name.startswith("ours") and each.matrices == 0]
        chosen += [each._replace(name=each.name + GRAPH) for each in ours]
    if not chosen:
        names = ", ".join(each.name for each in contenders(inputs))
        raise SystemExit(
            f"--only {' '.join(options.only)} names no contender; part of one of these is needed: {names}."
        )
    steps, reasons = references(inputs, case), dict[Which, str]()
    for contender in chosen:
        prepared = prepare(contender, case, inputs.query, options)
        if isinstance(prepared, str):
            reasons[contender.name, contender.computes, BOTH] = f"skipped: {prepared}"
            print(f"  skipped {contender.name}: {prepared}", flush=True)
        else:
            steps |= prepared
    losses: dict[str, float] = {}
    for which, step in steps.items():
        result = step()
        if which[2] == FORWARD and isinstance(result, Tensor):
            losses[which[0]] = float(result)
    taken = {which: extra_bytes(step) for which, step in steps.items() if not which[0].endswith(GRAPH)}
    times: dict[Which, list[float]] = {which: [] for which in steps}
    for _ in range(options.rounds):
        for which, step in steps.items():
            step()  # so that none pays for what another left in the caches
            times[which].append(seconds(step))
    median = {which: statistics.median(each) for which, each in times.items()}

    rows = []
    for which in [*steps, *reasons]:
        row = described(which, case) | {"note": reasons.get(which, "")}
        if which in median:
            unit = median[COPY if which[2] == ENQUEUE else BARE]
            row |= {"milliseconds": round(1000 * median[which], 4), "times": round(median[which] / unit, 2)}
        if which in taken:
            row["matrices"] = round(taken[which] / (4 * case.rows * case.memory), 4)
        if which[0] in losses:
            row["loss"] = round(losses[which[0]], 4)
        rows.append(row)
    return rows


def described(which: Which, case: Case) -> dict[str, object]:
    row: dict[str, object] = {"contender": which[0], "computes": which[1], "pass": which[2], "case": case.kind}
    row |= {"rows": case.rows, "memory": case.memory, "dim": case.dim}
    return row | {"dtype": str(case.dtype).removeprefix("torch.")}


def show(rows: list[dict[str, object]]) -> None:
    """The rows of one case as a table."""
    forward = {row["contender"]: row for row in rows if row["pass"] == FORWARD}
    print(f"{'':36}{'computes':10}{'forward + backward':>20}{'forward':>10}{'memory':>10}{'loss':>10}")
    for row in rows:
        if row["pass"] == BOTH and not row["note"]:
            other = forward.get(row["contender"], {}).get("times", "")
            print(f"{row['contender']:36}{row['computes']:10}{row['times']:>20}{other:>10}", end="")
            print(f"{row.get('matrices', ''):>10}{row.get('loss', ''):>10}")
    for row in rows:
        if row["pass"] == ENQUEUE and row["contender"] != COPY[0]:
            print(f"enqueue: {row['milliseconds']} ms, {row['times']} times one copy_ of the batch", flush=True)


def store(rows: list[dict[str, object]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def parse(size: str) -> tuple[int, int, int]:
    rows, memory, dim = map(int, size.split(","))
    return rows, memory, dim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", metavar="B,K,D", help="rows, memory rows and features of each size")
    parser.add_argument("--cases", nargs="+", choices=KINDS, default=["plain"], help="what labels, ids and memory are")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="NAME", help="contenders whose name contains one of these"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of query, key and memory")
    parser.add_argument("--graph", action="store_true", help="on CUDA, time ours as CUDA graphs too")
    parser.add_argument("--rounds", type=int, default=11, help="steps of each contender that the median is taken of")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds of a step beyond which one is skipped")
    parser.add_argument("--csv", type=Path, default=HERE / "results.csv", help="where the figures are stored")
    options = parser.parse_args()
    if options.graph and DEVICE.type != "cuda":
        parser.error("--graph was given, but there is no CUDA device to record a graph on; leave --graph out.")
    try:
        sizes = [parse(size) for size in options.sizes] if options.sizes else SIZES
    except ValueError:
        parser.error(f"--sizes {' '.join(options.sizes)}: each size is three integers, as in --sizes 256,65536,128.")
    machine, rows = here(), []
    for kind in options.cases:
        for size in sizes:
            print(f"\n{kind}, (B, K, D) = {size}, {options.dtype}, on {machine['device']}", flush=True)
            measured = measure(Case(kind, *size, getattr(torch, options.dtype)), options)
            show(measured)
            rows += [row | machine for row in measured]
            store(rows, options.csv)  # after each, so that an interrupted run keeps what it has
    print(f"\nwritten to {options.csv}")
    try:
        from draw import draw
    except ModuleNotFoundError as missing:
        print(f"no figure was drawn, as there is no {missing.name} here: `pip install matplotlib`, then run draw.py")
    else:
        print(f"drawn to {draw([options.csv], options.csv.with_suffix('.png'))}")


if __name__ == "__main__":
    main()
