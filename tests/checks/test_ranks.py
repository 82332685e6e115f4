"""What is said where several processes are meant, by the checks themselves; `tests/rank_checks*.py` see them raised."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from instruments import error_of

from maskcon_loss import CoarseMaskSoftTargets, MemoryQueue, _checks
from maskcon_loss._ring import Shard

SHARD = SimpleNamespace(
    sharded=True, shard=Shard(1, 2), size=8, keys=torch.zeros(4, 4), labels=torch.zeros(4, dtype=torch.int64), ids=None
)
ENTRY = {"shard": torch.tensor([1, 2, 8])}

CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "other sizes": (
        lambda: _checks.agreement("MemoryQueue.enqueue", {"size": [8, 8, 9], "position": [0, 0, 0]}, [0, 1, 2]),
        ValueError,
        "`MemoryQueue.enqueue` was called by 3 ranks that do not agree: `size` is 8 on ranks 0, 1 but 9 on rank 2. It "
        "must be the same on all of them, and nothing was changed. Build queue and loss alike on every rank: "
        "`MemoryQueue(size, dim)`, `MaskConLoss(weight)`.",
    ),
    "other positions": (
        lambda: _checks.agreement("MemoryQueue.enqueue", {"size": [8, 8], "position": [0, 4]}, [0, 1]),
        ValueError,
        "`MemoryQueue.enqueue` was called by 2 ranks that do not agree: `position` is 0 on rank 0 but 4 on rank 1. It "
        "must be the same on all of them, and nothing was changed. If only some ranks resumed, load the checkpoint on "
        "all of them: `queue.load_state_dict(state)`.",
    ),
    "other calls and sizes": (
        lambda: _checks.agreement("recall_at_k", {"call": ["one", "two"], "dim": [3, 4]}, [0, 1]),
        ValueError,
        "`recall_at_k` was called by 2 ranks that do not agree: `call` is one on rank 0 but two on rank 1; `dim` is 3 "
        "on rank 0 but 4 on rank 1. It must be the same on all of them, and nothing was changed. If one rank skips a "
        "step, let all of them skip it: the same calls in the same order on every rank.",
    ),
    "refused": (
        lambda: _checks.refused("MemoryQueue.enqueue", [0, 2]),
        RuntimeError,
        "`MemoryQueue.enqueue` was refused on ranks 0, 2, so no rank went on and nothing was changed; all ranks must "
        "bring correct input. What is wrong stands in the message of ranks 0, 2: look for it in the logs.",
    ),
    "lost": (
        lambda: _checks.lost("MemoryQueue.enqueue", 0, 3, [2]),
        RuntimeError,
        "`MemoryQueue.enqueue` on rank 0 of 3 could not finish: rank 2 did not answer. All ranks must take part in "
        "every step; a rank that died, was killed or stopped earlier is the usual cause. Look for its message in the "
        "logs, then start all ranks again from the last checkpoint.",
    ),
    "lost without a trace": (
        lambda: _checks.lost("MemoryQueue.enqueue", 0, 3, []),
        RuntimeError,
        "`MemoryQueue.enqueue` on rank 0 of 3 could not finish: the connection between the ranks broke. All ranks must "
        "take part in every step; a rank that died, was killed or stopped earlier is the usual cause. Look for its "
        "message in the logs, then start all ranks again from the last checkpoint.",
    ),
    "group outside": (
        lambda: MemoryQueue(8, 4, group=-100),
        TypeError,
        "`group` is of type int (what `torch.distributed.new_group` gives to a process outside); it must be a process "
        "group that this rank is a member of. Type `group=torch.distributed.new_group(ranks)` and build the queue on "
        "those ranks, or leave it out for all ranks.",
    ),
    "group as text": (
        lambda: MemoryQueue(8, 4, group="all"),
        TypeError,
        "`group` is of type str; it must be a process group that this rank is a member of. Type "
        "`group=torch.distributed.new_group(ranks)` and build the queue on those ranks, or leave it out for all ranks.",
    ),
    "built before the group": (
        lambda: _checks.same_shard(Shard(0, 1), (1, 2)),
        ValueError,
        "This queue holds the rows of rank 0 of 1, but this process is rank 1 of 2 now; a shard is cut when the queue "
        "is built. Start the ranks first: `torch.distributed.init_process_group()`, then `MemoryQueue(size, dim, "
        "sharded=True)`.",
    ),
    "dense over shards": (
        lambda: _checks.shard_impl("dense"),
        ValueError,
        '`impl` is "dense" but the queue is sharded; no rank has the whole memory, so the sums are joined across the '
        'ranks, which `impl="auto"` and `impl="streamed"` do. Type one of these, or `sharded=False`.',
    ),
    "targets over shards": (
        lambda: CoarseMaskSoftTargets()(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), SHARD),
        ValueError,
        "`queue` is sharded: rank 1 of 2 holds a part of the 8 keys, and only the loss modules join the parts. If the "
        "whole memory is to be looked at, load it into a queue that is not sharded, on all ranks: "
        "`whole.load_state_dict(queue.full_state_dict())`.",
    ),
    "second derivative": (
        _checks.one_derivative,
        RuntimeError,
        "A second derivative was asked for (`create_graph=True`) of a loss over a sharded queue, which makes the first "
        "in the forward pass and has no other. Type `sharded=False` for the queue and `impl='dense'` for the loss.",
    ),
    "sharded as text": (
        lambda: MemoryQueue(8, 4, sharded="yes"),
        TypeError,
        "`sharded` is 'yes', of type str; it must be True or False. The default is `sharded=False`; if it was "
        "computed, type `sharded=bool(value)`.",
    ),
    "sharded but not gathered": (
        lambda: MemoryQueue(8, 4, sharded=True, gather_distributed=False),
        ValueError,
        "`sharded` is True but `gather_distributed` is False; a memory that is spread over the ranks needs the keys of "
        "all of them. For a queue of its own on each rank type `MemoryQueue(size, dim, gather_distributed=False)`, "
        "else leave `gather_distributed` out.",
    ),
    "a shard for a whole queue": (
        lambda: MemoryQueue(8, 4).load_state_dict({**MemoryQueue(4, 4).state_dict(), **ENTRY}),
        ValueError,
        '`state_dict["shard"]` says that this is the shard of rank 1 of 2, of a queue of 8 keys, but this queue is not '
        "sharded; a shard fits its own rank alone. Load the file of this rank; for another number of ranks save "
        "`queue.full_state_dict()`, called on all ranks, which any number of ranks can load.",
    ),
    "a shard for another": (
        lambda: MemoryQueue(8, 4, sharded=True).load_state_dict({**MemoryQueue(4, 4).state_dict(), **ENTRY}),
        ValueError,
        '`state_dict["shard"]` says that this is the shard of rank 1 of 2, of a queue of 8 keys, but this queue is the '
        "shard of rank 0 of 1, of 8 keys; a shard fits its own rank alone. Load the file of this rank; for another "
        "number of ranks save `queue.full_state_dict()`, called on all ranks, which any number of ranks can load.",
    ),
}


@pytest.mark.parametrize(("call", "kind", "sentence"), CASES.values(), ids=CASES)
def test_the_sentence(call: Callable[[], object], kind: type[Exception], sentence: str) -> None:
    error = error_of(call)
    assert type(error) is kind
    assert str(error) == sentence
