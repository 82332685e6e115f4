"""Numbers to log while an encoder trains: what the targets of a batch look like, and the state of the memory."""

from typing import Any

import torch
from torch import Tensor

from maskcon_loss import _checks, distributed, functional
from maskcon_loss._batch import Batch, arrange
from maskcon_loss._precision import without_autocast

CELLS_AT_ONCE = 1 << 22  # of a (rows, K) matrix


@torch.no_grad()
def diagnose(
    criterion: Any, key: Tensor, coarse_labels: Tensor, queue: Any = None, *, sample_ids: Tensor | None = None
) -> dict[str, float]:
    r"""What a loss sees in a batch and its memory, as plain numbers to log every hundred steps or so.

    With the targets :math:`t_i` of row i, in which the own key is column 0:

    .. math::

        \text{own mass} = t_{i0}, \qquad
        \text{effective positives} = \exp\Bigl(-\sum_j t_{ij} \log t_{ij}\Bigr)

    Call it where the loss is called, before ``enqueue``. It changes nothing, draws no gradient, and waits for the
    device once. It computes B x K similarities, some rows at a time, which costs about as much as the forward pass of a
    dense loss. Of several ranks each looks at its own rows. A
    sharded queue is refused: load its ``full_state_dict()`` into a whole one on all ranks.

    Args:
        criterion: the loss whose targets are meant: a :class:`MaskConLoss` or a baseline (SelfCon and CoIns give all
            mass to the own key), or a :class:`CoarseMaskSoftTargets`.
        key: (B, D) floating, as given to the loss.
        coarse_labels: (B,) integers.
        queue: as given to the loss; None for the batch's own other keys.
        sample_ids: (B,) integers, as given to the loss.

    Returns:
        A dict of floats, means over the B rows where nothing else is said.

        - ``"candidates"``: how many keys of the memory share the row's coarse class; an unlabelled row has none.
        - ``"without_candidates"``: the share of rows, 0 to 1, that have none and so are SelfCon rows.
        - ``"own_mass"``: the positive mass on the own key, from 1 - w to 1.
        - ``"effective_positives"``: the perplexity of the targets, from 1 (all mass on one key) to 1 + candidates
          (equal shares).
        - ``"queue_fill"``: the share of the memory, 0 to 1, that holds keys; 1 without a queue.
        - ``"queue_age"``: the age of the oldest key in steps, if all steps store as many keys as this batch brings (on
          all ranks, where the queue gathers); 0 without a queue.

    Raises:
        TypeError, ValueError: wrong input, in a sentence that says what came, what is needed and what to type. NaN in
            the key is no error: it gives NaN.

    Example:
        >>> import torch
        >>> from maskcon_loss import MaskConLoss, MemoryQueue, diagnose
        >>> queue = MemoryQueue(size=8, dim=2)
        >>> queue.enqueue(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
        >>> diagnose(MaskConLoss(), torch.tensor([[1.0, 0.0]]), torch.tensor([0]), queue)["candidates"]
        2.0

    Source: the effective number of positives is the perplexity of Jelinek et al., JASA 62 (S1), 1977.
    """
    keys, labels, ids = _checks.memory_of(queue)
    weight, target_temperature = _checks.targets_of(criterion)
    _checks.settings("none", criterion.normalize, "auto", weight, target_temperature=target_temperature)
    _checks.batch(None, key, coarse_labels, sample_ids)
    _checks.memory(key, keys, labels, ids, sample_ids)
    _checks.rows_to_describe(key)
    with without_autocast(key.device):
        batch = arrange(key, key, coarse_labels, keys, labels, sample_ids, ids, criterion.normalize)
        numbers = torch.stack([*_of_targets(batch, weight, target_temperature), batch.exists().double().sum()])
    candidates, without, own, effective, stored = numbers.tolist()  # the host waits here
    return {
        "candidates": candidates,
        "without_candidates": without,
        "own_mass": own,
        "effective_positives": effective,
        "queue_fill": stored / max(batch.memory_labels.shape[0], 1),
        "queue_age": 0.0 if keys is None else stored / (key.shape[0] * _ranks(queue)),
    }


def _of_targets(batch: Batch, weight: float, target_temperature: float) -> Tensor:
    """The means over the rows of: candidates, having none, own mass, effective positives. (4,), float64."""
    memory_KD = batch.memory_vectors()
    rows, columns = batch.key.shape[0], memory_KD.shape[0]
    sums = torch.zeros(4, dtype=torch.float64, device=memory_KD.device)
    at_once = max(1, CELLS_AT_ONCE // max(columns, 1))
    for start in range(0, rows, at_once):
        part = batch.some_rows(start, at_once)
        same_BK = part.same_class(part.seen()).expand(part.key.shape[0], columns)
        targets_BN = functional.soft_targets(part.key, memory_KD, same_BK, weight, target_temperature)
        effective_B = torch.special.entr(targets_BN).sum(1).exp()
        candidates_B = same_BK.sum(1)
        columns_B4 = (candidates_B, candidates_B == 0, targets_BN[:, 0], effective_B)
        sums += torch.stack([column.double().sum() for column in columns_B4])
    return sums / rows


def _ranks(queue: Any) -> int:
    """How many ranks' keys an `enqueue` stores."""
    if not getattr(queue, "gather_distributed", False):
        return 1
    return distributed.place(getattr(queue, "group_name", ""))[1]
