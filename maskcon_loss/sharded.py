"""The losses over a memory that is spread over the ranks, exactly those over the whole memory.

Every rank brings its batch and its share of the memory. What leaves a rank, once per call:

    1  all-gather        queries, keys, labels and ids of all ranks, in rank order
    2  all-reduce        of each row the larger of the ranks' two running maxima (`kernels/sums.py`)
    3  reduce-scatter    of each row the sums and the pulled vectors, to the rank that brought the row

Between 1 and 2 each rank meets all rows with its own part of the memory. The loss of a rank is that of its own rows, as
ever; DDP averages the gradients.

Shapes: B rows in the batch of this rank, N rows in the batches of all W ranks, K rows of the memory here, D features.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from maskcon_loss import _checks, distributed, functional
from maskcon_loss._batch import NO_ID, Batch, arrange
from maskcon_loss._precision import without_autocast
from maskcon_loss.kernels import streamed
from maskcon_loss.kernels.sums import Sums, finish

CALL = "a loss over a sharded queue"


def is_shard(queue: Any) -> bool:
    """Whether a queue is one rank's part of a memory; a shard that is the whole memory is a queue like any other."""
    return getattr(queue, "sharded", False) is True and queue.shard.world > 1


def maskcon(
    query: Tensor,
    key: Tensor,
    coarse_labels: Tensor,
    queue: Any,
    *,
    weight: float,
    temperature: float,
    target_temperature: float,
    reduction: str,
    normalize: bool,
    impl: str,
    sample_ids: Tensor | None,
) -> Tensor:
    """:func:`maskcon_loss.functional.maskcon` over the memory of all ranks; all of them must call it."""
    try:
        _checks.settings(reduction, normalize, impl, weight, temperature, target_temperature)
        _checks.batch(query, key, coarse_labels, sample_ids)
        _checks.memory(query, queue.keys, queue.labels, queue.ids, sample_ids)
        _checks.mean_of_nothing(query, reduction)
        _checks.shard_impl(impl)
        _checks.same_shard(queue.shard, distributed.place(queue.group_name))
    except (TypeError, ValueError):
        distributed.refuse(CALL, queue.group_name, queue.keys.device)
        raise
    with without_autocast(query.device):
        batch = arrange(
            query, key, coarse_labels, queue.keys, queue.labels, sample_ids,
            None if sample_ids is None else queue.ids, normalize,
        )  # fmt: skip
        own_key = batch.key.view_as(batch.key)  # a tensor given twice stops torch.compile, a view of it does not
        *tensors, _ = batch.beside(batch.query, own_key)
        loss_B = _Sharded.apply(
            *tensors, queue.position, queue.size, normalize, weight, temperature, target_temperature, queue.group_name
        )
        return functional._reduce(loss_B, reduction)


def coins(
    query: Tensor,
    key: Tensor,
    coarse_labels: Tensor,
    queue: Any,
    *,
    logits: Tensor | None,
    weight: float,
    temperature: float,
    reduction: str,
    normalize: bool,
    impl: str,
    sample_ids: Tensor | None,
) -> Tensor:
    """:func:`maskcon_loss.functional.coins` over the memory of all ranks; all of them must call it."""
    settings = {"temperature": temperature, "reduction": "none", "normalize": normalize, "impl": impl}
    try:
        _checks.settings(reduction, normalize, impl, weight, temperature)
        _checks.mean_of_nothing(query, reduction)
        entropy_B = functional.coins(query, key, coarse_labels, None, None, logits=logits, weight=1.0, **settings)
    except (TypeError, ValueError):
        distributed.refuse(CALL, queue.group_name, queue.keys.device)
        raise
    selfcon_B = maskcon(
        query, key, coarse_labels, queue, weight=0.0, target_temperature=1.0, sample_ids=sample_ids, **settings
    )
    with without_autocast(query.device):
        mixed_B = weight * entropy_B + (1.0 - weight) * selfcon_B
        return functional._reduce(torch.where(coarse_labels >= 0, mixed_B, selfcon_B), reduction)


