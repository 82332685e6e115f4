"""What crosses between processes: the rows that every rank brings, in rank order.

Shapes: B rows on this rank, W ranks.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(*columns: Tensor) -> tuple[Tensor, ...]:
    """Each column, (B, ...), joined over the ranks in rank order, (sum of all B, ...); as it is for a single process.

    Ranks may bring different numbers of rows, also none. Two collectives: the numbers of rows, which the host waits
    for, then all columns side by side as bytes, so that nothing is rounded.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return columns
    rows = columns[0].shape[0]
    mine = torch.tensor([rows], device=columns[0].device)
    counts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    counts_W: list[int] = torch.cat(counts).tolist()

    as_bytes = [column.reshape(rows, math.prod(column.shape[1:])).contiguous().view(torch.uint8) for column in columns]
    packed = torch.cat(as_bytes, dim=1)
    padded = packed.new_zeros(max(counts_W), packed.shape[1])
    padded[:rows] = packed
    gathered = [torch.empty_like(padded) for _ in counts_W]
    dist.all_gather(gathered, padded)
    joined = torch.cat([part[:count] for part, count in zip(gathered, counts_W, strict=True)])

    pieces = joined.split([part.shape[1] for part in as_bytes], dim=1)
    return tuple(
        piece.clone(memory_format=torch.contiguous_format).view(column.dtype).reshape(sum(counts_W), *column.shape[1:])
        for piece, column in zip(pieces, columns, strict=True)
    )
