"""What crosses between processes: the rows that every rank brings, in rank order, and whether all ranks agree.

Every exchange is one all-gather of equally long messages: a header of fixed length, then room for rows. How much room
there is all ranks know without talking, as it is the most that any of them needed in an earlier exchange of the same
kind. Only when a rank needs more, which all see in the headers, a second all-gather with more room follows.

The headers say what all ranks must have in common, so a rank that differs is an error on all of them.

Shapes: B rows on this rank, W ranks.
"""

import contextlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from maskcon_loss import _checks

HEADER = 16  # int64 numbers
_ROWS, _BYTES, _REFUSED, _CALL, _COMMON = 0, 1, 2, 3, 4  # places in the header; the last is the first of many
_ANSWER_SECONDS = 3  # after a broken exchange: how long to wait for a sign of life from the others

CALLS = ("MemoryQueue.enqueue", "a loss over a sharded queue", "MemoryQueue.full_state_dict", "recall_at_k")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# New names in torch 2.13, which warns of the old ones.
_all_gather: Any = getattr(dist, "all_gather_single", getattr(dist, "all_gather_into_tensor", None))
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", getattr(dist, "reduce_scatter_tensor", None))

_room: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()  # of each group and call: bytes for rows


def name_of(group: Any) -> str:
    """The name by which operators know a group; empty for all ranks."""
    if group is None:
        return ""
    _checks.member(group)
    return group.group_name


def resolve(name: str) -> Any:
    if not name:
        return dist.group.WORLD
    return dist.distributed_c10d._resolve_process_group(name)  # pyright: ignore


