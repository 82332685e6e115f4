"""What is said about a wrong call of a loss; and that such a call changes nothing."""

from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from maskcon_loss import CoInsLoss, MaskConLoss, MemoryQueue, SupConLoss, functional

B, D, K = 6, 4, 8
G = torch.Generator().manual_seed(0)
QUERY, KEY, MEMORY = (torch.randn(rows, D, generator=G).requires_grad_() for rows in (B, B, K))
LABELS, MEMORY_LABELS, IDS = torch.arange(B) % 2, torch.arange(K) % 2, torch.arange(B)
SCORES = torch.zeros(B, 2, requires_grad=True)
QUEUE = MemoryQueue(K, D)
QUEUE.enqueue(KEY[:5], LABELS[:5], IDS[:5])


def memory(**parts: object) -> SimpleNamespace:
    return SimpleNamespace(**{"keys": MEMORY, "labels": MEMORY_LABELS, **parts})


def coins(impl: str, **changed: object) -> Tensor:
    return CoInsLoss(impl=impl)(QUERY, KEY, LABELS, **{"queue": QUEUE, "logits": SCORES, **changed})


#: A call takes the implementation that is asked for. `MaskConLoss(impl=impl)` is the loss of most.
Case = tuple[Callable[[str], object], type[Exception], str]
CASES: dict[str, Case] = {
    # ----------------------------------------------------------------------------------------------- query and key
    "no query": (
        lambda impl: MaskConLoss(impl=impl)(None, KEY, LABELS, QUEUE),
        TypeError,
        "`query` is None; it must be a torch.Tensor. If a function made it, look whether it ends with `return`.",
    ),
    "no query for CoIns": (
        lambda impl: CoInsLoss(impl=impl)(None, KEY, LABELS, QUEUE, logits=SCORES),
        TypeError,
        "`query` is None; it must be a torch.Tensor. If a function made it, look whether it ends with `return`.",
    ),
    "more queries than keys": (
        lambda impl: MaskConLoss(impl=impl)(QUERY.repeat(2, 1), KEY, LABELS, QUEUE),
        ValueError,
        "`query` has 12 rows but `key` has 6; row i of both must be the same image. Give both encoders the same "
        "images: `query = encoder(view_1)` and `key = key_encoder(view_2)`.",
    ),
    "the memory's keys for the key": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, QUEUE.keys, LABELS, QUEUE),
        ValueError,
        "`query` has 6 rows but `key` has 8; row i of both must be the same image. Give both encoders the same images: "
        "`query = encoder(view_1)` and `key = key_encoder(view_2)`.",
    ),
    "query wider than key": (
        lambda impl: MaskConLoss(impl=impl)(QUERY.repeat(1, 2), KEY, LABELS, QUEUE),
        ValueError,
        "`query` has 8 features but `key` has 4; they are compared, so the widths must be equal. If `query` skipped "
        "its projector, type `query = projector(query)`.",
    ),
    "key wider than query": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY.repeat(1, 2), LABELS, QUEUE),
        ValueError,
        "`query` has 4 features but `key` has 8; they are compared, so the widths must be equal. If `key` skipped its "
        "projector, type `key = projector(key)`.",
    ),
    "key on another device": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY.to("meta"), LABELS, QUEUE),
        ValueError,
        "`key` is on meta but `query` is on cpu; both must be on one device. One of them was not moved: type "
        "`key.to(query.device)`.",
    ),
    "the mean of no rows": (
        lambda impl: MaskConLoss(impl=impl)(QUERY[:0], KEY[:0], LABELS[:0], QUEUE),
        ValueError,
        "`query` has 0 rows, and the mean of no losses is undefined (NaN); at least one row is needed. For batches "
        "that may be empty, type `reduction='sum'`.",
    ),
    "the mean of no rows of CoIns": (
        lambda impl: CoInsLoss(impl=impl)(QUERY[:0], KEY[:0], LABELS[:0], QUEUE, logits=SCORES[:0]),
        ValueError,
        "`query` has 0 rows, and the mean of no losses is undefined (NaN); at least one row is needed. For batches "
        "that may be empty, type `reduction='sum'`.",
    ),
    # ------------------------------------------------------------------------------------------------- labels and ids
    "the queue in the place of the labels": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, QUEUE),
        TypeError,
        "`coarse_labels` is of type MemoryQueue; it must be a torch.Tensor. Look at the order of the arguments; where "
        "an object holds the tensor, pass the tensor itself.",
    ),
    "labels of one view for two": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS[:3], QUEUE),
        ValueError,
        "`coarse_labels` has 3 entries but `query` has 6 rows; each row needs its own, in the same order. 6 is 2 × 3: "
        "if 2 views were stacked, repeat them, `coarse_labels.repeat(2)`.",
    ),
    "ids, but none in the memory": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, memory(), sample_ids=IDS),
        ValueError,
        "`sample_ids` came, but the memory has no ids to compare them with, so no stale key could be left out. Pass "
        "the memory's too (`ids` of an object, `memory_ids` of a function), or type `sample_ids=None`.",
    ),
    "ids of a function, but none of the memory": (
        lambda impl: functional.maskcon(QUERY, KEY, LABELS, QUEUE.keys, QUEUE.labels, sample_ids=IDS, impl=impl),
        ValueError,
        "`sample_ids` came, but the memory has no ids to compare them with, so no stale key could be left out. Pass "
        "the memory's too (`ids` of an object, `memory_ids` of a function), or type `sample_ids=None`.",
    ),
    "ids of the memory, but no memory": (
        lambda impl: functional.grafit(QUERY, KEY, LABELS, None, None, memory_ids=IDS, impl=impl),
        ValueError,
        "`memory_ids` came without `memory_keys`; without a memory the batch is the memory, with the ids of the batch. "
        "Pass the memory's keys and labels too, or type `memory_ids=None`.",
    ),
    # ---------------------------------------------------------------------------------------------------- the memory
    "a tensor for the queue": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, MEMORY),
        TypeError,
        "`queue` is of type Tensor and has no tensor `.keys`; it must be a `MemoryQueue` or another object with the "
        "tensors `.keys` and `.labels`. Tensors become one with "
        "`types.SimpleNamespace(keys=memory_keys, labels=memory_labels)`.",
    ),
    "a list for the queue": (
        lambda impl: SupConLoss(impl=impl)(QUERY, KEY, LABELS, [MEMORY, MEMORY_LABELS]),
        TypeError,
        "`queue` is of type list and has no tensor `.keys`; it must be a `MemoryQueue` or another object with the "
        "tensors `.keys` and `.labels`. Tensors become one with "
        "`types.SimpleNamespace(keys=memory_keys, labels=memory_labels)`.",
    ),
    "a dict for the queue": (
        lambda impl: coins(impl, queue={"keys": MEMORY, "labels": MEMORY_LABELS}),
        TypeError,
        "`queue` is of type dict and has no tensor `.keys`; it must be a `MemoryQueue` or another object with the "
        "tensors `.keys` and `.labels`. Tensors become one with "
        "`types.SimpleNamespace(keys=memory_keys, labels=memory_labels)`.",
    ),
    "a model that holds the queue": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, nn.Sequential(OrderedDict(queue=QUEUE))),
        TypeError,
        "`queue` is of type Sequential and has no tensor `.keys`; it must be a `MemoryQueue` or another object with "
        "the tensors `.keys` and `.labels`. Tensors become one with `types.SimpleNamespace(keys=memory_keys, "
        "labels=memory_labels)`.",
    ),
    "a memory without labels": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, SimpleNamespace(keys=MEMORY)),
        TypeError,
        "`queue` is of type SimpleNamespace and has no tensor `.labels`; it must be a `MemoryQueue` or another object "
        "with the tensors `.keys` and `.labels`. Tensors become one with "
        "`types.SimpleNamespace(keys=memory_keys, labels=memory_labels)`.",
    ),
    "a memory whose labels are a list": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, memory(labels=MEMORY_LABELS.tolist())),
        TypeError,
        "`queue.labels` is of type list; it must be a torch.Tensor. Type `torch.as_tensor(queue.labels)`.",
    ),
    "a memory with a label short": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, memory(labels=MEMORY_LABELS[1:])),
        ValueError,
        "`memory_labels` has 7 entries but `memory_keys` has 8 rows; each row needs its own, in the same order. Pass "
        "those of the same batch, and where one is cut, cut both: `memory_keys[:n]` and `memory_labels[:n]`.",
    ),
    "a memory with ids that are no numbers": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, memory(ids=MEMORY_LABELS.float())),
        TypeError,
        "`memory_ids` has dtype torch.float32; whole numbers are needed: int64, int32, int16, int8 or uint8. If they "
        "are whole already, type `memory_ids.long()`.",
    ),
    "a queue of another width": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, MemoryQueue(8, 7)),
        ValueError,
        "The memory's keys have 7 features but the batch has 4; they are compared, so the widths must be equal. If the "
        "batch went through its projector, build the queue for it: `MemoryQueue(8, 4)`.",
    ),
    "a memory of no rows and another width": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, memory(keys=MEMORY[:0, :3], labels=LABELS[:0])),
        ValueError,
        "The memory's keys have 3 features but the batch has 4; they are compared, so the widths must be equal. If the "
        "batch went through its projector, build the queue for it: `MemoryQueue(1, 4)`.",
    ),
    "a queue on another device": (
        lambda impl: MaskConLoss(impl=impl)(QUERY, KEY, LABELS, MemoryQueue(8, 4, device="meta")),
        ValueError,
        "The memory is on meta but the batch is on cpu; both must be on one device. A queue is a module and moves like "
        "one: `queue.to('cpu')`.",
    ),
    "keys without labels": (
        lambda impl: functional.maskcon(QUERY, KEY, LABELS, MEMORY, None, impl=impl),
        ValueError,
        "`memory_keys` came without `memory_labels`; a memory needs both, and None for both makes the batch its own "
        "memory. Type `queue.keys, queue.labels`.",
    ),
    "labels without keys": (
        lambda impl: functional.supcon(QUERY, KEY, LABELS, None, MEMORY_LABELS, impl=impl),
        ValueError,
        "`memory_labels` came without `memory_keys`; a memory needs both, and None for both makes the batch its own "
        "memory. Type `queue.keys, queue.labels`.",
    ),
    "a queue in the place of its keys": (
        lambda impl: functional.selfcon(QUERY, KEY, LABELS, QUEUE, QUEUE.labels, impl=impl),
        TypeError,
        "`memory_keys` is of type MemoryQueue; it must be a torch.Tensor. Look at the order of the arguments; where an "
        "object holds the tensor, pass the tensor itself.",
    ),
    "keys without labels for targets": (
        lambda impl: functional.coarse_mask_soft_targets(KEY, LABELS, MEMORY, None),
        ValueError,
        "`memory_keys` came without `memory_labels`; a memory needs both, and None for both makes the batch its own "
        "memory. Type `queue.keys, queue.labels`.",
    ),
    # --------------------------------------------------------------------------------------------------------- logits
    "no logits": (
        lambda impl: coins(impl, logits=None),
        TypeError,
        "`logits` is missing; CoIns adds the cross-entropy of a classifier over the coarse classes. Type "
        "`logits=classifier(features)`.",
    ),
    "predicted classes for logits": (
        lambda impl: coins(impl, logits=LABELS),
        TypeError,
        "`logits` has dtype torch.int64; cross-entropy needs floating scores. If predicted classes were passed, pass "
        "the scores they were taken from: `logits=classifier(features)`.",
    ),
    "logits of another batch": (
        lambda impl: coins(impl, logits=torch.zeros(5, 2)),
        ValueError,
        "`logits` has shape (5, 2); it must be (6, classes), one row for each label. If the classifier saw another "
        "view or batch, type `logits=classifier(features)` with the query's features.",
    ),
    "logits of a map": (
        lambda impl: coins(impl, logits=torch.zeros(6, 2, 3, 3)),
        ValueError,
        "`logits` has shape (6, 2, 3, 3); it must be (6, classes), one row for each label. If the classifier saw "
        "another view or batch, type `logits=classifier(features)` with the query's features.",
    ),
    "logits of no classes": (
        lambda impl: coins(impl, logits=torch.zeros(6, 0)),
        ValueError,
        "`logits` has shape (6, 0); it must be (6, classes), one row for each label. If the classifier saw another "
        "view or batch, type `logits=classifier(features)` with the query's features.",
    ),
    "logits on another device": (
        lambda impl: coins(impl, logits=SCORES.to("meta")),
        ValueError,
        "`logits` is on meta but `coarse_labels` is on cpu; both must be on one device. One of them was not moved: "
        "type `logits.to(coarse_labels.device)`.",
    ),
    "logits of too few classes": (
        lambda impl: functional.coins(QUERY, KEY, LABELS + 1, None, None, logits=SCORES, impl=impl),
        ValueError,
        "`coarse_labels` holds the label 2 but `logits` of shape (6, 2) score the labels 0 to 1 only. If the labels do "
        "not start at 0, renumber them; else widen the classifier: `nn.Linear(features, 3)`.",
    ),
}


