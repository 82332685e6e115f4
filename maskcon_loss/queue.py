"""The memory: a ring of recent keys with their coarse labels and sample ids."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from maskcon_loss import _checks, distributed
from maskcon_loss import _ring as ring
from maskcon_loss._batch import EMPTY, NO_ID, UNLABELLED
from maskcon_loss._precision import unit, without_autocast, working_dtype

ROWS = ("keys", "labels", "ids")  # have a row for each place of the ring
STATE = (*ROWS, "position")
SHARD_STATE = (*STATE, "stored")
ROWS_AT_ONCE = 16384  # of each shard, gathered at a time


class MemoryQueue(nn.Module):
    """The last ``size`` keys of a key encoder, with their coarse labels and sample ids.

    A loss reads it and never changes it; :meth:`enqueue` overwrites the oldest rows, in place, without waiting for the
    device. Everything is a persistent buffer: ``.to()`` moves it, ``state_dict`` resumes it exactly, also in the middle
    of a wrap.

    Args:
        size: K, how many keys are kept. It need not be a multiple of the batch.
        dim: D, the features of a key.
        normalize: whether keys are stored at unit length. Switch it off together with the loss's.
        dtype: in which the keys are stored; ``torch.bfloat16`` takes half the memory. Losses still compute in float32.
        device: where the buffers live.
        gather_distributed: whether every rank stores the keys of all ranks, in rank order, where a process group is
            initialised. All ranks then hold the same queue, bit for bit. Without a process group it changes nothing.
        sharded: whether the ranks share one queue: each keeps 1/W of the rows (every W-th place of the ring), and the
            losses are still those over the whole memory. Start the process group before you build it. Its tensors are
            in the ``state_dict`` but no buffers, so that DDP does not overwrite them with those of rank 0.
        group: the ranks that gather or share, as :func:`torch.distributed.new_group` gives it; all of them if None.

    Attributes:
        keys: (size, dim).
        labels: (size,) int64, ``EMPTY`` where nothing is stored yet; empty rows take no part in any loss.
        ids: (size,) int64, -1 where none was given.
        position: () int64, the row that is written next.

    Raises:
        TypeError, ValueError: wrong settings, in a sentence that says what came, what is needed and what to type.

    Example:
        >>> import torch
        >>> from maskcon_loss import MemoryQueue
        >>> queue = MemoryQueue(size=4, dim=2)
        >>> queue.enqueue(torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]), torch.tensor([7, 8, 7]))
        >>> queue.keys[:3]
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000],
                [1.0000, 0.0000]])
        >>> len(queue), queue.is_full
        (3, False)

    Source: He et al., *Momentum Contrast*, CVPR 2020, section 3.2; with labels in Feng and Patras, CVPR 2023.
    """

    keys: Tensor
    labels: Tensor
    ids: Tensor
    position: Tensor
    stored: Tensor  # () int64, of a shard: how many keys all ranks hold together

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        normalize: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | int | None = None,
        gather_distributed: bool = True,
        sharded: bool = False,
        group: Any = None,
    ) -> None:
        super().__init__()
        _checks.queue_settings(size, dim, normalize, dtype, gather_distributed, sharded)
        self.normalize = normalize
        self.gather_distributed = gather_distributed
        self.sharded = sharded
        self.group_name = distributed.name_of(group)
        self._size = size
        self.shard = ring.Shard(*distributed.place(self.group_name)) if sharded else ring.WHOLE
        rows = self.shard.rows(size)
        self._keep("keys", torch.zeros(rows, dim, dtype=dtype, device=device))
        self._keep("labels", torch.full((rows,), EMPTY, dtype=torch.int64, device=device))
        self._keep("ids", torch.full((rows,), NO_ID, dtype=torch.int64, device=device))
        self._keep("position", torch.zeros((), dtype=torch.int64, device=device))
        if sharded:
            self._keep("stored", torch.zeros((), dtype=torch.int64, device=device))

    def _keep(self, name: str, tensor: Tensor) -> None:
        """Part of the state; a shard differs from rank to rank, and DDP makes all buffers equal."""
        if self.sharded:
            setattr(self, name, tensor)
        else:
            self.register_buffer(name, tensor)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MemoryQueue":
        super()._apply(fn, recurse)
        if self.sharded:
            for name in SHARD_STATE:
                setattr(self, name, fn(getattr(self, name)))
        return self

    @torch.no_grad()
    def enqueue(self, keys: Tensor, coarse_labels: Tensor, sample_ids: Tensor | None = None) -> None:
        """Store a batch over the oldest rows. Of a batch larger than the queue the last ``size`` rows stay.

        Enqueue after the loss, else a query meets its own key in the memory too; whether before or after ``backward``
        does not matter. Keys are detached; values are not looked at, so a NaN key is stored and shows in the next loss.

        Args:
            keys: (B, dim) floating, of any scale where the queue normalises.
            coarse_labels: (B,) integers; any negative one is stored as ``UNLABELLED``.
            sample_ids: (B,) integers that name the images, negative for none.

        Raises:
            TypeError, ValueError: wrong input; the queue is then as it was.
        """
        self._check_batch(keys, coarse_labels, sample_ids)
        with without_autocast(keys.device):
            keys = keys.detach().to(working_dtype(keys))
            keys = (unit(keys) if self.normalize else keys).to(self.keys.dtype)
        labels = coarse_labels.long().clamp(min=UNLABELLED)
        ids = torch.full_like(labels, NO_ID) if sample_ids is None else sample_ids.long()
        (keys, labels, ids), places, rows = self._arrivals(keys, labels, ids)
        self.keys.index_copy_(0, places, keys)
        self.labels.index_copy_(0, places, labels)
        self.ids.index_copy_(0, places, ids)
        self.position.add_(rows).remainder_(self.size)
        if self.sharded:
            self.stored.add_(rows).clamp_(max=self.size)

    def _check_batch(self, keys: Tensor, coarse_labels: Tensor, sample_ids: Tensor | None) -> None:
        """Wrong input raises here, and on the other ranks too, which else would wait for this one."""
        try:
            _checks.flag("normalize", self.normalize)
            _checks.enqueue(self.keys, keys, coarse_labels, sample_ids)
            if self.sharded:
                _checks.same_shard(self.shard, distributed.place(self.group_name))
        except (TypeError, ValueError):
            if self.gather_distributed:
                distributed.refuse("MemoryQueue.enqueue", self.group_name, self.keys.device)
            raise

    def _arrivals(self, keys: Tensor, labels: Tensor, ids: Tensor) -> tuple[list[Tensor], Tensor, int | Tensor]:
        """The rows of all ranks that stay here, the rows of the buffers where they go, and how many rows came."""
        if not self.gather_distributed or distributed.place(self.group_name)[1] == 1:
            return *ring.arrivals((keys, labels, ids), self.position, self.size), keys.shape[0]
        settings = (self.position, self.size, self.normalize, self.sharded, self.group_name)
        if torch.compiler.is_compiling():
            *own, places, rows = torch.ops.maskcon_loss.arrivals(keys, labels, ids, *settings)
            return own, places, rows
        return _arrivals(keys, labels, ids, *settings)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget everything: all rows are EMPTY, and writing starts at row 0."""
        self.keys.zero_()
        self.labels.fill_(EMPTY)
        self.ids.fill_(NO_ID)
        self.position.zero_()
        if self.sharded:
            self.stored.zero_()

    @property
    def size(self) -> int:
        """K, how many keys are kept, by all ranks together where the queue is sharded."""
        return self._size

    @property
    def dim(self) -> int:
        """D, the features of a key."""
        return self.keys.shape[1]

    def __len__(self) -> int:
        """How many keys are stored. Waits for the device, so it does not belong into every step."""
        return int(self.stored) if self.sharded else int((self.labels != EMPTY).sum())

    def __bool__(self) -> bool:
        """A queue is true also while it is empty, so that ``queue or None`` does not lose it."""
        return True

    @property
    def is_full(self) -> bool:
        """Whether every row holds a key. Waits for the device, as ``len(queue)`` does."""
        return len(self) == self.size

    def full_state_dict(self) -> dict[str, Tensor]:
        """The state of the whole queue on every rank, which any number of ranks can load, sharded or not.

        Of a sharded queue it is gathered from all ranks, into the host's memory, so all ranks must call it; of another
        it is the ``state_dict``.
        """
        if self.shard.world == 1:
            return {name: getattr(self, name).detach() for name in STATE}
        most = ring.Shard(0, self.shard.world).rows(self.size)
        rows = {name: getattr(self, name) for name in ROWS}
        whole = {name: torch.empty(self.size, *part.shape[1:], dtype=part.dtype) for name, part in rows.items()}
        for start in range(0, most, ROWS_AT_ONCE):
            columns = [part[start : start + ROWS_AT_ONCE] for part in rows.values()]
            common = _common(self.keys, self.position, self.size, self.normalize, True)
            gathered, counts = distributed.gather("MemoryQueue.full_state_dict", columns, common, self.group_name)
            for name, column in zip(ROWS, gathered, strict=True):
                for rank, part in enumerate(column.split(counts)):
                    ring.Shard(rank, self.shard.world).cut(whole[name])[start : start + ROWS_AT_ONCE] = part.cpu()
        return {**whole, "position": self.position.cpu()}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.sharded:
            destination |= {prefix + name: getattr(self, name).detach() for name in SHARD_STATE}
            destination[prefix + "shard"] = torch.tensor([*self.shard, self.size])

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """All of it or nothing: a state of another size raises; one that lacks a part is reported by torch.

        The state of a whole queue, as `full_state_dict` or a queue that is not sharded gives it, is cut to the shard.
        """
        cut = _checks.shard_entry(prefix, state_dict, [*self.shard, self.size] if self.sharded else None)
        names = STATE if cut or not self.sharded else SHARD_STATE
        expected = {name: getattr(self, name) for name in names}
        if cut:
            expected |= {
                name: expected[name].new_empty(1).expand(self.size, *expected[name].shape[1:]) for name in ROWS
            }
        _checks.state(prefix, state_dict, expected)
        missing = [prefix + name for name in names if prefix + name not in state_dict]
        if missing:
            missing_keys.extend(missing)
            return
        if not self.sharded:
            super()._load_from_state_dict(
                state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
            )
            return
        with torch.no_grad():
            for name in names:
                value = state_dict[prefix + name]
                getattr(self, name).copy_(self.shard.cut(value) if cut and name in ROWS else value)
            if cut:
                self.stored.copy_((state_dict[prefix + "labels"] != EMPTY).sum())
        known = {prefix + name for name in (*SHARD_STATE, "shard")}
        unexpected_keys.extend(key for key in state_dict if strict and key.startswith(prefix) and key not in known)

    def extra_repr(self) -> str:
        sharded = f", sharded=True, here {self.keys.shape[0]} rows" if self.sharded else ""
        return (
            f"{self.size}, {self.dim}, normalize={self.normalize}, dtype={self.keys.dtype}, "
            f"gather_distributed={self.gather_distributed}{sharded}"
        )


