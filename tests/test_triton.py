"""The Triton kernels against the equations: on a GPU where there is one, else in Triton's interpreter, in float32."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from budgets import error, holds_the_error_budget
from hypothesis import given, settings
from instruments import import_triton
from oracle import published_steps
from strategies import Problem, problem, problems

from maskcon_loss import EMPTY, MaskConLoss, MemoryQueue, _batch, functional

import_triton()
from maskcon_loss.kernels import cuda  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
WHOLE, SLICED = cuda.Tile(16, 16, 512, 4, 1), cuda.Tile(32, 16, 16, 4, 1)


@pytest.fixture(autouse=True, params=["whole", "sliced and sorted"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways through the kernels, with tiles so small that there are several, and keys in several parts."""
    tile = WHOLE if request.param == "whole" else SLICED
    monkeypatch.setattr(cuda, "TILES", {kind: dict.fromkeys(row, tile) for kind, row in cuda.TILES.items()})
    monkeypatch.setattr(cuda, "SORT_FROM", 10**9 if request.param == "whole" else 1)
    monkeypatch.setattr(cuda, "PARTS_AT_ONCE", 2)
    monkeypatch.setattr(cuda, "_processors", lambda device: 7)
    return request.param


@settings(max_examples=25)
@given(p=problems)
def test_value_and_gradients_equal_the_equations(p: Problem) -> None:
    holds_the_error_budget(replace(p, temperature=max(p.temperature, 0.01)).on(DEVICE), torch.float32, "triton")


@pytest.mark.parametrize("memory_rows", [None, 150])
@pytest.mark.parametrize("width", [16, 33, 100])
def test_many_tiles_and_parts_equal_the_equations(width: int, memory_rows: int | None) -> None:
    p = problem(50, memory_rows, width, classes=5, with_ids=True, empty=0.1, unlabelled=0.1, weight=0.7)
    holds_the_error_budget(p.on(DEVICE), torch.float32, "triton")


