"""The machine that a run uses: device, precision, clock. None of it belongs to the paper's settings."""

import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(kw_only=True)
class Machine:
    """Where and how to compute, and the clock of `--profile`."""

    device: str = "auto"  # auto: a GPU where there is one
    amp: str = "auto"  # bf16, fp16 or none, for the encoder; auto: bf16 on a GPU that has it, fp16 on another
    channels_last: bool = True
    compile: bool = False  # the encoders, by torch.compile
    profile: bool = False  # waits for the device around every part, which costs some speed
    threads: int = 0  # of the CPU; 0: as torch chooses
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.device == "auto":
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device {self.device!r} was asked for, but torch sees no GPU; leave --device out.")
        if self.amp == "auto":
            self.amp = "none" if self.device == "cpu" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        if self.amp not in ("none", *DTYPES):
            raise ValueError(f"amp {self.amp!r} is not known; it is auto, bf16, fp16 or none.")
        torch.backends.cudnn.benchmark = True  # all batches have one size
        if self.threads:
            torch.set_num_threads(self.threads)

    def autocast(self) -> AbstractContextManager:
        """Half precision for the encoder, if wanted; the losses compute in float32 whatever comes."""
        if self.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.split(":")[0], DTYPES[self.amp])

    @contextmanager
    def clock(self, part: str) -> Iterator[None]:
        """Adds the time inside to a part, with `--profile`."""
        if not self.profile:
            yield
            return
        self.wait()
        began = time.perf_counter()
        yield
        self.wait()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began

    def wait(self) -> None:
        """Until the device has done what was asked of it."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def shares(self) -> dict[str, float]:
        """The share of every part in the time that the clock saw."""
        total = sum(self.seconds.values())
        return {part: round(seconds / total, 4) for part, seconds in self.seconds.items()}

    def describe(self) -> str:
        """What the table says about the hardware."""
        if self.device.startswith("cuda"):
            return f"{torch.cuda.get_device_name()}, {self.amp}"
        return f"{processor()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


def laid_out(images: Tensor, machine: Machine) -> Tensor:
    """Images in the memory layout of the encoder."""
    return images.contiguous(memory_format=torch.channels_last) if machine.channels_last else images


def processor() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in names if line.startswith("model name")), platform.machine())
