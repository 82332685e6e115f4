"""Who meets whom: the mask, by hand."""

import torch

from maskcon_loss import EMPTY, UNLABELLED
from maskcon_loss._batch import NO_ID, arrange


def test_the_mask_by_hand() -> None:
    """Five memory rows: same class, other class, empty, unlabelled, and the stale key of image 8."""
    batch = arrange(
        torch.eye(3), torch.eye(3), torch.tensor([0, 1, UNLABELLED]), torch.ones(5, 3),
        torch.tensor([0, 1, EMPTY, UNLABELLED, 0]), torch.tensor([8, NO_ID, 9]),
        torch.tensor([NO_ID, NO_ID, NO_ID, NO_ID, 8]), normalize=True,
    )  # fmt: skip
    seen = batch.seen()
    assert batch.exists().tolist() == [True, True, False, True, True]
    assert seen.int().tolist() == [[1, 1, 0, 1, 0], [1, 1, 0, 1, 1], [1, 1, 0, 1, 1]]
    assert batch.same_class(seen).int().tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert batch.memory_vectors().sum(1).tolist() == [3, 3, 0, 3, 3]


def test_in_the_batch_nobody_meets_the_own_key_nor_another_view_of_the_own_image() -> None:
    labels, ids = torch.tensor([0, 0, 1]), torch.tensor([4, NO_ID, 4])
    batch = arrange(torch.eye(3), torch.eye(3), labels, None, None, ids, None, normalize=True)
    assert batch.seen().int().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert batch.same_class(batch.seen()).int().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_chunks_of_the_memory_put_together_are_the_memory() -> None:
    labels, ids = torch.tensor([0, 1, 0, 2]), torch.arange(4)
    batch = arrange(torch.eye(4), torch.eye(4), labels, None, None, ids, None, normalize=True)
    parts = [batch.chunk(start, 3) for start in (0, 3)]
    assert torch.equal(torch.cat([part.seen() for part in parts], 1), batch.seen())
    same = [part.same_class(part.seen()) for part in parts]
    assert torch.equal(torch.cat(same, 1), batch.same_class(batch.seen()))
    assert torch.equal(torch.cat([part.memory_vectors() for part in parts]), batch.memory_vectors())
