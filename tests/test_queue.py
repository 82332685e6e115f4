"""The queue against a plain list of rows: what is stored, where, and what survives a checkpoint."""

import copy
import io
import pickle
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskcon_loss import EMPTY, UNLABELLED, MaskConLoss, MemoryQueue

batches = st.lists(st.integers(0, 12), min_size=1, max_size=8)


def batch(rows: int, dim: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    keys = torch.randn(rows, dim, generator=g)
    return keys, torch.randint(-1, 4, (rows,), generator=g), torch.randint(-1, 1000, (rows,), generator=g)


def fill(queue: MemoryQueue, sizes: list[int], first_seed: int = 0) -> None:
    for seed, rows in enumerate(sizes, start=first_seed):
        queue.enqueue(*batch(rows, queue.dim, seed))


def state(queue: MemoryQueue) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in queue.named_buffers()}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@given(size=st.integers(1, 9), dim=st.integers(1, 4), sizes=batches)
def test_it_is_a_ring_of_the_last_rows_for_batches_of_any_size(size: int, dim: int, sizes: list[int]) -> None:
    queue = MemoryQueue(size, dim, normalize=False)
    fill(queue, sizes)
    keys, labels, ids = (
        torch.cat(column) for column in zip(*(batch(n, dim, i) for i, n in enumerate(sizes)), strict=True)
    )
    written = len(keys)
    assert len(queue) == min(written, size)
    assert queue.is_full == (written >= size)
    assert int(queue.position) == written % size
    for row in range(size):
        latest = [i for i in range(written) if i % size == row][
            -1:
        ]  # row i of the stream is stored in place i mod size
        if latest:
            assert torch.equal(queue.keys[row], keys[latest[0]])
            assert queue.labels[row] == labels[latest[0]]
            assert queue.ids[row] == ids[latest[0]]
        else:
            assert not queue.keys[row].any()
            assert queue.labels[row] == EMPTY
            assert queue.ids[row] == -1


@given(size=st.integers(1, 9), sizes=batches)
def test_how_the_stream_is_cut_into_batches_changes_nothing(size: int, sizes: list[int]) -> None:
    columns = [torch.cat(column) for column in zip(*(batch(n, 3, i) for i, n in enumerate(sizes)), strict=True)]
    at_once, in_parts = MemoryQueue(size, 3), MemoryQueue(size, 3)
    at_once.enqueue(*columns)
    for end, rows in zip(accumulate(sizes), sizes, strict=True):
        in_parts.enqueue(*(column[end - rows : end] for column in columns))
    assert_equal(state(at_once), state(in_parts))


@given(size=st.integers(1, 9), before=batches, after=batches)
def test_a_checkpoint_resumes_to_the_bit_also_in_the_middle_of_a_wrap(
    size: int, before: list[int], after: list[int]
) -> None:
    unbroken = MemoryQueue(size, 3)
    fill(unbroken, before)
    file = io.BytesIO()
    torch.save(unbroken.state_dict(), file)
    file.seek(0)
    resumed = MemoryQueue(size, 3)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for queue in (unbroken, resumed):
        fill(queue, after, first_seed=100)
    assert_equal(state(unbroken), state(resumed))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda queue: pickle.loads(pickle.dumps(queue))])
def test_a_copy_is_independent(copied) -> None:
    queue = MemoryQueue(5, 3)
    fill(queue, [3])
    twin, before = copied(queue), state(queue)
    assert_equal(state(twin), before)
    fill(twin, [4])
    assert_equal(state(queue), before)


def test_everything_is_in_the_state_dict_and_nothing_is_a_parameter() -> None:
    queue = MemoryQueue(5, 3)
    assert set(queue.state_dict()) == {"keys", "labels", "ids", "position"}
    assert not list(queue.parameters())


def test_a_state_dict_that_lacks_a_buffer_is_reported_and_loads_nothing() -> None:
    model = nn.ModuleDict({"queue": MemoryQueue(4, 2)})
    fill(model["queue"], [3])
    before, saved = state(model["queue"]), MemoryQueue(4, 2).state_dict(prefix="queue.")
    del saved["queue.ids"]
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(saved)
    assert_equal(state(model["queue"]), before)
    assert model.load_state_dict(saved, strict=False).missing_keys == ["queue.ids"]
    assert_equal(state(model["queue"]), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_stored_keys_have_unit_length(dtype: torch.dtype, scale: float) -> None:
    queue = MemoryQueue(7, 33, dtype=dtype)
    queue.enqueue(torch.randn(5, 33, generator=torch.Generator().manual_seed(0)) * scale, torch.arange(5))
    assert queue.keys.dtype == dtype
    lengths = queue.keys[:5].double().norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=max(torch.finfo(dtype).eps, 1e-6))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keys_are_normalised_in_float32(dtype: torch.dtype) -> None:
    """In an autocast loop keys come in half precision; their length in the queue must not show it."""
    queue = MemoryQueue(7, 33)
    queue.enqueue(torch.randn(5, 33, generator=torch.Generator().manual_seed(0)).to(dtype), torch.arange(5))
    torch.testing.assert_close(queue.keys[:5].norm(dim=1), torch.ones(5), rtol=0, atol=1e-6)