class _Sharded(torch.autograd.Function):
    """The gradients are ready when the forward pass ends, so only the forward pass talks to the other ranks."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        run = torch.ops.maskcon_loss.sharded if torch.compiler.is_compiling() else _contrast
        loss_B, by_query_BD, by_own_B = run(*arguments)
        ctx.save_for_backward(by_query_BD, by_own_B, arguments[0])
        ctx.temperature = arguments[-3]
        return loss_B

    @staticmethod
    def backward(ctx: Any, upstream_B: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            _checks.one_derivative()
        by_query_BD, by_own_B, query_BD = ctx.saved_tensors
        upstream_B1 = upstream_B.unsqueeze(1)
        key_gradient = upstream_B1 * by_own_B.unsqueeze(1) * query_BD / ctx.temperature
        return upstream_B1 * by_query_BD, key_gradient, *[None] * 12


def _contrast(
    query: Tensor, key: Tensor, labels: Tensor, memory: Tensor, memory_labels: Tensor,
    ids: Tensor | None, memory_ids: Tensor | None,
    position: Tensor, size: int, normalize: bool,
    weight: float, temperature: float, target_temperature: float, name: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Of the own rows: the loss, its gradient by the query and by the own logit q_i . k_i."""
    common: dict[str, int | Tensor] = {
        "size": size,
        "dim": query.shape[1],
        "dtype": distributed.DTYPES.index(query.dtype),
        "position": position,
        "normalize": normalize,
        "weight": distributed.bits(weight),
        "temperature": distributed.bits(temperature),
        "target_temperature": distributed.bits(target_temperature),
    }
    columns = (query, key, labels, torch.full_like(labels, NO_ID) if ids is None else ids)
    (all_query, all_key, all_labels, all_ids), counts = distributed.gather(CALL, columns, common, name)
    everyone = Batch(all_query, all_key, all_labels, memory, memory_labels, all_ids, memory_ids, None)
    own_N = (all_query / temperature * all_key).sum(1)
    logits, similar = streamed.sums(everyone, own_N, weight, temperature, target_temperature)
    parts = [logits, similar] if weight > 0 else [logits]

    tops = torch.stack([part.top_B for part in parts])
    with distributed.answered(CALL, name):
        dist.all_reduce(tops, dist.ReduceOp.MAX, group=distributed.resolve(name))
    scaled = []
    for part, top_N in zip(parts, tops, strict=True):
        shrink_N1 = torch.exp(part.top_B - top_N).unsqueeze(1)
        scaled += [part.total_B.unsqueeze(1) * shrink_N1, part.pulled_BD * shrink_N1]
    mine = distributed.reduce_scatter(CALL, torch.cat(scaled, dim=1), counts, name)

    start = sum(counts[: distributed.place(name)[0]])
    own_B, *tops_B = (each[start : start + query.shape[0]] for each in (own_N, *tops))
    joined = [
        Sums(top_B, total_B1.squeeze(1), pulled_BD)
        for top_B, (total_B1, pulled_BD) in zip(tops_B, _pairs(mine, query.shape[1]), strict=True)
    ]
    similar = joined[1] if weight > 0 else Sums.of_nothing(torch.zeros_like(own_B), key)
    loss_B, by_query_BD, by_own_B, _ = finish(query, key, own_B, joined[0], similar, weight, temperature)
    return loss_B, by_query_BD, by_own_B


def _pairs(columns: Tensor, width: int) -> list[tuple[Tensor, Tensor]]:
    """(B, 1 + D) or (B, 2 (1 + D)) as pairs of totals (B, 1) and pulled vectors (B, D)."""
    return [(part[:, :1], part[:, 1:]) for part in columns.split(1 + width, dim=1)]


# The same as an operator, which torch.compile leaves alone.
torch.library.define(
    "maskcon_loss::sharded",
    "(Tensor query, Tensor key, Tensor labels, Tensor memory, Tensor memory_labels, Tensor? ids, Tensor? memory_ids, "
    "Tensor position, int size, bool normalize, float weight, float temperature, float target_temperature, "
    "str group) "
    "-> (Tensor, Tensor, Tensor)",
)


@torch.library.impl("maskcon_loss::sharded", "default")
def _sharded(*arguments: Any) -> tuple[Tensor, ...]:
    with without_autocast(arguments[0].device):
        return _contrast(*arguments)


@torch.library.register_fake("maskcon_loss::sharded")
def _sharded_shapes(*arguments: Any) -> tuple[Tensor, ...]:
    query = arguments[0]
    return query.new_empty(query.shape[0]), query.new_empty(query.shape), query.new_empty(query.shape[0])
