"""The memory: a ring of recent keys with their coarse labels and sample ids."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from maskcon_loss import _checks, distributed
from maskcon_loss._batch import EMPTY, NO_ID, UNLABELLED
from maskcon_loss._precision import unit, without_autocast, working_dtype


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

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        normalize: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | int | None = None,
        gather_distributed: bool = True,
    ) -> None:
        super().__init__()
        _checks.queue_settings(size, dim, normalize, dtype, gather_distributed)
        self.normalize = normalize
        self.gather_distributed = gather_distributed
        self.register_buffer("keys", torch.zeros(size, dim, dtype=dtype, device=device))
        self.register_buffer("labels", torch.full((size,), EMPTY, dtype=torch.int64, device=device))
        self.register_buffer("ids", torch.full((size,), NO_ID, dtype=torch.int64, device=device))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64, device=device))

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
        _checks.flag("normalize", self.normalize)
        _checks.enqueue(self.keys, keys, coarse_labels, sample_ids)
        with without_autocast(keys.device):
            keys = keys.detach().to(working_dtype(keys))
            keys = (unit(keys) if self.normalize else keys).to(self.keys.dtype)
        labels = coarse_labels.long().clamp(min=UNLABELLED)
        ids = torch.full_like(labels, NO_ID) if sample_ids is None else sample_ids.long()
        if self.gather_distributed:
            keys, labels, ids = distributed.gather_rows(keys, labels, ids)
        rows = keys.shape[0]
        kept = min(rows, self.size)
        places = (self.position + torch.arange(rows - kept, rows, device=keys.device)) % self.size
        self.keys.index_copy_(0, places, keys[rows - kept :])
        self.labels.index_copy_(0, places, labels[rows - kept :])
        self.ids.index_copy_(0, places, ids[rows - kept :])
        self.position.add_(rows).remainder_(self.size)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget everything: all rows are EMPTY, and writing starts at row 0."""
        self.keys.zero_()
        self.labels.fill_(EMPTY)
        self.ids.fill_(NO_ID)
        self.position.zero_()

    @property
    def size(self) -> int:
        """K, how many keys are kept."""
        return self.keys.shape[0]

    @property
    def dim(self) -> int:
        """D, the features of a key."""
        return self.keys.shape[1]

    def __len__(self) -> int:
        """How many keys are stored. Waits for the device, so it does not belong into every step."""
        return int((self.labels != EMPTY).sum())

    def __bool__(self) -> bool:
        """A queue is true also while it is empty, so that ``queue or None`` does not lose it."""
        return True

    @property
    def is_full(self) -> bool:
        """Whether every row holds a key. Waits for the device, as ``len(queue)`` does."""
        return len(self) == self.size

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
        """All four buffers or none: a state of another size raises; one that lacks a buffer is reported by torch."""
        buffers = dict(self.named_buffers(recurse=False))
        _checks.state(prefix, state_dict, buffers)
        missing = [prefix + name for name in buffers if prefix + name not in state_dict]
        if missing:
            missing_keys.extend(missing)
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def extra_repr(self) -> str:
        return (
            f"{self.size}, {self.dim}, normalize={self.normalize}, dtype={self.keys.dtype}, "
            f"gather_distributed={self.gather_distributed}"
        )