def test_without_normalising_keys_are_stored_as_they_come() -> None:
    queue, keys = MemoryQueue(3, 2, normalize=False), torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    queue.enqueue(keys, torch.tensor([1, 2]))
    assert torch.equal(queue.keys[:2], keys)


def test_a_zero_key_is_stored_as_zero() -> None:
    queue = MemoryQueue(3, 2)
    queue.enqueue(torch.zeros(1, 2), torch.tensor([1]))
    assert torch.equal(queue.keys[0], torch.zeros(2))


def test_enqueue_writes_in_place_and_detached() -> None:
    queue = MemoryQueue(4, 2)
    places = {name: buffer.data_ptr() for name, buffer in queue.named_buffers()}
    queue.enqueue(torch.randn(3, 2, requires_grad=True), torch.arange(3))
    assert places == {name: buffer.data_ptr() for name, buffer in queue.named_buffers()}
    assert not queue.keys.requires_grad


@pytest.mark.parametrize("negative", [-1, -2, -100, EMPTY, torch.iinfo(torch.int64).min])
def test_every_negative_label_is_stored_as_unlabelled_and_none_as_empty(negative: int) -> None:
    queue = MemoryQueue(2, 2)
    queue.enqueue(torch.ones(1, 2), torch.tensor([negative]))
    assert queue.labels.tolist() == [UNLABELLED, EMPTY]
    assert len(queue) == 1


def test_reset_forgets_everything() -> None:
    queue = MemoryQueue(4, 2)
    fresh = state(queue)
    fill(queue, [3, 3])
    queue.reset()
    assert_equal(state(queue), fresh)


def test_an_empty_queue_is_true_though_its_length_is_zero() -> None:
    queue = MemoryQueue(4, 2)
    assert queue
    assert len(queue) == 0


def test_it_moves_and_casts_like_a_module() -> None:
    queue = MemoryQueue(4, 2)
    fill(queue, [3])
    queue.to(torch.bfloat16)
    assert queue.keys.dtype == torch.bfloat16
    assert queue.labels.dtype == queue.ids.dtype == queue.position.dtype == torch.int64
    queue.to("meta")
    assert {buffer.device.type for buffer in queue.buffers()} == {"meta"}


def test_its_size_cannot_be_changed_under_its_keys() -> None:
    queue = MemoryQueue(4, 2)
    with pytest.raises(AttributeError):
        queue.size = 100
    assert (queue.size, queue.dim) == (4, 2)


def test_repr_names_the_settings() -> None:
    expected = "MemoryQueue(8, 2, normalize=True, dtype=torch.float32, gather_distributed=True)"
    assert repr(MemoryQueue(8, 2)) == expected


def test_a_loss_never_changes_the_queue() -> None:
    queue = MemoryQueue(8, 3)
    fill(queue, [5])
    before = state(queue)
    query = torch.randn(4, 3, requires_grad=True)
    MaskConLoss()(query, torch.randn(4, 3), torch.arange(4), queue, sample_ids=torch.arange(4)).backward()
    assert_equal(state(queue), before)


def test_each_step_moves_the_queue_on() -> None:
    """A queue that never advances trains on noise for months, unnoticed."""
    queue = MemoryQueue(6, 2)
    seen = []
    for step in range(5):
        fill(queue, [2], first_seed=step)
        seen.append((int(queue.position), queue.keys.sum().item()))
    assert [position for position, _ in seen] == [2, 4, 0, 2, 4]
    assert len({total for _, total in seen}) == 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_low_precision_queue_costs_only_its_rounding(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rounded, exact = MemoryQueue(64, 16, dtype=dtype), MemoryQueue(64, 16, dtype=torch.float64)
    keys, labels = torch.randn(64, 16), torch.arange(64) % 3
    rounded.enqueue(keys, labels)
    exact.enqueue(keys, labels)
    query, key = torch.randn(8, 16), torch.randn(8, 16)
    ours, truth = (MaskConLoss()(query, key, labels[:8], queue) for queue in (rounded, exact))
    assert abs(float(ours) - float(truth)) <= 4 * torch.finfo(dtype).eps / 0.1 / 0.05