@pytest.mark.parametrize("width", [64, 128, 200, 512])
def test_the_real_tiles_equal_the_equations(width: int, monkeypatch: pytest.MonkeyPatch, route: str) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(cuda, "SORT_FROM", 10**9 if route == "whole" else 1)
    p = problem(70, 300, width, classes=5, with_ids=True, empty=0.1, weight=0.7)
    holds_the_error_budget(p.on(DEVICE), torch.float32, "triton")


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [64, 128, 200, 512])
def test_lower_precision_costs_no_more_than_in_plain_pytorch(
    width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    p = problem(130, 2000, width, classes=5, weight=0.7).on(DEVICE).to(dtype).tracked()
    exact = p.to(torch.float64).tracked()
    truth, ours = exact.loss("dense", "mean"), p.loss("triton", "mean")
    names = {"weight": p.weight, "temperature": p.temperature, "target_temperature": p.target_temperature}
    plain = published_steps(p.query, p.key, p.labels, p.memory, p.memory_labels, **names)
    true, mine, theirs = (torch.autograd.grad(x, y.query)[0] for x, y in ((truth, exact), (ours, p), (plain, p)))
    assert error(ours, truth) <= error(plain, truth) + 1e-6
    assert error(mine, true) <= error(theirs, true) + 1e-6


def test_every_run_gives_the_same_bits() -> None:
    p = problem(40, 200, 24, classes=4).on(DEVICE).to(torch.float32).tracked()
    first, second = p.loss("triton"), p.loss("triton")
    assert torch.equal(first, second)
    gradients = [torch.autograd.grad(loss.sum(), p.leaves()) for loss in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("with_gradient", [True, False])
@pytest.mark.parametrize("memory_rows", [None, 33])
def test_opcheck_finds_nothing(memory_rows: int | None, with_gradient: bool) -> None:
    p = problem(5, memory_rows, 7, with_ids=True, empty=0.2).on(DEVICE).to(torch.float32)
    arguments = (p.query, p.key, p.labels, p.memory, p.memory_labels, p.ids, p.memory_ids)
    batch = _batch.arrange(*arguments, normalize=False)
    if memory_rows is None:  # an operator's arguments may not be one tensor
        batch = batch._replace(memory=batch.memory.clone(), memory_labels=batch.memory_labels.clone())
    torch.library.opcheck(torch.ops.maskcon_loss.triton, (*batch, 0.8, 0.1, 0.05, with_gradient))


def test_compiles_to_one_graph_and_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    criterion, queue = MaskConLoss(0.8, impl="triton"), MemoryQueue(50, 6, device=DEVICE)
    queue.enqueue(torch.randn(40, 6, device=DEVICE), torch.arange(40, device=DEVICE) % 3)
    torch.compiler.reset()
    compiled = torch.compile(criterion, fullgraph=True, dynamic=True)
    for rows in (8, 20):
        query, key = torch.randn(rows, 6, device=DEVICE, requires_grad=True), torch.randn(rows, 6, device=DEVICE)
        labels = torch.randint(3, (rows,), device=DEVICE)
        expected, found = criterion(query, key, labels, queue), compiled(query, key, labels, queue)
        torch.testing.assert_close(found, expected)
        wanted, gradient = (torch.autograd.grad(loss, query)[0] for loss in (expected, found))
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("memory_labels", [[0, 1, 0], [0, EMPTY, EMPTY], [EMPTY] * 3, [7] * 3, [-1] * 3, []])
def test_nothing_finite_becomes_nan_and_empty_rows_may_hold_anything(memory_labels: list[int]) -> None:
    for query in (torch.ones(4, 8), torch.zeros(4, 8), torch.full((4, 8), 6e4)):
        memory = F.normalize(torch.ones(len(memory_labels), 8), dim=1)
        memory[[label == EMPTY for label in memory_labels]] = math.nan
        for temperature, target_temperature in ((1e-3, 1e-3), (0.1, 0.05), (1e3, math.inf), (1e-12, 1e-12)):
            rows = query.to(DEVICE).requires_grad_()
            loss = functional.maskcon(
                rows, -query.to(DEVICE), torch.tensor([0, 1, -1, 2], device=DEVICE), memory.to(DEVICE),
                torch.tensor(memory_labels, dtype=torch.long, device=DEVICE), temperature=temperature,
                target_temperature=target_temperature, weight=0.8, impl="triton",
            )  # fmt: skip
            loss.backward()
            assert loss.isfinite()
            assert not rows.grad.isnan().any()


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning", "ignore:invalid value:RuntimeWarning")  # NumPy's
def test_nan_and_infinity_are_never_hidden() -> None:
    p = problem(4, 20, 5, weight=0.8).on(DEVICE).to(torch.float32)
    for bad in (math.nan, math.inf, -math.inf):
        query, key, memory = p.query.clone(), p.key.clone(), p.memory.clone()
        query[1, 2] = key[2, 0] = bad
        rows = replace(p, query=query, key=key).loss("triton", normalize=True)
        assert rows.isnan().tolist() == [False, True, True, False]
        memory[3] = math.nan
        assert replace(p, memory=memory).loss("triton").isnan().all()


@pytest.mark.parametrize("temperature", [1e-1, 1e-4, 1e-8, 1e-12])
def test_the_own_key_alone_costs_nothing_at_any_temperature(temperature: float) -> None:
    query = F.normalize(torch.randn(20, 16, generator=torch.Generator().manual_seed(0)), dim=1).to(DEVICE)
    labels, empty = torch.zeros(20, device=DEVICE).long(), torch.full((10,), EMPTY, device=DEVICE)
    settings = {"temperature": temperature, "reduction": "none", "impl": "triton"}
    assert not functional.selfcon(query, query, labels, query[:10], empty, **settings).any()


def test_a_small_loss_keeps_its_digits() -> None:
    eye, labels = torch.eye(3, device=DEVICE), torch.arange(3, device=DEVICE)
    found = functional.selfcon(eye, eye, labels, None, None, temperature=0.05, impl="triton")
    assert float(found) == pytest.approx(math.log1p(2 * math.exp(-20.0)), rel=1e-5)


def test_any_strides_do() -> None:
    p = problem(20, 30, 10).on(DEVICE).to(torch.float32)
    expected = p.loss("triton")
    apart = {name: F.pad(getattr(p, name), (3, 2))[:, 3:-2] for name in ("query", "key", "memory")}
    turned = {name: getattr(p, name).mT.contiguous().mT for name in ("query", "key", "memory")}
    for strided in (apart, turned):
        assert torch.equal(replace(p, **strided).loss("triton"), expected)


@needs_gpu
def test_a_cuda_graph_replays_the_loss_and_its_gradient() -> None:
    p = problem(256, 5000, 64, classes=5).on(DEVICE).to(torch.float32).tracked()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            expected = torch.autograd.grad(p.loss("triton").sum(), p.query)[0]
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = torch.autograd.grad(p.loss("triton").sum(), p.query)[0]
    found.zero_()
    graph.replay()
    assert torch.equal(found, expected)


@pytest.mark.skipif(DEVICE == "cuda", reason="on a GPU the kernels run")
def test_without_a_gpu_it_is_refused_in_a_sentence() -> None:
    """In a process of its own, where Triton does not interpret."""
    code = (
        "import torch, maskcon_loss\n"
        "try: maskcon_loss.MaskConLoss(impl='triton')(torch.eye(2), torch.eye(2), torch.arange(2))\n"
        "except ValueError as error: print(error)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == (
        '`impl="triton"` runs on CUDA, but the batch is on cpu. If the model is to run there, type `model.cuda()`, or '
        '`impl="streamed"`, which runs on any device.'
    )
