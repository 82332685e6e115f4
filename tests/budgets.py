"""How far a result may be from the truth, which is the dense form in float64."""

import torch
from strategies import Problem
from torch import Tensor


def gradients(losses: Tensor, p: Problem) -> list[Tensor]:
    """By query, key and memory, of the losses with a different weight each."""
    upstream = torch.linspace(0.5, 2.0, losses.shape[0], dtype=losses.dtype, device=losses.device)
    found = torch.autograd.grad(losses @ upstream, p.leaves(), allow_unused=True, materialize_grads=True)
    return list(found)


def budget(p: Problem, dtype: torch.dtype = torch.float64) -> float:
    """What rounding may cost: some units in the last place of the largest logit, and of the most sensitive weight."""
    eps = torch.finfo(dtype).eps
    return 64 * eps * (1 + 1 / p.temperature) * (1 + 1 / p.target_temperature)


def error(found: Tensor, truth: Tensor) -> float:
    return float((found.detach().double() - truth.detach()).abs().max()) if found.numel() else 0.0


def holds_the_error_budget(p: Problem, dtype: torch.dtype, impl: str = "streamed") -> None:
    """Inputs rounded to dtype; truth is the dense form in float64 on those. Another form may err 4 times as much
    as the dense form in float32, plus a floor; a gradient comes back rounded to dtype once."""
    p = p.to(dtype)
    exact, plain, ours = p.to(torch.float64).tracked(), p.to(torch.float32).tracked(), p.tracked()
    truth, reference, found = exact.loss("dense"), plain.loss("dense"), ours.loss(impl)
    assert found.dtype == torch.float32
    floor = 4 * torch.finfo(torch.float32).eps * (1 + 1 / p.temperature)
    assert error(found, truth) <= 4 * error(reference, truth) + floor
    true_gradients = gradients(truth, exact)
    for mine, theirs, true in zip(gradients(found, ours), gradients(reference, plain), true_gradients, strict=True):
        assert mine.dtype == dtype
        largest = float(true.abs().max()) if true.numel() else 0.0
        rounded_once = torch.finfo(dtype).eps * largest + torch.finfo(dtype).smallest_normal
        assert error(mine, true) <= 4 * error(theirs, true) + floor / p.temperature + rounded_once
