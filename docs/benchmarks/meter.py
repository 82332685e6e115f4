"""The time and the memory that one step takes, and what a figure has to be read with."""

import ctypes
import datetime
import gc
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from contenders import DEVICE

from maskcon_loss import __version__


def seconds(step: Callable[[], object]) -> float:
    if DEVICE.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def extra_bytes(step: Callable[[], object]) -> int:
    """The most memory that a step takes beyond what was taken before it."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: every larger block comes from the kernel and goes back to it
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    step()
    peak = resident("VmHWM")
    libc.mallopt(-3, 1 << 25)  # and back to where malloc's own adjustment ends: large blocks are kept and used again
    libc.mallopt(-1, 1 << 26)  # M_TRIM_THRESHOLD
    return max(peak - before, 0)


def resident(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def free_bytes() -> int:
    """What is left of the device's memory."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def graphed(step: Callable[[], object]) -> Callable[[], object]:
    """The same step, recorded as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def here() -> dict[str, object]:
    """Device, versions, commit and date."""
    threads = torch.get_num_threads()
    device = f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"
    if DEVICE.type == "cuda":
        device = torch.cuda.get_device_name()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"device": device, "torch": torch.__version__, "package": __version__, "commit": commit, "date": date}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
