"""What is said where the Triton kernels are asked for by name and cannot run."""

import importlib
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from instruments import error_of
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from maskcon_loss import MaskConLoss, _checks

implementation = importlib.import_module("maskcon_loss._checks.implementation")
OTHERWISE = 'or `impl="streamed"`, which runs on any device.'
LABELS = torch.arange(2)


def asked(
    query: Tensor, key: Tensor | None = None, memory_keys: Tensor | None = None, *, here: bool = True, interpreted="1"
) -> None:
    """Calls the loss as if Triton were here and interpreted, or not."""
    queue = None if memory_keys is None else SimpleNamespace(keys=memory_keys, labels=LABELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(implementation, "HAS_TRITON", here)
        patch.setenv("TRITON_INTERPRET", interpreted)
        MaskConLoss(impl="triton")(query, query if key is None else key, LABELS, queue)


def with_an_old_torch() -> None:
    with FakeTensorMode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(implementation, "HAS_TRITON", True)
        patch.setattr(implementation, "OLD_TORCH", True)
        query = torch.empty(2, 2, device="cuda")
        _checks.implementation("triton", query, query, None)


def on_an_old_gpu() -> None:
    with FakeTensorMode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(implementation, "OLD_TORCH", False)
        patch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=7))
        query = torch.empty(2, 2, device="cuda")
        _checks.implementation("triton", query, query, None)


CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "not installed": (
        lambda: asked(torch.eye(2), here=False),
        ValueError,
        '`impl="triton"` needs Triton, which is not installed; it comes with PyTorch for CUDA on Linux. Type `pip '
        f"install triton`, {OTHERWISE}",
    ),
    "on a CPU": (
        lambda: asked(torch.eye(2), interpreted="0"),
        ValueError,
        '`impl="triton"` runs on CUDA, but the batch is on cpu. If the model is to run there, type `model.cuda()`, '
        f"{OTHERWISE}",
    ),
    "query in float64": (
        lambda: asked(torch.eye(2).double(), torch.eye(2)),
        ValueError,
        '`impl="triton"` computes in float32, but `query` has dtype torch.float64. If float32 will do, type '
        f"`query.float()`, {OTHERWISE}",
    ),
    "key in float64": (
        lambda: asked(torch.eye(2), torch.eye(2).double()),
        ValueError,
        '`impl="triton"` computes in float32, but `key` has dtype torch.float64. If float32 will do, type '
        f"`key.float()`, {OTHERWISE}",
    ),
    "memory in float64": (
        lambda: asked(torch.eye(2), memory_keys=torch.eye(2).double()),
        ValueError,
        '`impl="triton"` computes in float32, but `memory_keys` has dtype torch.float64. If float32 will do, type '
        f"`memory_keys.float()`, {OTHERWISE}",
    ),
    "too wide": (
        lambda: asked(torch.ones(2, 513)),
        ValueError,
        '`impl="triton"` takes up to 512 features, but `query` has 513. If the projector can be narrower, type '
        f"`nn.Linear(width, 512)` at its end, {OTHERWISE}",
    ),
    "an old PyTorch": (
        with_an_old_torch,
        ValueError,
        f'`impl="triton"` needs PyTorch 2.7 or later, but this is {torch.__version__}, whose Triton fails to '
        f"compile the kernels. Type `pip install --upgrade torch`, {OTHERWISE}",
    ),
    "an old GPU": (
        on_an_old_gpu,
        ValueError,
        '`impl="triton"` needs compute capability 8.0 (Ampere) or later, but cuda:0 has 7.x. Choose a later GPU by '
        f"`CUDA_VISIBLE_DEVICES`, {OTHERWISE}",
    ),
}


@pytest.mark.parametrize(("call", "kind", "sentence"), CASES.values(), ids=CASES)
def test_the_sentence(call: Callable[[], object], kind: type[Exception], sentence: str) -> None:
    error = error_of(call)
    assert type(error) is kind
    assert str(error) == sentence


@pytest.mark.parametrize("impl", ["auto", "dense", "streamed"])
def test_no_other_implementation_is_refused(impl: str) -> None:
    for query in (torch.eye(2), torch.eye(2).double(), torch.ones(2, 513)):
        assert MaskConLoss(impl=impl)(query, query, LABELS).isfinite()


def test_what_the_kernels_take_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=8))
    monkeypatch.setattr(implementation, "HAS_TRITON", True)
    monkeypatch.setattr(implementation, "OLD_TORCH", False)
    with FakeTensorMode():
        query = torch.empty(2, 512, device="cuda", dtype=torch.bfloat16)
        assert _checks.triton_lacks(query, query, None) is None
