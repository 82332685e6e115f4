"""Whether the Triton kernels can run what came, asked before they are chosen and before they are demanded."""

import importlib.util
import os

import torch
from torch import Tensor

HAS_TRITON = importlib.util.find_spec("triton") is not None
WIDEST = 512  # features that the kernels hold
OLD_TORCH = torch.__version__ < "2.7"  # its Triton, 3.2, stops at a compiler's error in some of the kernels
OLDEST = 8  # major compute capability: Ampere, the first with bfloat16


def triton_lacks(query: Tensor, key: Tensor, memory_keys: Tensor | None) -> str | None:
    """What keeps the Triton kernels from these tensors, in a sentence; None if nothing does."""
    otherwise = 'or `impl="streamed"`, which runs on any device.'
    if not HAS_TRITON:
        return (
            f'`impl="triton"` needs Triton, which is not installed; it comes with PyTorch for CUDA on Linux. Type `pip '
            f"install triton`, {otherwise}"
        )
    if query.device.type != "cuda" and not (query.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return (
            f'`impl="triton"` runs on CUDA, but the batch is on {query.device}. If the model is to run there, type '
            f"`model.cuda()`, {otherwise}"
        )
    for name, tensor in (("query", query), ("key", key), ("memory_keys", memory_keys)):
        if tensor is not None and tensor.dtype == torch.float64:
            return (
                f'`impl="triton"` computes in float32, but `{name}` has dtype torch.float64. If float32 will do, type '
                f"`{name}.float()`, {otherwise}"
            )
    if query.shape[1] > WIDEST:
        return (
            f'`impl="triton"` takes up to {WIDEST} features, but `query` has {query.shape[1]}. If the projector can be '
            f"narrower, type `nn.Linear(width, {WIDEST})` at its end, {otherwise}"
        )
    if query.device.type == "cuda" and OLD_TORCH:
        return (
            f'`impl="triton"` needs PyTorch 2.7 or later, but this is {torch.__version__}, whose Triton fails to '
            f"compile the kernels. Type `pip install --upgrade torch`, {otherwise}"
        )
    if query.device.type == "cuda" and (major := torch.cuda.get_device_properties(query.device).major) < OLDEST:
        return (
            f'`impl="triton"` needs compute capability {OLDEST}.0 (Ampere) or later, but {query.device} has {major}.x. '
            f"Choose a later GPU by `CUDA_VISIBLE_DEVICES`, {otherwise}"
        )
    return None


def implementation(impl: str, query: Tensor, key: Tensor, memory_keys: Tensor | None) -> None:
    """An implementation asked for by name runs or raises; no other takes its place."""
    if impl == "triton" and (lacks := triton_lacks(query, key, memory_keys)):
        raise ValueError(lacks)
