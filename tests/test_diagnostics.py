"""The numbers to log: each against the targets themselves."""

import math

import pytest
import torch
from strategies import problem
from torch import Tensor, nn

from maskcon_loss import (
    UNLABELLED,
    CoarseMaskSoftTargets,
    CoInsLoss,
    GrafitLoss,
    MaskConLoss,
    MemoryQueue,
    SelfConLoss,
    SupConLoss,
    diagnose,
    diagnostics,
)


def filled(size: int, *, with_ids: bool = False, rows: int = 30) -> tuple[Tensor, Tensor, Tensor | None, MemoryQueue]:
    p = problem(6, rows, 5, with_ids=with_ids)
    queue = MemoryQueue(size, 5, dtype=torch.float64)
    queue.enqueue(p.memory, p.memory_labels, p.memory_ids)
    return p.key, p.labels, p.ids, queue


@pytest.mark.parametrize("with_queue", [True, False])
@pytest.mark.parametrize("cells", [1, 100, 1 << 22])
def test_they_are_means_over_the_targets_however_many_rows_are_met_at_a_time(
    with_queue: bool, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "CELLS_AT_ONCE", cells)
    key, labels, ids, queue = filled(40, with_ids=True)
    memory = queue if with_queue else None
    targets = CoarseMaskSoftTargets(0.7, target_temperature=0.2)(key, labels, memory, sample_ids=ids)
    found = diagnose(MaskConLoss(0.7, target_temperature=0.2), key, labels, memory, sample_ids=ids)
    candidates = (targets[:, 1:] > 0).sum(1)
    assert candidates.max() > 1
    assert found["candidates"] == pytest.approx(candidates.double().mean().item(), abs=1e-13)
    assert found["without_candidates"] == (candidates == 0).double().mean().item()
    assert found["own_mass"] == pytest.approx(targets[:, 0].mean().item(), abs=1e-13)
    entropy = [-sum(t * math.log(t) for t in row if t > 0) for row in targets.tolist()]
    assert found["effective_positives"] == pytest.approx(sum(map(math.exp, entropy)) / 6, rel=1e-13)


def test_equal_shares_count_every_candidate_and_selfcon_counts_one() -> None:
    key, labels, _, queue = filled(30)
    supcon = diagnose(SupConLoss(), key, labels, queue)
    assert supcon["effective_positives"] == pytest.approx(1 + supcon["candidates"], rel=1e-13)
    for criterion in (SelfConLoss(), CoInsLoss(0.5), MaskConLoss(0.0), GrafitLoss(0.0)):
        found = diagnose(criterion, key, labels, queue)
        assert (found["own_mass"], found["effective_positives"]) == (1.0, 1.0)
        assert found["candidates"] == supcon["candidates"]


def test_the_effective_positives_grow_with_the_target_temperature() -> None:
    key, labels, _, queue = filled(30)
    found = [
        diagnose(MaskConLoss(target_temperature=t), key, labels, queue)["effective_positives"]
        for t in (1e-6, 0.01, 0.1, 1.0, math.inf)
    ]
    assert found == sorted(found)
    assert found[0] == pytest.approx(2.0)  # the own key and the nearest


def test_an_unlabelled_row_has_no_candidate() -> None:
    key, labels, _, queue = filled(30)
    found = diagnose(MaskConLoss(), key, torch.full_like(labels, UNLABELLED), queue)
    assert (found["candidates"], found["without_candidates"], found["own_mass"]) == (0.0, 1.0, 1.0)


def test_fill_and_age_follow_the_ring() -> None:
    key, labels, _, _ = filled(30)
    queue = MemoryQueue(20, 5)
    seen = []
    for _ in range(5):
        found = diagnose(MaskConLoss(), key.float(), labels, queue)
        seen.append((found["queue_fill"], found["queue_age"]))
        queue.enqueue(key, labels)
    assert seen == [(0.0, 0.0), (0.3, 1.0), (0.6, 2.0), (0.9, 3.0), (1.0, 20 / 6)]
    in_batch = diagnose(MaskConLoss(), key, labels)
    assert (in_batch["queue_fill"], in_batch["queue_age"]) == (1.0, 0.0)


def test_nothing_changes_and_no_gradient_is_drawn() -> None:
    key, labels, _, queue = filled(40)
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    key.requires_grad_()
    first, second = (diagnose(MaskConLoss(), key, labels, queue) for _ in range(2))
    assert first == second
    assert key.grad is None
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


def test_half_precision_and_autocast_count_as_the_loss_does() -> None:
    key, labels, _, queue = filled(30)
    expected = diagnose(MaskConLoss(), key, labels, queue)
    with torch.autocast("cpu", torch.bfloat16):
        found = diagnose(MaskConLoss(), key.bfloat16(), labels, queue)
    assert found == pytest.approx(expected, rel=0.05)


def test_a_key_that_is_not_a_number_shows() -> None:
    key, labels, _, queue = filled(30)
    key[0, 0] = math.nan
    assert math.isnan(diagnose(MaskConLoss(), key, labels, queue)["own_mass"])


def test_the_settings_are_those_of_now() -> None:
    key, labels, _, queue = filled(30)
    criterion: nn.Module = MaskConLoss()
    criterion.weight = 0.25
    assert diagnose(criterion, key, labels, queue)["own_mass"] >= 0.75
    criterion.weight = 1.5
    with pytest.raises(ValueError, match=r"`weight` is 1\.5"):
        diagnose(criterion, key, labels, queue)
