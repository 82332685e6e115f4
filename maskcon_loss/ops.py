"""Which implementation computes a loss, and the operators PyTorch sees: functional, differentiable, opaque.

An operator changes none of its arguments and always gives the same kinds of tensors, so `torch.compile` keeps it whole.

Shapes: B rows in the batch, K rows in the memory, D features.
"""

from typing import Any

import torch
from torch import Tensor

from maskcon_loss import _checks
from maskcon_loss._batch import Batch
from maskcon_loss._precision import without_autocast, working_dtype
from maskcon_loss.kernels import streamed

_BATCH = (
    "Tensor query, Tensor key, Tensor labels, Tensor memory, Tensor memory_labels, "
    "Tensor? ids, Tensor? memory_ids, Tensor? own_rows"
)
_SETTINGS = "float weight, float temperature, float target_temperature"


def choose(impl: str, batch: Batch) -> str:
    """The implementation that runs: the one asked for; `"auto"` is `"triton"` where that can run, else `"streamed"`."""
    if impl != "auto":
        return impl
    on_cuda = batch.query.device.type == "cuda" and torch.version.cuda is not None
    return "triton" if on_cuda and not _checks.triton_lacks(batch.query, batch.key, batch.memory) else "streamed"


def contrast(batch: Batch, weight: float, temperature: float, target_temperature: float, impl: str) -> Tensor:
    """Eq. (3) for each row, (B,), differentiable by query, key and memory, without a B x K matrix."""
    recording = torch.is_grad_enabled()
    needs = tuple(recording and tensor.requires_grad for tensor in (batch.query, batch.key, batch.memory))
    tensors: list[Tensor | None] = []
    for tensor in batch:  # a tensor given twice (the key as memory) stops torch.compile, a view of it does not
        twice = any(tensor is other for other in tensors)
        tensors.append(tensor.view_as(tensor) if tensor is not None and twice else tensor)
    return _Contrast.apply(*tensors, (weight, temperature, target_temperature), needs, impl)


class _Contrast(torch.autograd.Function):
    """The gradient by the query is ready when the forward pass ends.

    The memory is kept for the backward pass only if it needs a gradient itself, so else it may be overwritten before.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, settings, needs, impl = arguments
        batch, (for_query, for_key, for_memory) = Batch(*tensors), needs
        operator = torch.ops.maskcon_loss.streamed
        if impl == "triton":
            operator, batch = torch.ops.maskcon_loss.triton, batch.rounded()
        loss_B, by_query_BD, by_own_B, statistics_B4 = operator(*batch, *settings, for_query)
        batch = batch.beside(batch.query.to(loss_B.dtype), batch.key.to(loss_B.dtype))
        by_query_BD = by_query_BD if for_query else None
        by_own_B, query_BD = (by_own_B, batch.query) if for_key else (None, None)
        for_backward = (statistics_B4, *batch) if for_memory else ()
        ctx.save_for_backward(by_query_BD, by_own_B, query_BD, *for_backward)
        ctx.settings, ctx.needs = settings, needs
        return loss_B

    @staticmethod
    def backward(ctx: Any, upstream_B: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "A second derivative was asked for (`create_graph=True`), but this implementation makes the first in "
                "the forward pass and has no other. Type `impl='dense'`, which is differentiable any number of times."
            )
        by_query_BD, by_own_B, query_BD, *for_backward = ctx.saved_tensors
        weight, temperature, target_temperature = ctx.settings
        for_query, for_key, for_memory = ctx.needs
        upstream_B1 = upstream_B.unsqueeze(1)
        query_gradient = upstream_B1 * by_query_BD if for_query else None
        key_gradient = upstream_B1 * by_own_B.unsqueeze(1) * query_BD / temperature if for_key else None
        memory_gradient = None
        if for_memory:
            statistics_B4, *tensors = for_backward
            memory_gradient = torch.ops.maskcon_loss.streamed_memory_gradient(
                *tensors, upstream_B.contiguous(), statistics_B4, weight, temperature, target_temperature
            ).to(tensors[3].dtype)
        return query_gradient, key_gradient, None, memory_gradient, *[None] * 7


for _name in ("streamed", "triton"):
    torch.library.define(
        f"maskcon_loss::{_name}", f"({_BATCH}, {_SETTINGS}, bool with_gradient) -> (Tensor, Tensor, Tensor, Tensor)"
    )
torch.library.define(
    "maskcon_loss::streamed_memory_gradient", f"({_BATCH}, Tensor upstream, Tensor statistics, {_SETTINGS}) -> Tensor"
)


@torch.library.impl("maskcon_loss::streamed", "default")
def _streamed(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with without_autocast(arguments[0].device):
        return streamed.contrast(Batch(*arguments[:8]), *arguments[8:])


@torch.library.impl("maskcon_loss::triton", "default")
def _triton(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from maskcon_loss.kernels import cuda  # here, as the package runs without Triton too

    return cuda.contrast(Batch(*arguments[:8]), *arguments[8:])


@torch.library.register_fake("maskcon_loss::streamed")
@torch.library.register_fake("maskcon_loss::triton")
def _shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    query, with_gradient = arguments[0], arguments[-1]
    rows, width = query.shape
    kind = {"dtype": working_dtype(query), "device": query.device}
    by_query = torch.empty(rows if with_gradient else 0, width, **kind)
    return torch.empty(rows, **kind), by_query, torch.empty(rows, **kind), torch.empty(rows, 4, **kind)


@torch.library.impl("maskcon_loss::streamed_memory_gradient", "default")
def _streamed_memory_gradient(*arguments: Any) -> Tensor:
    with without_autocast(arguments[0].device):
        return streamed.memory_gradient(Batch(*arguments[:8]), *arguments[8:])


@torch.library.register_fake("maskcon_loss::streamed_memory_gradient")
def _streamed_memory_gradient_shape(*arguments: Any) -> Tensor:
    return arguments[0].new_empty(arguments[3].shape)
