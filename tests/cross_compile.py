"""Compiles every kernel for GPUs that need not be there, and asserts that registers and shared memory suffice.

    python tests/cross_compile.py

For each architecture, precision and width of the table of tiles, with as little and with as much as a launch can ask
for: no register may be spilled, and shared memory must stay within what one block has. Needs Triton, which brings a
compiler and a disassembler of its own; no GPU, no driver.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from maskcon_loss.kernels import cuda
from maskcon_loss.kernels import triton as kernels

#: Bytes of shared memory that one block may ask for, by compute capability.
SHARED = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024}
KINDS = {"bf16": "16 bits", "fp16": "16 bits", "fp32, tf32": "tf32", "fp32, tf32x3": "tf32x3"}
WIDTHS = (16, 64, 128, 208, 256, 512)
INTEGERS = ("labels", "ids", "own_rows", "memory_labels", "memory_ids", "spans", "places")
SIZES = ("rows", "keys", "vector_stride", "memory_stride", "query_stride", "key_stride", "logit_parts", "similar_parts")
NUMBERS = ("scale", "weight", "temperature")


def compiled(kernel: triton.JITFunction, dtype: str, constants: dict[str, object], arch: int, **options: int):
    """The kernel for one architecture, as a launch on it would have it compiled."""
    types = dict.fromkeys(("vectors", "memory", "query", "key"), f"*{dtype}")
    types |= dict.fromkeys(INTEGERS, "*i64") | dict.fromkeys(SIZES, "i32") | dict.fromkeys(NUMBERS, "fp32")
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in kernel.arg_names}
    aligned = [
        (place,)
        for place, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name.endswith("stride")
    ]
    attributes = {place: [["tt.divisibility", 16]] for place in aligned}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def used(binary: bytes) -> tuple[int, int]:
    """Registers of a thread, and the bytes of its stack, to which registers are spilled."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (registers,), (stack,) = (re.findall(rf"{name}:(\d+)", text) for name in ("REG", "STACK"))
    return int(registers), int(stack)


def check(case: tuple[int, str, int, bool]) -> tuple[str, bool]:
    """A line of the table for one case, and whether it holds."""
    arch, kind, width, all_asked = case
    precision, dtype, padded = KINDS[kind], kind.split(",")[0], cuda.padded(width)
    tile = cuda.TILES[precision][max(64, padded)]
    masks = dict.fromkeys(("OWN_CLASS", "SORTED", "HAS_IDS", "IN_BATCH"), all_asked)
    absent = [] if all_asked else ["labels", "ids", "own_rows", "memory_ids", "spans"]
    constants = {"D": width, "WIDTH": padded, "SLICE": min(tile.columns, padded), "R": tile.rows, "C": tile.keys}
    constants |= {"PRECISION": "tf32" if precision == "16 bits" else precision, "LIFT": 15 if dtype == "fp16" else 0}
    constants |= {"PULL": True, **masks} | dict.fromkeys(absent)
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    sums = compiled(kernels.sums_kernel, dtype, constants, arch, **options)
    constants = {"D": width, "WIDTH": padded, "P": cuda.PARTS_AT_ONCE, "GRADIENT": True}
    constants |= {"HAS_TARGETS": all_asked, "SORTED": all_asked} | ({} if all_asked else {"places": None})
    finish = compiled(kernels.finish_kernel, dtype, constants, arch, num_warps=4)
    line, fits = f"sm_{arch} {kind:13} D {width:3} {'all masks' if all_asked else 'no mask':9}", True
    for name, kernel in (("sums", sums), ("finish", finish)):
        (registers, stack), shared = used(kernel.asm["cubin"]), kernel.metadata.shared
        line += f"   {name}: {registers:3} registers, {stack:4} bytes spilled, {shared:6} bytes shared"
        fits &= stack == 0 and shared <= SHARED[arch]
    return line, fits


def main() -> None:
    cases = list(itertools.product(SHARED, KINDS, WIDTHS, (False, True)))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(check, cases))
    print(f"Triton {triton.__version__}")
    print("\n".join(line + ("" if fits else "   <- TOO MUCH") for line, fits in results))
    too_much = sum(not fits for _, fits in results)
    sys.exit(f"{too_much} of {len(results)} cases do not fit" if too_much else 0)


if __name__ == "__main__":
    main()
