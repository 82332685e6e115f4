"""Several processes: what all of them must have in common, and who is missing."""

from collections.abc import Mapping, Sequence
from typing import Any

from maskcon_loss._checks.settings import kind


def listed(ranks: Sequence[int]) -> str:
    """Such as "rank 1" and "ranks 0, 2"."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(str(rank) for rank in ranks)}"


def agreement(call: str, values: Mapping[str, Sequence[Any]], ranks: Sequence[int]) -> None:
    """Every name has one value on all ranks; ``values`` holds those of each rank, in the order of ``ranks``."""
    differences = []
    for name, each in values.items():
        if len(set(each)) > 1:
            sides = [
                f"{value} on {listed([rank for rank, other in zip(ranks, each, strict=True) if other == value])}"
                for value in dict.fromkeys(each)
            ]
            differences.append(f"`{name}` is {' but '.join(sides)}")
    if differences:
        if "call" in values and len(set(values["call"])) > 1:
            cause = "If one rank skips a step, let all of them skip it: the same calls in the same order on every rank."
        elif all(len(set(each)) == 1 for name, each in values.items() if name != "position"):
            cause = "If only some ranks resumed, load the checkpoint on all of them: `queue.load_state_dict(state)`."
        else:
            cause = "Build queue and loss alike on every rank: `MemoryQueue(size, dim)`, `MaskConLoss(weight)`."
        raise ValueError(
            f"`{call}` was called by {len(ranks)} ranks that do not agree: {'; '.join(differences)}. It must be the "
            f"same on all of them, and nothing was changed. {cause}"
        )


def refused(call: str, ranks: Sequence[int]) -> None:
    """The complaint of the ranks that were in order, about those that were not."""
    raise RuntimeError(
        f"`{call}` was refused on {listed(ranks)}, so no rank went on and nothing was changed; all ranks must bring "
        f"correct input. What is wrong stands in the message of {listed(ranks)}: look for it in the logs."
    )


def lost(call: str, rank: int, world: int, silent: Sequence[int]) -> None:
    """The complaint of a rank whose exchange with the others broke."""
    who = f"{listed(silent)} did not answer" if silent else "the connection between the ranks broke"
    raise RuntimeError(
        f"`{call}` on rank {rank} of {world} could not finish: {who}. All ranks must take part in every step; a rank "
        "that died, was killed or stopped earlier is the usual cause. Look for its message in the logs, then start all "
        "ranks again from the last checkpoint."
    )


def member(group: Any) -> None:
    """A process group that this process belongs to."""
    if isinstance(group, (int, str)) or not hasattr(group, "group_name"):
        outside = " (what `torch.distributed.new_group` gives to a process outside)" if isinstance(group, int) else ""
        raise TypeError(
            f"`group` is of type {kind(group)}{outside}; it must be a process group that this rank is a member of. "
            "Type `group=torch.distributed.new_group(ranks)` and build the queue on those ranks, or leave it out for "
            "all ranks."
        )


def same_shard(shard: tuple[int, int], now: tuple[int, int]) -> None:
    """The process group is the one that the shard was cut for."""
    if now != shard:
        raise ValueError(
            f"This queue holds the rows of rank {shard[0]} of {shard[1]}, but this process is rank {now[0]} of "
            f"{now[1]} now; a shard is cut when the queue is built. Start the ranks first: "
            "`torch.distributed.init_process_group()`, then `MemoryQueue(size, dim, sharded=True)`."
        )


def shard_impl(impl: str) -> None:
    if impl not in ("auto", "streamed"):
        raise ValueError(
            f'`impl` is "{impl}" but the queue is sharded; no rank has the whole memory, so the sums are joined across '
            'the ranks, which `impl="auto"` and `impl="streamed"` do. Type one of these, or `sharded=False`.'
        )


def whole_memory(queue: Any) -> None:
    """A queue of which no rows are on other ranks."""
    if getattr(queue, "sharded", False) is True and queue.shard.world > 1:
        raise ValueError(
            f"`queue` is sharded: rank {queue.shard.rank} of {queue.shard.world} holds a part of the {queue.size} "
            "keys, and only the loss modules join the parts. If the whole memory is to be looked at, load it "
            "into a queue that is not sharded, on all ranks: `whole.load_state_dict(queue.full_state_dict())`."
        )


def one_derivative() -> None:
    raise RuntimeError(
        "A second derivative was asked for (`create_graph=True`) of a loss over a sharded queue, which makes the first "
        "in the forward pass and has no other. Type `sharded=False` for the queue and `impl='dense'` for the loss."
    )
