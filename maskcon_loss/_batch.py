"""A batch beside its memory, and who meets whom in it: the one place where the mask is made.

Shapes: B rows in the batch, K rows in the memory (or in a chunk of it), D features.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from maskcon_loss._precision import unit, working_dtype

#: Label of a memory row that holds nothing yet: for every loss such a row does not exist.
EMPTY: int = -(2**62)

#: Label of a sample whose coarse class is unknown. Any other negative label but ``EMPTY`` means the same.
UNLABELLED: int = -1

#: Id of a sample that has none. Negative ids match nothing.
NO_ID: int = -1


class Batch(NamedTuple):
    """What every implementation computes a loss from, as `arrange` makes it."""

    query: Tensor  # (B, D) in the working precision, as key
    key: Tensor  # (B, D)
    labels: Tensor  # (B,) int64, as all labels
    memory: Tensor  # (K, D) in the precision it is stored in
    memory_labels: Tensor  # (K,)
    ids: Tensor | None  # (B,) int64, as memory_ids
    memory_ids: Tensor | None  # (K,)
    own_rows: Tensor | None  # (B,): where the batch is its own memory, the memory row that holds the row's own key

    def exists(self) -> Tensor:
        """Whether a memory row holds anything, (K,)."""
        return self.memory_labels != EMPTY

    def seen(self) -> Tensor:
        """Whether row i meets memory row j at all: (1, K) where all rows meet the same, else (B, K).

        Nobody meets an EMPTY row, a row with the own id (the stale key of the same image) or the row's own key,
        which has a column of its own.
        """
        seen = self.exists().unsqueeze(0)
        if self.ids is not None and self.memory_ids is not None:
            ids_B1 = self.ids.unsqueeze(1)
            seen = seen & ~((ids_B1 == self.memory_ids) & (ids_B1 >= 0))
        if self.own_rows is not None:
            rows_K = torch.arange(self.memory_labels.shape[0], device=self.memory_labels.device)
            seen = seen & (self.own_rows.unsqueeze(1) != rows_K)
        return seen

    def same_class(self, seen: Tensor) -> Tensor:
        """The mask of eq. (1): whether row i meets memory row j and shares its coarse class, (B, K).

        An unlabelled row of the batch or the memory shares its class with nobody.
        """
        labels_B1 = self.labels.unsqueeze(1)
        return (labels_B1 == self.memory_labels) & (labels_B1 >= 0) & seen

    def memory_vectors(self) -> Tensor:
        """The memory in the working precision, (K, D), a new tensor; EMPTY rows are zero, whatever they hold."""
        return self.memory.to(self.query.dtype).masked_fill(~self.exists().unsqueeze(1), 0.0)

    def beside(self, query: Tensor, key: Tensor) -> "Batch":
        """The same with these for query and key; `_replace` or a slice would stop torch.compile in PyTorch 2.6."""
        labels, memory, memory_labels = self.labels, self.memory, self.memory_labels
        return Batch(query, key, labels, memory, memory_labels, self.ids, self.memory_ids, self.own_rows)

    def rounded(self) -> "Batch":
        """Query and key in the precision the memory is stored in, for products of one kind."""
        return self.beside(self.query.to(self.memory.dtype), self.key.to(self.memory.dtype))

    def chunk(self, start: int, rows: int) -> "Batch":
        """The same batch beside ``rows`` rows of its memory, the first of them ``start``."""
        part = slice(start, start + rows)
        return self._replace(
            memory=self.memory[part],
            memory_labels=self.memory_labels[part],
            memory_ids=None if self.memory_ids is None else self.memory_ids[part],
            own_rows=None if self.own_rows is None else self.own_rows - start,
        )

    def some_rows(self, start: int, rows: int) -> "Batch":
        """``rows`` rows of the batch, the first of them ``start``, beside the same memory."""
        part = slice(start, start + rows)
        return self._replace(
            query=self.query[part],
            key=self.key[part],
            labels=self.labels[part],
            ids=None if self.ids is None else self.ids[part],
            own_rows=None if self.own_rows is None else self.own_rows[part],
        )

    def pick(self, rows: Tensor) -> "Batch":
        """The same batch beside these rows of a memory that is not the batch itself."""
        return self._replace(
            memory=self.memory.index_select(0, rows),
            memory_labels=self.memory_labels.index_select(0, rows),
            memory_ids=None if self.memory_ids is None else self.memory_ids.index_select(0, rows),
        )


def arrange(
    query: Tensor,
    key: Tensor,
    coarse_labels: Tensor,
    memory_keys: Tensor | None,
    memory_labels: Tensor | None,
    sample_ids: Tensor | None,
    memory_ids: Tensor | None,
    normalize: bool,
) -> Batch:
    """Query and key in the working precision, at unit length if so set; without a memory the batch becomes it."""
    dtype = working_dtype(query, key, *([] if memory_keys is None else [memory_keys]))
    query, key, labels = query.to(dtype), key.to(dtype), coarse_labels.long()
    ids = None if sample_ids is None else sample_ids.long()
    if normalize:
        query, key = unit(query), unit(key)
    if memory_keys is None or memory_labels is None:
        own_rows = torch.arange(key.shape[0], device=key.device)
        return Batch(query, key, labels, key, labels, ids, ids, own_rows)
    memory_ids = None if memory_ids is None else memory_ids.long()
    return Batch(query, key, labels, memory_keys, memory_labels.long(), ids, memory_ids, None)
