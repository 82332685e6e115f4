"""Time and memory of the loss against what else there is: one command, one table, one CSV.

    python docs/benchmarks/bench.py                   # the sizes of the table in the README, about three minutes
    python docs/benchmarks/bench.py --sizes 256,65536,128 1024,65536,128 --rounds 21

Each contender takes one step on the same tensors in turn, round after round, so that a machine whose speed drifts
drifts for all. Times are medians, in multiples of the two bare products `(q @ M.T) @ M`. Memory is the most that a step
takes beyond its inputs, in multiples of one B x K matrix of float32.
"""

import argparse
import csv
import ctypes
import datetime
import gc
import importlib.util
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from maskcon_loss import MaskConLoss, MemoryQueue, SelfConLoss, __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))
from oracle import published_steps  # noqa: E402  (the baseline that the tests hold us against)

SIZES = [(128, 8192, 256), (256, 16384, 128), (256, 65536, 128), (1024, 65536, 128)]
CLASSES, WEIGHT, TEMPERATURE, TARGET_TEMPERATURE = 20, 1.0, 0.1, 0.05
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FIELDS = "contender,computes,rows,memory,dim,classes,pass,milliseconds,times,matrices,device,torch,package,commit,date"


def info_nce(query: Tensor, key: Tensor, memory: Tensor) -> Tensor:
    """The loss of MoCo as it is usually written."""
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ memory.T], dim=1) / TEMPERATURE
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))


def contenders(rows: int, memory_rows: int, dim: int) -> tuple[Tensor, dict[str, tuple[str, Callable[[], Tensor]]]]:
    """The query, and for each contender what it computes and a function that returns its loss."""
    torch.manual_seed(0)
    query = F.normalize(torch.randn(rows, dim, device=DEVICE)).requires_grad_()
    key = F.normalize(torch.randn(rows, dim, device=DEVICE))
    labels = torch.randint(CLASSES, (rows,), device=DEVICE)
    queue = MemoryQueue(memory_rows, dim, device=DEVICE)
    queue.enqueue(torch.randn(memory_rows, dim, device=DEVICE), torch.randint(CLASSES, (memory_rows,), device=DEVICE))
    settings = {"weight": WEIGHT, "temperature": TEMPERATURE, "target_temperature": TARGET_TEMPERATURE}
    published = (query, key, labels, queue.keys, queue.labels)
    compiled = torch.compile(published_steps)
    found: dict[str, tuple[str, Callable[[], Tensor]]] = {
        "published steps": ("MaskCon", lambda: published_steps(*published, **settings)),
        "published steps, torch.compile": ("MaskCon", lambda: compiled(*published, **settings)),
    }
    for impl in ("dense", "streamed"):
        criterion = MaskConLoss(**settings, impl=impl)
        found[f"ours, {impl}"] = ("MaskCon", lambda criterion=criterion: criterion(query, key, labels, queue))
    found["plain InfoNCE"] = ("SelfCon", lambda: info_nce(query, key, queue.keys))
    selfcon = SelfConLoss(temperature=TEMPERATURE)
    found["ours, SelfConLoss"] = ("SelfCon", lambda: selfcon(query, key, labels, queue))
    if importlib.util.find_spec("pytorch_metric_learning"):
        found["pytorch-metric-learning SupCon"] = ("SupCon", metric_learning_supcon(query, key, labels, queue))
    if importlib.util.find_spec("lightly") and importlib.util.find_spec("torchvision"):
        found["lightly NTXent"] = ("SelfCon", lightly_selfcon(query, key, queue))
    return query, found


def metric_learning_supcon(query: Tensor, key: Tensor, labels: Tensor, queue: MemoryQueue) -> Callable[[], Tensor]:
    from pytorch_metric_learning.losses import SupConLoss

    own = torch.eye(len(query), dtype=torch.bool, device=query.device)
    same = torch.cat([own, labels[:, None] == queue.labels], 1)
    other = torch.cat([torch.zeros_like(own), labels[:, None] != queue.labels], 1)
    pairs = (*same.nonzero(as_tuple=True), *other.nonzero(as_tuple=True))
    keys, key_labels = torch.cat([key, queue.keys]), torch.cat([labels, queue.labels])
    criterion = SupConLoss(TEMPERATURE)
    return lambda: criterion(query, labels, indices_tuple=pairs, ref_emb=keys, ref_labels=key_labels)


