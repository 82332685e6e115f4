"""Where the rows of a batch go in a ring of K places, and which places a rank keeps.

Shapes: K places in the ring, B rows in the batch, W ranks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Shard(NamedTuple):
    """Every W-th place of the ring, beginning with place ``rank``: so the ranks fill up together."""

    rank: int
    world: int

    def rows(self, size: int) -> int:
        """How many of the places are in this shard."""
        return len(range(self.rank, size, self.world))

    def cut(self, whole: Tensor) -> Tensor:
        """The rows of this shard, of a tensor with a row for every place."""
        return whole[self.rank :: self.world]


WHOLE = Shard(0, 1)


def arrivals(
    columns: Sequence[Tensor], position: Tensor, size: int, shard: Shard = WHOLE
) -> tuple[list[Tensor], Tensor]:
    """Of the columns of a batch the rows that stay in this shard, and the row of the shard where each goes.

    Of a batch larger than the ring only the last rows stay.
    """
    rows = columns[0].shape[0]
    kept = min(rows, size)
    places = (position + torch.arange(rows - kept, rows, device=position.device)) % size
    columns = [column[rows - kept :] for column in columns]
    if shard.world > 1:
        mine = (places % shard.world == shard.rank).nonzero().squeeze(1)
        places = places.index_select(0, mine) // shard.world
        columns = [column.index_select(0, mine) for column in columns]
    return list(columns), places
