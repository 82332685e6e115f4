"""A queue: its settings, what enters it, what it is restored from."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskcon_loss._checks.settings import described, flag, positive_integer
from maskcon_loss._checks.tensors import FLOATS, integers, shape, tensor, vectors


def queue_settings(
    size: Any, dim: Any, normalize: Any, dtype: Any, gather_distributed: Any, sharded: Any = False
) -> None:
    positive_integer("size", size, "the number of keys the queue holds")
    positive_integer("dim", dim, "the number of features of a key")
    flag("normalize", normalize)
    flag("gather_distributed", gather_distributed)
    if not isinstance(sharded, bool):
        raise TypeError(
            f"`sharded` is {described(sharded)}; it must be True or False. The default is `sharded=False`; if it was "
            "computed, type `sharded=bool(value)`."
        )
    if sharded and not gather_distributed:
        raise ValueError(
            "`sharded` is True but `gather_distributed` is False; a memory that is spread over the ranks needs the "
            "keys of all of them. For a queue of its own on each rank type `MemoryQueue(size, dim, "
            "gather_distributed=False)`, else leave `gather_distributed` out."
        )
    if dtype not in FLOATS:
        raise TypeError(
            f"`dtype` is {dtype!r}; keys are stored as torch.float16, torch.bfloat16, torch.float32 or torch.float64. "
            "The default is `dtype=torch.float32`."
        )


def enqueue(stored: Tensor, keys: Tensor, coarse_labels: Tensor, sample_ids: Tensor | None) -> None:
    """A batch fits the queue it goes to."""
    vectors("keys", keys)
    if keys.shape[1] != stored.shape[1]:
        raise ValueError(
            f"`keys` has {keys.shape[1]} features but the queue was built for {stored.shape[1]}; the widths must be "
            f"equal. If the projector changed, build a new queue: `MemoryQueue({stored.shape[0]}, {keys.shape[1]})`."
        )
    if keys.device != stored.device:
        raise ValueError(
            f"`keys` is on {keys.device} but the queue is on {stored.device}; both must be on one device. A queue is a "
            f"module and moves like one: `queue.to({str(keys.device)!r})`."
        )
    integers("coarse_labels", coarse_labels, keys.shape[0], "keys", keys)
    if sample_ids is not None:
        integers("sample_ids", sample_ids, keys.shape[0], "keys", keys)


def state(prefix: str, saved: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """The saved tensors of a queue have the shapes of this one's, and hold what these can hold.

    Where one is missing nothing is restored, and torch says so.
    """
    if any(prefix + name not in saved for name in expected):
        return
    for name, buffer in expected.items():
        value, entry = saved[prefix + name], f'state_dict["{prefix}{name}"]'
        tensor(entry, value)
        if value.shape != buffer.shape:
            if name == "keys" and value.ndim == 2:
                cause = f"build the queue as it was saved, `MemoryQueue({value.shape[0]}, {value.shape[1]})`"
            else:
                cause = "load a checkpoint that a `MemoryQueue` wrote"
            raise ValueError(
                f"`{entry}` has shape {shape(value)} but this queue's has {shape(buffer)}; they must be equal. Either "
                f"{cause}, or keep this queue as it is: `del {entry}` and `strict=False`."
            )
        if value.is_floating_point() != buffer.is_floating_point() or (
            value.dtype != buffer.dtype and not buffer.is_floating_point()
        ):
            raise TypeError(
                f"`{entry}` has dtype {value.dtype} but this queue's has {buffer.dtype}; a cast does not keep the "
                f"numbers. Save it without a cast, or keep this queue as it is: `del {entry}` and `strict=False`."
            )
        if value.is_meta and not buffer.is_meta:
            raise ValueError(
                f"`{entry}` is on meta, where tensors have no values, but this queue is on {buffer.device}; values are "
                "needed. Read the checkpoint with `torch.load(path, map_location='cpu')`."
            )


def shard_entry(prefix: str, saved: Mapping[str, Any], shard: list[int] | None) -> bool:
    """Whether a state is that of a whole queue, to be cut for a shard [rank, ranks, size]; else it is its own."""
    entry = saved.get(prefix + "shard")
    if entry is None:
        return shard is not None
    came = [int(number) for number in entry]
    if came != shard:
        if shard is None:
            here = "this queue is not sharded"
        else:
            here = f"this queue is the shard of rank {shard[0]} of {shard[1]}, of {shard[2]} keys"
        raise ValueError(
            f'`state_dict["{prefix}shard"]` says that this is the shard of rank {came[0]} of {came[1]}, of a queue of '
            f"{came[2]} keys, but {here}; a shard fits its own rank alone. Load the file of this rank; for another "
            "number of ranks save `queue.full_state_dict()`, called on all ranks, which any number of ranks can load."
        )
    return False