def lightly_selfcon(query: Tensor, key: Tensor, queue: MemoryQueue) -> Callable[[], Tensor]:
    from lightly.loss.ntx_ent_loss import NTXentLoss

    criterion = NTXentLoss(TEMPERATURE, memory_bank_size=tuple(queue.keys.shape)).to(query.device)
    criterion(query.detach(), key)  # makes its bank
    return lambda: criterion(query, key)


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def extra_bytes(step: Callable[[], object]) -> int:
    """The most memory that a step takes beyond what was taken before it."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: every larger block comes from the kernel and goes back to it
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    step()
    peak = resident("VmHWM")
    libc.mallopt(-3, 1 << 25)
    return max(peak - before, 0)


def resident(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def measure(size: tuple[int, int, int], rounds: int) -> list[dict[str, object]]:
    """A row for each contender and pass."""
    query, found = contenders(*size)
    memory = F.normalize(torch.randn(size[1], size[2], device=DEVICE))
    bare = query.detach()

    def backward(loss: Callable[[], Tensor]) -> None:
        query.grad = None
        loss().backward()

    steps: dict[tuple[str, str, str], Callable[[], object]] = {
        ("two bare products", "", "forward + backward"): lambda: (bare @ memory.T) @ memory
    }
    for name, (computes, loss) in found.items():
        steps[name, computes, "forward + backward"] = lambda loss=loss: backward(loss)
        steps[name, computes, "forward"] = torch.no_grad()(loss)
    for step in steps.values():
        step()  # compiles, and warms caches up
    taken = {which: extra_bytes(step) for which, step in steps.items()}
    times: dict[tuple[str, str, str], list[float]] = {which: [] for which in steps}
    for _ in range(rounds):
        for which, step in steps.items():
            times[which].append(seconds(step))
    unit = statistics.median(times["two bare products", "", "forward + backward"])
    rows = []
    for (name, computes, direction), each in times.items():
        median = statistics.median(each)
        rows.append(
            {"contender": name, "computes": computes, "rows": size[0], "memory": size[1], "dim": size[2]}
            | {"classes": CLASSES, "pass": direction}
            | {"milliseconds": round(1000 * median, 3), "times": round(median / unit, 2)}
            | {"matrices": round(taken[name, computes, direction] / (4 * size[0] * size[1]), 2)}
        )
    return rows


def here() -> dict[str, object]:
    """What a figure has to be read with."""
    device = (
        torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{processor()}, {torch.get_num_threads()} threads"
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False
    ).stdout.strip()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"device": device, "torch": torch.__version__, "package": __version__, "commit": commit, "date": date}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", metavar="B,K,D", help="rows, memory rows and features of each size")
    parser.add_argument("--rounds", type=int, default=11, help="steps of each contender that the median is taken of")
    parser.add_argument("--csv", type=Path, default=HERE / "results.csv", help="where the figures are stored")
    arguments = parser.parse_args()
    sizes = [tuple(map(int, size.split(","))) for size in arguments.sizes] if arguments.sizes else SIZES
    machine, rows = here(), []
    for size in sizes:
        rows += measure(size, arguments.rounds)
        print(f"\n(B, K, D) = {size}, {CLASSES} classes, on {machine['device']}")
        print(f"{'':34}{'computes':10}{'forward + backward':>20}{'forward':>10}{'memory':>10}")
        for row in rows:
            if (row["rows"], row["memory"], row["dim"]) == size and row["pass"] == "forward + backward":
                other = [each for each in rows[rows.index(row) :] if each["contender"] == row["contender"]][1:2]
                forward = f"{other[0]['times']:.2f}" if other else ""
                print(
                    f"{row['contender']:34}{row['computes']:10}{row['times']:>20.2f}{forward:>10}{row['matrices']:>10.2f}"
                )
    with arguments.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS.split(","))
        writer.writeheader()
        writer.writerows(row | machine for row in rows)
    print(f"\nwritten to {arguments.csv}")


if __name__ == "__main__":
    main()