def _common(keys: Tensor, position: Tensor, size: int, normalize: bool, sharded: bool) -> dict[str, int | Tensor]:
    """What the queues of all ranks must have in common, for their rows to be equal afterwards."""
    return {
        "size": size,
        "dim": keys.shape[1],
        "dtype": distributed.DTYPES.index(keys.dtype),
        "normalize": normalize,
        "sharded": sharded,
        "position": position,
    }


def _arrivals(
    keys: Tensor, labels: Tensor, ids: Tensor, position: Tensor, size: int, normalize: bool, sharded: bool, name: str
) -> tuple[list[Tensor], Tensor, int]:
    common = _common(keys, position, size, normalize, sharded)
    columns, counts = distributed.gather("MemoryQueue.enqueue", (keys, labels, ids), common, name)
    shard = ring.Shard(*distributed.place(name)) if sharded else ring.WHOLE
    return *ring.arrivals(columns, position, size, shard), sum(counts)


# The same as an operator, which torch.compile leaves alone: how many rows come is known when it runs.
torch.library.define(
    "maskcon_loss::arrivals",
    "(Tensor keys, Tensor labels, Tensor ids, Tensor position, SymInt size, bool normalize, bool sharded, str group) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("maskcon_loss::arrivals", "default")
def _arrivals_operator(*arguments: Any) -> tuple[Tensor, ...]:
    columns, places, rows = _arrivals(*arguments)
    return *(column.contiguous() for column in columns), places, torch.full_like(arguments[3], rows)


@torch.library.register_fake("maskcon_loss::arrivals")
def _arrivals_shapes(*arguments: Any) -> tuple[Tensor, ...]:
    keys, labels, ids, position, *_ = arguments
    rows = torch.library.get_ctx().new_dynamic_size()
    return (
        keys.new_empty(rows, keys.shape[1]), labels.new_empty(rows), ids.new_empty(rows),
        labels.new_empty(rows), position.new_empty(()),
    )  # fmt: skip
