"""Every complaint of the package: what came, what is needed, the likely cause, what to type.

Types, shapes, devices and settings are known without waiting for a device, and values on one are not looked at (but by
recall, whose result is waited for anyway). A check raises before anything has changed, or lets pass.
"""

from maskcon_loss._checks.implementation import implementation, triton_lacks
from maskcon_loss._checks.loss import (
    batch,
    class_logits,
    mean_of_nothing,
    memory,
    memory_of,
    rows_to_describe,
    targets_of,
)
from maskcon_loss._checks.queue import enqueue, queue_settings, shard_entry, state
from maskcon_loss._checks.ranks import (
    agreement,
    lost,
    member,
    one_derivative,
    refused,
    same_shard,
    shard_impl,
    whole_memory,
)
from maskcon_loss._checks.recall import array, depths, recall
from maskcon_loss._checks.settings import flag, positive_integer, settings

__all__ = [
    "agreement",
    "array",
    "batch",
    "class_logits",
    "depths",
    "enqueue",
    "flag",
    "implementation",
    "lost",
    "mean_of_nothing",
    "member",
    "memory",
    "memory_of",
    "one_derivative",
    "positive_integer",
    "queue_settings",
    "recall",
    "refused",
    "rows_to_describe",
    "same_shard",
    "settings",
    "shard_entry",
    "shard_impl",
    "state",
    "targets_of",
    "triton_lacks",
    "whole_memory",
]
