"""What is said about wrong settings, batches and checkpoints of a queue; and that the queue is then as it was."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from maskcon_loss import MaskConLoss, MemoryQueue

B, D, K = 6, 4, 8
G = torch.Generator().manual_seed(0)
KEYS, OTHER_KEYS = torch.randn(B, D, generator=G), torch.randn(B, D, generator=G)
LABELS, IDS = torch.arange(B) % 2, torch.arange(B)


def partly_filled(size: int = K, dim: int = D) -> MemoryQueue:
    queue = MemoryQueue(size, dim)
    queue.enqueue(torch.randn(5, dim, generator=torch.Generator().manual_seed(1)), LABELS[:5], IDS[:5])
    return queue


def saved(size: int = K, dim: int = D, prefix: str = "", **changed: object) -> dict[str, object]:
    """A checkpoint, with some entries changed."""
    state = {**partly_filled(size, dim).state_dict(), **changed}
    return {prefix + name: value for name, value in state.items()}


class Model(nn.Module):
    def __init__(self, queue: MemoryQueue) -> None:
        super().__init__()
        self.queue = queue


MADE: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "dim as text": (
        lambda: MemoryQueue(K, "128"),
        TypeError,
        "`dim` is '128', of type str; it is the number of features of a key and must be a whole number. If it was read "
        "or computed, type `dim=int(value)`.",
    ),
    "normalize": (
        lambda: MemoryQueue(K, D, normalize=torch.tensor(True)),
        TypeError,
        "`normalize` is tensor(True), of type Tensor; it must be True or False. The default is `normalize=True`; if it "
        "was computed, type `normalize=bool(value)`.",
    ),
    "gather_distributed": (
        lambda: MemoryQueue(K, D, gather_distributed="yes"),
        TypeError,
        "`gather_distributed` is 'yes', of type str; it must be True or False. If it was read from a file or a command "
        "line, type `gather_distributed=value.lower() == 'true'`.",
    ),
    "whole keys": (
        lambda: MemoryQueue(K, D, dtype=torch.int64),
        TypeError,
        "`dtype` is torch.int64; keys are stored as torch.float16, torch.bfloat16, torch.float32 or torch.float64. The "
        "default is `dtype=torch.float32`.",
    ),
    "dtype as text": (
        lambda: MemoryQueue(K, D, dtype="float32"),
        TypeError,
        "`dtype` is 'float32'; keys are stored as torch.float16, torch.bfloat16, torch.float32 or torch.float64. The "
        "default is `dtype=torch.float32`.",
    ),
}
ENQUEUED: dict[str, tuple[Callable[[MemoryQueue], object], type[Exception], str]] = {
    "keys of another width": (
        lambda queue: queue.enqueue(KEYS.repeat(1, 2), LABELS),
        ValueError,
        "`keys` has 8 features but the queue was built for 4; the widths must be equal. If the projector changed, "
        "build a new queue: `MemoryQueue(8, 8)`.",
    ),
    "keys on another device": (
        lambda queue: queue.enqueue(KEYS.to("meta"), LABELS.to("meta")),
        ValueError,
        "`keys` is on meta but the queue is on cpu; both must be on one device. A queue is a module and moves like "
        "one: `queue.to('meta')`.",
    ),
    "a single key": (
        lambda queue: queue.enqueue(KEYS[0], LABELS[:1]),
        ValueError,
        "`keys` has shape (4,); it must be (rows, features). If it is a single sample, type `keys.unsqueeze(0)`.",
    ),
    "keys as a list": (
        lambda queue: queue.enqueue(KEYS.tolist(), LABELS),
        TypeError,
        "`keys` is of type list; it must be a torch.Tensor. Type `torch.as_tensor(keys)`.",
    ),
    "labels first": (
        lambda queue: queue.enqueue(LABELS, KEYS),
        TypeError,
        "`keys` has dtype torch.int64; similarities need float16, bfloat16, float32 or float64. If labels came in the "
        "place of features, exchange the two.",
    ),
    "query, key and labels": (
        lambda queue: queue.enqueue(OTHER_KEYS, KEYS, LABELS),
        TypeError,
        "`coarse_labels` has dtype torch.float32; whole numbers are needed: int64, int32, int16, int8 or uint8. If its "
        "rows are scores or one-hot, type `coarse_labels.float().argmax(1)`.",
    ),
    "a label short": (
        lambda queue: queue.enqueue(KEYS, LABELS[1:]),
        ValueError,
        "`coarse_labels` has 5 entries but `keys` has 6 rows; each row needs its own, in the same order. Pass those of "
        "the same batch, and where one is cut, cut both: `keys[:n]` and `coarse_labels[:n]`.",
    ),
    "labels on another device": (
        lambda queue: queue.enqueue(KEYS, LABELS.to("meta")),
        ValueError,
        "`coarse_labels` is on meta but `keys` is on cpu; both must be on one device. One of them was not moved: type "
        "`coarse_labels.to(keys.device)`.",
    ),
    "ids as floats": (
        lambda queue: queue.enqueue(KEYS, LABELS, IDS.float()),
        TypeError,
        "`sample_ids` has dtype torch.float32; whole numbers are needed: int64, int32, int16, int8 or uint8. If they "
        "are whole already, type `sample_ids.long()`.",
    ),
    "ids as a column": (
        lambda queue: queue.enqueue(KEYS, LABELS, IDS.unsqueeze(1)),
        ValueError,
        "`sample_ids` has shape (6, 1); it must be (6,), one number for each row of `keys`. It holds that many: type "
        "`sample_ids.reshape(6)`.",
    ),
}
RESTORED: dict[str, tuple[Callable[[MemoryQueue], object], type[Exception], str]] = {
    "another size": (
        lambda queue: queue.load_state_dict(saved(size=16)),
        ValueError,
        '`state_dict["keys"]` has shape (16, 4) but this queue\'s has (8, 4); they must be equal. Either build the '
        'queue as it was saved, `MemoryQueue(16, 4)`, or keep this queue as it is: `del state_dict["keys"]` and '
        "`strict=False`.",
    ),
    "another dim": (
        lambda queue: queue.load_state_dict(saved(dim=3)),
        ValueError,
        '`state_dict["keys"]` has shape (8, 3) but this queue\'s has (8, 4); they must be equal. Either build the '
        'queue as it was saved, `MemoryQueue(8, 3)`, or keep this queue as it is: `del state_dict["keys"]` and '
        "`strict=False`.",
    ),
    "another size, in a model": (
        lambda queue: Model(queue).load_state_dict(saved(size=16, prefix="queue.")),
        ValueError,
        '`state_dict["queue.keys"]` has shape (16, 4) but this queue\'s has (8, 4); they must be equal. Either build '
        'the queue as it was saved, `MemoryQueue(16, 4)`, or keep this queue as it is: `del state_dict["queue.keys"]` '
        "and `strict=False`.",
    ),
    "another size, not strictly": (
        lambda queue: Model(queue).load_state_dict(saved(size=16, prefix="queue."), strict=False),
        ValueError,
        '`state_dict["queue.keys"]` has shape (16, 4) but this queue\'s has (8, 4); they must be equal. Either build '
        'the queue as it was saved, `MemoryQueue(16, 4)`, or keep this queue as it is: `del state_dict["queue.keys"]` '
        "and `strict=False`.",
    ),
    "keys of one dimension": (
        lambda queue: queue.load_state_dict(saved(keys=torch.zeros(32))),
        ValueError,
        '`state_dict["keys"]` has shape (32,) but this queue\'s has (8, 4); they must be equal. Either load a '
        'checkpoint that a `MemoryQueue` wrote, or keep this queue as it is: `del state_dict["keys"]` and '
        "`strict=False`.",
    ),
    "labels cut": (
        lambda queue: queue.load_state_dict(saved(labels=LABELS)),
        ValueError,
        '`state_dict["labels"]` has shape (6,) but this queue\'s has (8,); they must be equal. Either load a '
        'checkpoint that a `MemoryQueue` wrote, or keep this queue as it is: `del state_dict["labels"]` and '
        "`strict=False`.",
    ),
    "position as a list of one": (
        lambda queue: queue.load_state_dict(saved(position=torch.zeros(1, dtype=torch.int64))),
        ValueError,
        '`state_dict["position"]` has shape (1,) but this queue\'s has (); they must be equal. Either load a '
        'checkpoint that a `MemoryQueue` wrote, or keep this queue as it is: `del state_dict["position"]` and '
        "`strict=False`.",
    ),
    "position as a number": (
        lambda queue: queue.load_state_dict(saved(position=3)),
        TypeError,
        '`state_dict["position"]` is of type int; it must be a torch.Tensor. Type '
        '`torch.as_tensor(state_dict["position"])`.',
    ),
    "keys as an array": (
        lambda queue: queue.load_state_dict(saved(keys=torch.zeros(K, D).numpy())),
        TypeError,
        '`state_dict["keys"]` is of type numpy.ndarray; it must be a torch.Tensor. Type '
        '`torch.as_tensor(state_dict["keys"])`.',
    ),
    "labels cast to half": (
        lambda queue: queue.load_state_dict(saved(labels=torch.zeros(K, dtype=torch.float16))),
        TypeError,
        '`state_dict["labels"]` has dtype torch.float16 but this queue\'s has torch.int64; a cast does not keep the '
        'numbers. Save it without a cast, or keep this queue as it is: `del state_dict["labels"]` and `strict=False`.',
    ),
    "labels cast to int32, in a model": (
        lambda queue: Model(queue).load_state_dict(
            saved(prefix="queue.", labels=torch.zeros(K, dtype=torch.int32)), assign=True
        ),
        TypeError,
        '`state_dict["queue.labels"]` has dtype torch.int32 but this queue\'s has torch.int64; a cast does not keep '
        'the numbers. Save it without a cast, or keep this queue as it is: `del state_dict["queue.labels"]` and '
        "`strict=False`.",
    ),
    "whole keys": (
        lambda queue: queue.load_state_dict(saved(keys=torch.zeros(K, D, dtype=torch.int8))),
        TypeError,
        '`state_dict["keys"]` has dtype torch.int8 but this queue\'s has torch.float32; a cast does not keep the '
        'numbers. Save it without a cast, or keep this queue as it is: `del state_dict["keys"]` and `strict=False`.',
    ),
    "an entry without values": (
        lambda queue: queue.load_state_dict(saved(ids=torch.zeros(K, dtype=torch.int64, device="meta"))),
        ValueError,
        '`state_dict["ids"]` is on meta, where tensors have no values, but this queue is on cpu; values are needed. '
        "Read the checkpoint with `torch.load(path, map_location='cpu')`.",
    ),
}
CASES = {
    **{f"making: {name}": (lambda _, call=call: call(), *rest) for name, (call, *rest) in MADE.items()},
    **{f"enqueueing: {name}": case for name, case in ENQUEUED.items()},
    **{f"restoring: {name}": case for name, case in RESTORED.items()},
}


def error_of(call: Callable[[MemoryQueue], object], queue: MemoryQueue | None = None) -> Exception:
    with pytest.raises((TypeError, ValueError)) as error:
        call(queue or partly_filled())
    return error.value


def assert_equal(queue: MemoryQueue, buffers: dict[str, Tensor]) -> None:
    for name, buffer in queue.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
        assert buffer.dtype == buffers[name].dtype


@pytest.mark.parametrize(("call", "kind", "sentence"), CASES.values(), ids=CASES)
def test_the_sentence_and_the_queue_is_as_it_was(
    call: Callable[[MemoryQueue], object], kind: type[Exception], sentence: str
) -> None:
    queue, before = partly_filled(), dict(partly_filled().named_buffers())
    error = error_of(call, queue)
    assert type(error) is kind
    assert str(error) == sentence
    assert_equal(queue, before)
    queue.enqueue(KEYS, LABELS, IDS)
    undisturbed = partly_filled()
    undisturbed.enqueue(KEYS, LABELS, IDS)
    assert_equal(queue, dict(undisturbed.named_buffers()))


@pytest.mark.parametrize("missing", ["keys", "labels", "ids", "position"])
def test_a_checkpoint_without_one_buffer_restores_none(missing: str) -> None:
    queue, before = partly_filled(), dict(partly_filled().named_buffers())
    checkpoint = saved(size=16, prefix="queue.")
    del checkpoint[f"queue.{missing}"]
    with pytest.raises(RuntimeError) as error:
        Model(queue).load_state_dict(checkpoint)
    assert f'Missing key(s) in state_dict: "queue.{missing}".' in str(error.value)
    assert_equal(queue, before)
    assert Model(queue).load_state_dict(checkpoint, strict=False).missing_keys == [f"queue.{missing}"]
    assert_equal(queue, before)


def test_a_queue_built_as_advised_takes_the_checkpoint() -> None:
    with pytest.raises(ValueError, match=r"`MemoryQueue\(16, 4\)`"):
        MemoryQueue(K, D).load_state_dict(saved(size=16))
    queue = MemoryQueue(16, 4)
    queue.load_state_dict(saved(size=16))
    assert_equal(queue, dict(partly_filled(size=16).named_buffers()))


@pytest.mark.parametrize("wrong", [saved(size=16), saved(labels=LABELS), saved(labels=torch.zeros(K))])
def test_a_checkpoint_without_the_entry_leaves_the_queue_as_advised(wrong: dict[str, object]) -> None:
    queue = partly_filled()
    (entry,) = re.findall(r"`del state_dict\[\"(\w+)\"\]`", str(error_of(lambda queue: queue.load_state_dict(wrong))))
    queue.load_state_dict({name: value for name, value in wrong.items() if name != entry}, strict=False)
    assert_equal(queue, dict(partly_filled().named_buffers()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_checkpoint_of_keys_in_another_precision_is_taken(dtype: torch.dtype) -> None:
    queue = MemoryQueue(K, D)
    queue.load_state_dict(saved(keys=torch.ones(K, D, dtype=dtype)))
    assert torch.equal(queue.keys, torch.ones(K, D))


def test_a_queue_moved_as_advised_takes_the_keys() -> None:
    queue = MemoryQueue(K, D)
    queue.to("meta").enqueue(KEYS.to("meta"), LABELS.to("meta"))
    assert MaskConLoss(reduction="none")(KEYS.to("meta"), KEYS.to("meta"), LABELS.to("meta"), queue).shape == (B,)
