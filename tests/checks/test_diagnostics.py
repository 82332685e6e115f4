"""What is said about a wrong call of `diagnose`, beside what the losses say of the same arguments."""

from collections.abc import Callable

import pytest
import torch
from instruments import error_of
from torch import nn

from maskcon_loss import MaskConLoss, MemoryQueue, diagnose

KEY, LABELS = torch.eye(4), torch.arange(4) % 2

Case = tuple[Callable[[], object], type[Exception], str]
CASES: dict[str, Case] = {
    "another loss": (
        lambda: diagnose(nn.CrossEntropyLoss(), KEY, LABELS),
        TypeError,
        "`criterion` is of type CrossEntropyLoss, which has no soft targets; it must be a loss of this package or "
        "`CoarseMaskSoftTargets`. If it wraps the loss, pass the loss itself, with its own settings: "
        "`diagnose(criterion.module, key, coarse_labels, queue)`.",
    ),
    "the loss forgotten": (
        lambda: diagnose(KEY, LABELS, MemoryQueue(8, 4)),
        TypeError,
        "`criterion` is of type Tensor, which has no soft targets; it must be a loss of this package or "
        "`CoarseMaskSoftTargets`. If it wraps the loss, pass the loss itself, with its own settings: "
        "`diagnose(criterion.module, key, coarse_labels, queue)`.",
    ),
    "an empty batch": (
        lambda: diagnose(MaskConLoss(), KEY[:0], LABELS[:0], MemoryQueue(8, 4)),
        ValueError,
        "`key` has 0 rows, and nothing can be said of a batch without rows; at least one is needed. For batches that "
        "may be empty, type `if len(key):` before the call.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_sentence_says_what_came_what_is_needed_and_what_to_type(case: str) -> None:
    call, kind, sentence = CASES[case]
    error = error_of(call)
    assert (type(error), str(error)) == (kind, sentence)


def test_the_arguments_it_shares_with_a_loss_are_checked_as_there() -> None:
    for wrong in (lambda call: call(KEY, LABELS[:3]), lambda call: call(KEY, LABELS, MemoryQueue(8, 5))):
        said = error_of(lambda wrong=wrong: wrong(lambda *rest: diagnose(MaskConLoss(), *rest)))
        assert "coarse_labels" in str(said) or "features" in str(said)
