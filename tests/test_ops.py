"""The operators as PyTorch meets them: opcheck, compilers, autocast, memory, the host, enqueue before backward."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from instruments import LargestTensor
from strategies import IMPLEMENTATIONS, Problem, problem
from torch._subclasses.fake_tensor import FakeTensorMode

from maskcon_loss import CoInsLoss, MaskConLoss, MemoryQueue, _batch, ops
from maskcon_loss.kernels import streamed

each_impl = pytest.mark.parametrize("impl", IMPLEMENTATIONS)


def batch_of(p: Problem) -> _batch.Batch:
    arguments = (p.query, p.key, p.labels, p.memory, p.memory_labels, p.ids, p.memory_ids)
    return _batch.arrange(*arguments, normalize=False)


@pytest.mark.parametrize("with_gradient", [True, False])
@pytest.mark.parametrize("memory_rows", [None, 33])
def test_opcheck_finds_nothing(memory_rows: int | None, with_gradient: bool) -> None:
    p = problem(5, memory_rows, 7, with_ids=True, empty=0.2)
    batch = batch_of(p)
    settings = (0.8, 0.1, 0.05)
    torch.library.opcheck(torch.ops.maskcon_loss.streamed, (*batch, *settings, with_gradient))
    statistics = torch.ops.maskcon_loss.streamed(*batch, *settings, True)[3]
    upstream = torch.ones(5, dtype=torch.float64)
    arguments = (*batch, upstream, statistics, *settings)
    torch.library.opcheck(torch.ops.maskcon_loss.streamed_memory_gradient, arguments)


@each_impl
@pytest.mark.parametrize("with_queue", [True, False])
def test_compiles_to_one_graph_and_gives_the_same_numbers(impl: str, with_queue: bool) -> None:
    torch.manual_seed(0)
    criterion = MaskConLoss(0.8, impl=impl)
    queue, twin = MemoryQueue(50, 6), MemoryQueue(50, 6)

    def step(query: torch.Tensor, key: torch.Tensor, labels: torch.Tensor, memory: MemoryQueue) -> torch.Tensor:
        loss = criterion(query, key, labels, memory if with_queue else None, sample_ids=labels)
        memory.enqueue(key, labels, labels)
        return loss

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for rows in (8, 20, 33):
        query, key = torch.randn(rows, 6, requires_grad=True), torch.randn(rows, 6)
        labels = torch.randint(3, (rows,))
        expected, found = step(query, key, labels, queue), compiled(query, key, labels, twin)
        torch.testing.assert_close(found, expected)
        wanted, gradient = (torch.autograd.grad(loss, query)[0] for loss in (expected, found))
        torch.testing.assert_close(gradient, wanted)
        for mine, theirs in zip(twin.buffers(), queue.buffers(), strict=True):
            torch.testing.assert_close(mine, theirs)


@each_impl
def test_autocast_changes_neither_result_nor_type(impl: str) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(16, 32, requires_grad=True), torch.randn(16, 32)
    labels, queue, criterion = torch.arange(16) % 3, MemoryQueue(64, 32), MaskConLoss(0.8, impl=impl)
    queue.enqueue(torch.randn(40, 32), torch.arange(40) % 3)
    coins, logits = CoInsLoss(impl=impl), torch.randn(16, 3)
    expected, mixed = criterion(query, key, labels, queue), coins(query, key, labels, queue, logits=logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, found_mixed = criterion(query, key, labels, queue), coins(query, key, labels, queue, logits=logits)
        twin = MemoryQueue(64, 32)
        twin.enqueue(torch.randn(40, 32), torch.arange(40) % 3)
        batch_loss = criterion(query, query, labels)  # its memory needs a gradient: products in the backward pass
        in_region = torch.autograd.grad(batch_loss, query)[0]
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert torch.equal(found_mixed, mixed)
    torch.testing.assert_close(twin.keys[:40].norm(dim=1), torch.ones(40), rtol=0, atol=1e-6)
    outside = torch.autograd.grad(criterion(query, query, labels), query)[0]
    if impl == "streamed":
        assert torch.equal(in_region, outside)


def test_streamed_never_makes_a_tensor_of_batch_times_memory() -> None:
    p = problem(300, 20_000, 8, with_ids=True)
    batch = batch_of(p.to(torch.float32))
    tile = 300 * streamed.chunk_rows(300, torch.device("cpu"))
    assert tile < 300 * 20_000 / 5
    with LargestTensor() as seen:
        *_, statistics = streamed.contrast(batch, 0.8, 0.1, 0.05, True)
        streamed.memory_gradient(batch, statistics[:, 0], statistics, 0.8, 0.1, 0.05)
    assert seen.numel <= max(tile, batch.memory.numel())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux")
@pytest.mark.parametrize("classes", [1, 20])
def test_streamed_takes_far_less_memory_than_a_matrix_of_batch_times_memory(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "docs/benchmarks"))
    from meter import extra_bytes

    rows, memory_rows = 1024, 2**16
    queue, labels = MemoryQueue(memory_rows, 128), torch.arange(rows) % classes
    queue.enqueue(torch.randn(memory_rows, 128), torch.arange(memory_rows) % classes)
    query, key = torch.randn(rows, 128, requires_grad=True), torch.randn(rows, 128)
    assert extra_bytes(lambda: MaskConLoss()(query, key, labels, queue).backward()) < rows * memory_rows * 4 / 4


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_loss_and_enqueue_never_wait_for_the_device(device: str) -> None:
    """Fake and meta tensors have no values, so any look at one raises; so does an operand left on the other device."""
    with FakeTensorMode() if device == "cpu" else nullcontext():
        queue = MemoryQueue(100, 16, device=device)
        for rows in (32, 150):
            query, key = (torch.randn(rows, 16, device=device) for _ in range(2))
            labels = torch.zeros(rows, dtype=torch.long, device=device)
            for impl in IMPLEMENTATIONS:
                for memory in (queue, None):
                    loss = MaskConLoss(0.8, impl=impl)(query, key, labels, memory, sample_ids=labels)
                    assert loss.device.type == device
            batch = _batch.arrange(query, key, labels, queue.keys, queue.labels, labels, queue.ids, normalize=True)
            *_, statistics = streamed.contrast(batch, 0.8, 0.1, 0.05, True)
            streamed.memory_gradient(batch, statistics[:, 0], statistics, 0.8, 0.1, 0.05)
            queue.enqueue(key, labels, labels)


@each_impl
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_enqueueing_before_backward_changes_no_gradient(impl: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    criterion, labels = MaskConLoss(0.7, impl=impl), torch.arange(12) % 2
    queue = MemoryQueue(12, 5, dtype=dtype)
    queue.enqueue(torch.randn(12, 5), labels)
    query, key = torch.randn(12, 5, requires_grad=True), torch.randn(12, 5, requires_grad=True)
    expected = torch.autograd.grad(criterion(query, key, labels, queue, sample_ids=labels), (query, key))
    loss = criterion(query, key, labels, queue, sample_ids=labels)
    queue.enqueue(key, labels, labels)  # overwrites every row
    for found, wanted in zip(torch.autograd.grad(loss, (query, key)), expected, strict=True):
        assert torch.equal(found, wanted)


@each_impl
def test_backward_twice_gives_the_same_gradient(impl: str) -> None:
    p = problem(5, 20, 6).tracked()
    loss = p.loss(impl).sum()
    first = torch.autograd.grad(loss, p.leaves(), retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(loss, p.leaves()), strict=True):
        assert torch.equal(a, b)


def test_a_second_derivative_is_refused_in_a_sentence_and_never_wrong() -> None:
    """The normalisation inside is differentiable twice, so without a word a part of the curvature would be lost."""
    p = problem(5, 20, 6).tracked()
    with pytest.raises(RuntimeError) as error:
        torch.autograd.grad(p.loss("streamed", normalize=True).sum(), p.query, create_graph=True)
    assert str(error.value) == (
        "A second derivative was asked for (`create_graph=True`), but this implementation makes the first in the "
        "forward pass and has no other. Type `impl='dense'`, which is differentiable any number of times."
    )
    assert torch.autograd.gradgradcheck(
        lambda query: replace(p, query=query).loss("dense", normalize=True), p.query.detach().requires_grad_()
    )


@each_impl
def test_the_result_is_the_same_bit_for_bit_each_time(impl: str) -> None:
    p = problem(33, 500, 17, with_ids=True).to(torch.float32)
    assert torch.equal(p.loss(impl), p.loss(impl))


@each_impl
@pytest.mark.parametrize("leaf", ["query", "key", "memory"])
def test_each_gradient_alone_equals_its_part_of_all(impl: str, leaf: str) -> None:
    p = problem(5, 20, 6, with_ids=True, empty=0.1)
    tracked = p.tracked()
    wanted = torch.autograd.grad(tracked.loss(impl).sum(), getattr(tracked, leaf))[0]
    alone = replace(p, **{leaf: getattr(p, leaf).clone().requires_grad_()})
    torch.testing.assert_close(torch.autograd.grad(alone.loss(impl).sum(), getattr(alone, leaf))[0], wanted)


def test_without_gradients_the_loss_is_the_same_and_records_nothing() -> None:
    p = problem(5, 20, 6).tracked()
    with torch.no_grad():
        silent = p.loss("streamed")
    assert not silent.requires_grad
    torch.testing.assert_close(silent, p.loss("streamed"))


def test_auto_is_streamed_without_cuda_and_a_name_is_kept() -> None:
    batch, names = batch_of(problem(5, 20, 6)), ("auto", "dense", "streamed", "triton")
    assert [ops.choose(impl, batch) for impl in names] == ["streamed", *names[1:]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each_impl
def test_cuda_gives_the_numbers_of_the_cpu(impl: str) -> None:
    p = problem(20, 700, 33, with_ids=True, empty=0.1, unlabelled=0.1)
    torch.testing.assert_close(p.on("cuda").loss(impl).cpu(), p.loss(impl))
