"""Unit length in float32, whatever the scale."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskcon_loss._precision import unit, without_autocast, working_dtype


@given(st.integers(1, 9), st.integers(0, 999), st.floats(-37, 37))
def test_unit_vectors_have_length_one_and_the_old_direction(width: int, seed: int, exponent: float) -> None:
    vectors = torch.randn(4, width, generator=torch.Generator().manual_seed(seed))
    found = unit(vectors * 10.0**exponent)
    exact = torch.nn.functional.normalize(vectors.double(), dim=1)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)  # also where squares would leave float32


def test_the_gradient_is_that_of_normalisation_and_finite_at_zero() -> None:
    vectors = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, vectors)
    zero = torch.zeros(2, 5, requires_grad=True)
    unit(zero).sum().backward()
    assert zero.grad.isfinite().all()
    assert not unit(torch.zeros(2, 5)).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(bad: float) -> None:
    vectors = torch.ones(2, 3)
    vectors[0, 1] = bad
    assert unit(vectors).isnan().any(1).tolist() == [True, False]


def test_float64_stays_and_everything_else_becomes_float32() -> None:
    half, double = torch.zeros(1, dtype=torch.float16), torch.zeros(1, dtype=torch.float64)
    assert working_dtype(half, half) == torch.float32
    assert working_dtype(half, double) == torch.float64


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_autocast_is_off_inside_on_devices_that_have_it(device: str) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), without_autocast(torch.device(device)):
        assert device == "meta" or (torch.eye(2) @ torch.eye(2)).dtype == torch.float32