def error_of(call: Callable[[str], object], impl: str = "auto") -> Exception:
    with pytest.raises((TypeError, ValueError)) as error:
        call(impl)
    return error.value


def everything() -> list[Tensor]:
    """All that a wrong call could have changed, as it is now."""
    tensors = [QUERY, KEY, MEMORY, LABELS, MEMORY_LABELS, IDS, SCORES, *QUEUE.buffers()]
    return [tensor.detach().clone() for tensor in tensors]


@pytest.mark.parametrize("impl", ["auto", "dense", "streamed"])
@pytest.mark.parametrize(("call", "kind", "sentence"), CASES.values(), ids=CASES)
def test_the_sentence_whatever_the_implementation_and_nothing_has_changed(
    call: Callable[[str], object], kind: type[Exception], sentence: str, impl: str
) -> None:
    before = everything()
    error = error_of(call, impl)
    assert type(error) is kind
    assert str(error) == sentence
    assert all(torch.equal(now, then) for now, then in zip(everything(), before, strict=True))
    assert all(tensor.grad is None for tensor in (QUERY, KEY, MEMORY, SCORES))


@pytest.mark.parametrize("given", ["a queue", "no queue", "another object", "sample ids"])
def test_the_call_beside_the_wrong_ones_is_right(given: str) -> None:
    queue = {"no queue": None, "another object": memory()}.get(given, QUEUE)
    MaskConLoss()(QUERY, KEY, LABELS, queue, sample_ids=IDS if given == "sample ids" else None)


@pytest.mark.parametrize("state", [dict(QUEUE.state_dict()), {"keys": MEMORY, "labels": MEMORY_LABELS}])
def test_tensors_made_an_object_as_advised_are_a_memory(state: dict[str, Tensor]) -> None:
    MaskConLoss()(QUERY, KEY, LABELS, SimpleNamespace(**state))


def test_a_batch_without_rows_may_be_summed_as_advised() -> None:
    assert MaskConLoss(reduction="sum")(QUERY[:0], KEY[:0], LABELS[:0], QUEUE) == 0


def test_a_widened_classifier_scores_the_label() -> None:
    functional.coins(QUERY, KEY, LABELS + 1, None, None, logits=nn.Linear(D, 3)(QUERY))