def place(name: str = "") -> tuple[int, int]:
    """(rank, number of ranks) within a group; (0, 1) without one."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    group = resolve(name)
    return dist.get_rank(group), dist.get_world_size(group)


def gather(
    call: str, columns: Sequence[Tensor], common: Mapping[str, int | Tensor], name: str
) -> tuple[list[Tensor], list[int]]:
    """Each column, (B, ...), joined over the ranks in rank order, (sum of all B, ...), and the B of each rank.

    ``common`` are whole numbers that must be equal on all ranks; one that lies on a device is not waited for alone.
    """
    device, rows = columns[0].device, columns[0].shape[0]
    as_bytes = [column.reshape(rows, math.prod(column.shape[1:])).contiguous().view(torch.uint8) for column in columns]
    packed = torch.cat(as_bytes, dim=1).flatten()
    numbers = [rows, packed.numel(), 0, CALLS.index(call)]
    header = torch.tensor(
        numbers + [0 if isinstance(value, Tensor) else value for value in common.values()], device=device
    )
    for index, value in enumerate(common.values(), start=_COMMON):
        if isinstance(value, Tensor):
            header[index] = value
    headers, gathered = _exchange(call, header, packed, name)
    ranks = dist.get_process_group_ranks(resolve(name))
    if any(each[_REFUSED] for each in headers):
        _checks.refused(call, [rank for rank, each in zip(ranks, headers, strict=True) if each[_REFUSED]])
    places = {"call": _CALL} | {key: index for index, key in enumerate(common, start=_COMMON)}
    shown = {key: [_SHOW.get(key, int)(each[index]) for each in headers] for key, index in places.items()}
    _checks.agreement(call, shown, ranks)

    widths = [part.shape[1] for part in as_bytes]
    counts = [each[_ROWS] for each in headers]
    joined = torch.cat([gathered[rank, : count * sum(widths)] for rank, count in enumerate(counts)])
    pieces = joined.view(sum(counts), sum(widths)).split(widths, dim=1)
    return [
        piece.clone(memory_format=torch.contiguous_format).view(column.dtype).reshape(sum(counts), *column.shape[1:])
        for piece, column in zip(pieces, columns, strict=True)
    ], counts


def _exchange(call: str, header: Tensor, packed: Tensor, name: str) -> tuple[list[list[int]], Tensor]:
    """The header of each rank, and the bytes of each rank, (W, room), of which each rank filled the first."""
    group = resolve(name)
    rooms = _room.setdefault(group, {})
    room, need, start = rooms.get(call, 0), packed.numel(), HEADER * header.element_size()
    message = packed.new_zeros(start + room)
    message[: header.numel() * header.element_size()] = header.view(torch.uint8)
    if need <= room:
        message[start : start + need] = packed
    gathered = all_gather(call, message, name)
    headers: list[list[int]] = gathered[:, :start].contiguous().view(torch.int64).tolist()  # the host waits here
    common = [header[_REFUSED:_COMMON] for header in headers]
    most = max(header[_BYTES] for header in headers)
    if most > room and not any(refused for refused, _ in common):
        rooms[call] = most
        message = packed.new_zeros(most)
        message[:need] = packed
        return headers, all_gather(call, message, name)
    return headers, gathered[:, start:]


def all_gather(call: str, message: Tensor, name: str) -> Tensor:
    """The messages of all ranks, equally long, (W, length)."""
    _, world = place(name)
    gathered = message.new_empty(world, *message.shape)
    with answered(call, name):
        _all_gather(gathered.flatten(), message.contiguous(), group=resolve(name))
    return gathered


def refuse(call: str, name: str, device: torch.device) -> None:
    """Tell the ranks that take part in a call that this one brings wrong input, so that none of them waits for it."""
    if place(name)[1] == 1:
        return
    numbers = [0, 0, 1, CALLS.index(call)]
    with contextlib.suppress(RuntimeError):  # the complaint about the input is the one to show
        _exchange(call, torch.tensor(numbers, device=device), torch.empty(0, dtype=torch.uint8, device=device), name)


def reduce_scatter(call: str, summands: Tensor, counts: Sequence[int], name: str) -> Tensor:
    """The sum over the ranks of the rows of this rank, (B, ...), of rows in the order of the ranks."""
    rank, world = place(name)
    most = max(counts)
    if min(counts) < most:  # all ranks must get equally many
        padded = summands.new_zeros(world, most, *summands.shape[1:])
        for part, rows in zip(padded, summands.split(list(counts)), strict=True):
            part[: rows.shape[0]] = rows
        summands = padded.flatten(0, 1)
    mine = summands.new_empty(most, *summands.shape[1:])
    with answered(call, name):
        _reduce_scatter(mine, summands.contiguous(), group=resolve(name))
    return mine[: counts[rank]]


def bits(number: float) -> int:
    """A number as `gather` compares it."""
    return struct.unpack("q", struct.pack("d", number))[0]


def number(bits: int) -> float:
    return struct.unpack("d", struct.pack("q", bits))[0]


#: How `gather` shows what is no plain number.
_SHOW: dict[str, Callable[[int], Any]] = {
    "dtype": DTYPES.__getitem__,
    "normalize": bool,
    "sharded": bool,
    "call": CALLS.__getitem__,
    "weight": number,
    "temperature": number,
    "target_temperature": number,
}


class answered:
    """A region in which a broken exchange becomes a sentence that names the ranks that gave no sign of life since."""

    def __init__(self, call: str, name: str) -> None:
        self.call, self.name = call, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, RuntimeError):
            ranks = dist.get_process_group_ranks(resolve(self.name))
            mine = dist.get_rank()
            _checks.lost(self.call, mine, len(ranks), _silent(ranks, mine))


def _silent(ranks: list[int], mine: int) -> list[int]:
    """Those who did not sign in the store that all ranks met at; empty where the store itself is gone."""
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set(f"maskcon_loss/broken/{mine}", "1")
        silent = []
        for rank in ranks:
            try:
                store.wait([f"maskcon_loss/broken/{rank}"], timedelta(seconds=_ANSWER_SECONDS))
            except RuntimeError:
                silent.append(rank)
    except RuntimeError:
        return []
    return silent
