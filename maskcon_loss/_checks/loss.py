"""The call of a loss: batch, memory, logits, queue."""

from typing import Any

import torch
from torch import Tensor

from maskcon_loss._checks.ranks import whole_memory
from maskcon_loss._checks.settings import kind
from maskcon_loss._checks.tensors import FLOATS, integers, same_device, shape, tensor, vectors


def batch(query: Tensor | None, key: Tensor, coarse_labels: Tensor, sample_ids: Tensor | None) -> None:
    """Query (where there is one) and key match row by row, and so do labels and ids."""
    vectors("key", key)
    if query is not None:
        vectors("query", query)
        if query.shape[0] != key.shape[0]:
            raise ValueError(
                f"`query` has {query.shape[0]} rows but `key` has {key.shape[0]}; row i of both must be the same "
                "image. Give both encoders the same images: `query = encoder(view_1)` and `key = key_encoder(view_2)`."
            )
        if query.shape[1] != key.shape[1]:
            wider = "query" if query.shape[1] > key.shape[1] else "key"
            raise ValueError(
                f"`query` has {query.shape[1]} features but `key` has {key.shape[1]}; they are compared, so the widths "
                f"must be equal. If `{wider}` skipped its projector, type `{wider} = projector({wider})`."
            )
        same_device("key", key, "query", query)
    rows = key if query is None else query
    integers("coarse_labels", coarse_labels, rows.shape[0], "key" if query is None else "query", rows)
    if sample_ids is not None:
        integers("sample_ids", sample_ids, rows.shape[0], "key" if query is None else "query", rows)


def mean_of_nothing(query: Tensor, reduction: str) -> None:
    tensor("query", query)
    if reduction == "mean" and query.shape[0] == 0:
        raise ValueError(
            "`query` has 0 rows, and the mean of no losses is undefined (NaN); at least one row is needed. For "
            "batches that may be empty, type `reduction='sum'`."
        )


def memory(
    query: Tensor, keys: Tensor | None, labels: Tensor | None, ids: Tensor | None, sample_ids: Tensor | None
) -> None:
    """The memory's parts fit each other and the query (or the key, where targets alone are asked for)."""
    tensor("query", query)  # for `batch`, None means that no query is needed
    if keys is None and labels is None:
        if ids is not None:
            raise ValueError(
                "`memory_ids` came without `memory_keys`; without a memory the batch is the memory, with the ids of "
                "the batch. Pass the memory's keys and labels too, or type `memory_ids=None`."
            )
        return
    if keys is None or labels is None:
        given, missing = ("memory_labels", "memory_keys") if keys is None else ("memory_keys", "memory_labels")
        raise ValueError(
            f"`{given}` came without `{missing}`; a memory needs both, and None for both makes the batch its own "
            "memory. Type `queue.keys, queue.labels`."
        )
    vectors("memory_keys", keys)
    if keys.shape[1] != query.shape[1]:
        raise ValueError(
            f"The memory's keys have {keys.shape[1]} features but the batch has {query.shape[1]}; they are compared, "
            "so the widths must be equal. If the batch went through its projector, build the queue for it: "
            f"`MemoryQueue({max(keys.shape[0], 1)}, {query.shape[1]})`."
        )
    if keys.device != query.device:
        raise ValueError(
            f"The memory is on {keys.device} but the batch is on {query.device}; both must be on one device. A queue "
            f"is a module and moves like one: `queue.to({str(query.device)!r})`."
        )
    integers("memory_labels", labels, keys.shape[0], "memory_keys", keys)
    if ids is not None:
        integers("memory_ids", ids, keys.shape[0], "memory_keys", keys)
    elif sample_ids is not None:
        raise ValueError(
            "`sample_ids` came, but the memory has no ids to compare them with, so no stale key could be left out. "
            "Pass the memory's too (`ids` of an object, `memory_ids` of a function), or type `sample_ids=None`."
        )


def class_logits(value: Any, coarse_labels: Tensor) -> Tensor:
    """(rows, classes), with a column for each label; the labels' range is looked at on a CPU only."""
    rows = coarse_labels.shape[0]
    if value is None:
        raise TypeError(
            "`logits` is missing; CoIns adds the cross-entropy of a classifier over the coarse classes. Type "
            "`logits=classifier(features)`."
        )
    tensor("logits", value)
    if value.dtype not in FLOATS:
        raise TypeError(
            f"`logits` has dtype {value.dtype}; cross-entropy needs floating scores. If predicted classes were passed, "
            "pass the scores they were taken from: `logits=classifier(features)`."
        )
    if value.ndim != 2 or value.shape[0] != rows or value.shape[1] == 0:
        raise ValueError(
            f"`logits` has shape {shape(value)}; it must be ({rows}, classes), one row for each label. If the "
            "classifier saw another view or batch, type `logits=classifier(features)` with the query's features."
        )
    same_device("logits", value, "coarse_labels", coarse_labels)
    if (
        value.device.type == "cpu"
        and rows
        and not torch.compiler.is_compiling()
        and (largest := int(coarse_labels.max())) >= value.shape[1]
    ):
        raise ValueError(
            f"`coarse_labels` holds the label {largest} but `logits` of shape {shape(value)} score the labels 0 to "
            f"{value.shape[1] - 1} only. If the labels do not start at 0, renumber them; else widen the classifier: "
            f"`nn.Linear(features, {largest + 1})`."
        )
    return value


def memory_of(queue: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(keys, labels, ids) of anything that has them as tensors; three times None for no queue."""
    if queue is None:
        return None, None, None
    keys, labels, ids = getattr(queue, "keys", None), getattr(queue, "labels", None), getattr(queue, "ids", None)
    for name, value in (("keys", keys), ("labels", labels), ("ids", ids)):
        if isinstance(value, Tensor) or (value is None and name == "ids"):
            continue
        if value is None or callable(value):
            raise TypeError(
                f"`queue` is of type {kind(queue)} and has no tensor `.{name}`; it must be a `MemoryQueue` or another "
                "object with the tensors `.keys` and `.labels`. Tensors become one with "
                "`types.SimpleNamespace(keys=memory_keys, labels=memory_labels)`."
            )
        tensor(f"queue.{name}", value)
    whole_memory(queue)
    return keys, labels, ids


def targets_of(criterion: Any) -> tuple[float, float]:
    """Weight and target temperature of a loss or of a target builder; CoIns, which has no T', contrasts as SelfCon."""
    if not all(hasattr(criterion, name) for name in ("weight", "normalize")) or isinstance(criterion.weight, Tensor):
        raise TypeError(
            f"`criterion` is of type {kind(criterion)}, which has no soft targets; it must be a loss of this package "
            "or `CoarseMaskSoftTargets`. If it wraps the loss, pass the loss itself, with its own settings: "
            "`diagnose(criterion.module, key, coarse_labels, queue)`."
        )
    if not hasattr(criterion, "target_temperature"):
        return 0.0, 1.0
    return criterion.weight, criterion.target_temperature


def rows_to_describe(key: Tensor) -> None:
    if key.shape[0] == 0:
        raise ValueError(
            "`key` has 0 rows, and nothing can be said of a batch without rows; at least one is needed. For batches "
            "that may be empty, type `if len(key):` before the call."
        )
