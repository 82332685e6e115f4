"""Theorems about the losses: each holds for every implementation.

Tolerances are error budgets. A float64 result may differ from the float64 oracle by rounding only: a few units in the
last place of the largest logit, 1 / T. What lower precision may cost is measured against plain PyTorch.
"""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from budgets import budget, error, gradients, holds_the_error_budget
from hypothesis import given
from hypothesis import strategies as st
from instruments import import_triton
from oracle import maskcon_rows
from strategies import IMPLEMENTATIONS, Problem, problem, problems, weights
from torch import Tensor

from maskcon_loss import EMPTY, UNLABELLED, functional
from maskcon_loss.kernels import cpu, streamed

each_impl = pytest.mark.parametrize("impl", IMPLEMENTATIONS)


@pytest.fixture(autouse=True, params=["chunks", "processor"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways of the streamed form, at sizes where small memories have several pieces and a partial last one."""
    monkeypatch.setattr(streamed, "chunk_rows", lambda rows, device: 7)
    monkeypatch.setattr(cpu, "LEAST_KEYS", 1 if request.param == "processor" else math.inf)
    monkeypatch.setattr(cpu, "KEYS_AT_ONCE", 9)
    monkeypatch.setattr(cpu, "PIECE", 5)
    monkeypatch.setattr(cpu, "MASKED", 100)
    return request.param


def oracle(p: Problem) -> Tensor:
    """The oracle's losses of a problem, (B,)."""
    in_batch = p.memory is None or p.memory_labels is None
    ids = None if p.ids is None else p.ids.tolist()
    return maskcon_rows(
        p.query, p.key, p.labels.tolist(),
        p.key if in_batch else p.memory, (p.labels if in_batch else p.memory_labels).tolist(),
        weight=p.weight, temperature=p.temperature, target_temperature=p.target_temperature,
        ids=ids, memory_ids=ids if in_batch else None if p.memory_ids is None else p.memory_ids.tolist(),
        own_rows=in_batch,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- against the oracle


@each_impl
@given(p=problems)
def test_value_and_gradients_equal_the_equations(impl: str, p: Problem) -> None:
    p = p.tracked()
    expected, found = oracle(p), p.loss(impl)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=budget(p))
    for ours, theirs in zip(gradients(found, p), gradients(expected, p), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2 * budget(p) / p.temperature * p.query.shape[0])


@each_impl
@given(p=problems, key_length=st.sampled_from([-20.0, -3.0, 5.0]), memory_length=st.sampled_from([0.1, 7.0]))
def test_vectors_of_any_length_equal_the_equations(
    impl: str, p: Problem, key_length: float, memory_length: float
) -> None:
    """Without normalisation similarities are far from [-1, 1]: also where all keys of the class point away."""
    memory = None if p.memory is None else p.memory * memory_length
    p = replace(p, key=p.key * key_length, memory=memory, temperature=max(p.temperature, 0.1))
    p = replace(p, target_temperature=max(p.target_temperature, 0.1))
    torch.testing.assert_close(p.loss(impl), oracle(p), rtol=0, atol=400 * 400 * budget(p))


@given(p=problems)
def test_the_targets_equal_the_equations(p: Problem) -> None:
    targets = functional.coarse_mask_soft_targets(
        p.key, p.labels, p.memory, p.memory_labels, weight=p.weight, target_temperature=p.target_temperature,
        normalize=False, sample_ids=p.ids, memory_ids=p.memory_ids,
    )  # fmt: skip
    torch.testing.assert_close(targets.sum(1), torch.ones_like(targets[:, 0]), rtol=0, atol=1e-14)
    memory = p.key if p.memory is None else p.memory
    logits = torch.cat([(p.query * p.key).sum(1, keepdim=True), p.query @ memory.T], 1) / p.temperature
    memory_labels = p.labels if p.memory_labels is None else p.memory_labels
    memory_ids = p.ids if p.memory is None else p.memory_ids
    unseen = (memory_labels == EMPTY).expand(p.query.shape[0], -1)
    if p.ids is not None:
        unseen = unseen | (p.ids[:, None] == memory_ids) & (p.ids[:, None] >= 0)
    if p.memory is None:
        unseen = unseen | torch.eye(p.query.shape[0], dtype=torch.bool)
    assert not targets[:, 1:][unseen].any()
    logits[:, 1:][unseen] = -1e30  # far below all others and finite, as cross_entropy multiplies 0 with it
    torch.testing.assert_close(F.cross_entropy(logits, targets, reduction="none"), oracle(p), rtol=0, atol=budget(p))


@each_impl
@pytest.mark.parametrize("memory_rows", [None, 17])
def test_gradcheck_by_query_key_and_memory(impl: str, memory_rows: int | None) -> None:
    """Also where the key requires a gradient: the targets count as constants, so T' must not move with the key."""
    p = problem(4, memory_rows, 5, with_ids=True, empty=0.2, weight=0.0, temperature=0.5).tracked()

    def losses(*leaves: Tensor) -> Tensor:
        memory = leaves[2] if memory_rows is not None else None
        return replace(p, query=leaves[0], key=leaves[1], memory=memory).loss(impl, normalize=True)

    assert torch.autograd.gradcheck(losses, p.leaves())
    shared = replace(p, weight=0.7, target_temperature=math.inf)  # equal shares do not depend on the key

    def shared_losses(*leaves: Tensor) -> Tensor:
        memory = leaves[2] if memory_rows is not None else None
        return replace(shared, query=leaves[0], key=leaves[1], memory=memory).loss(impl, normalize=True)

    assert torch.autograd.gradcheck(shared_losses, shared.leaves())
    soft = replace(p, weight=0.7)
    assert torch.autograd.gradcheck(lambda query: replace(soft, query=query).loss(impl, normalize=True), p.query)


@given(p=problems, reduction=st.sampled_from(["mean", "sum", "none"]))
def test_reductions_are_those_of_cross_entropy(p: Problem, reduction: str) -> None:
    rows = p.loss("dense")
    expected = {"mean": rows.mean(), "sum": rows.sum(), "none": rows}[reduction]
    torch.testing.assert_close(p.loss("dense", reduction), expected)
    torch.testing.assert_close(p.loss("streamed", reduction), expected, rtol=0, atol=budget(p) * len(rows))


# -------------------------------------------------------------------------------------------------------- special cases


def selfcon_rows(p: Problem) -> Tensor:
    return replace(p, weight=0.0).loss("dense")


@each_impl
@given(p=problems)
def test_without_weight_it_is_selfcon_whatever_the_labels_and_target_temperature(impl: str, p: Problem) -> None:
    seen = torch.cat([(p.query * p.key).sum(1, keepdim=True), p.query @ (p.key if p.memory is None else p.memory).T], 1)
    p = replace(p, weight=0.0, ids=None, memory_ids=None)
    if p.memory is None:
        seen[:, 1:].fill_diagonal_(-math.inf)
    else:
        seen[:, 1:][:, p.memory_labels == EMPTY] = -math.inf
    expected = F.cross_entropy(seen / p.temperature, torch.zeros(len(seen), dtype=torch.long), reduction="none")
    torch.testing.assert_close(p.loss(impl), expected, rtol=0, atol=budget(p))


@each_impl
@given(p=problems)
def test_with_equal_shares_it_is_grafit_and_with_full_weight_supcon(impl: str, p: Problem) -> None:
    p = replace(p, target_temperature=math.inf)
    supcon, selfcon = replace(p, weight=1.0).loss(impl), replace(p, weight=0.0).loss(impl)
    mixed = p.weight * supcon + (1 - p.weight) * selfcon
    torch.testing.assert_close(p.loss(impl), mixed, rtol=0, atol=2 * budget(p))
    settings = {"temperature": p.temperature, "normalize": False, "impl": impl, "reduction": "none"}
    arguments = (p.query, p.key, p.labels, p.memory, p.memory_labels)
    ids = {"sample_ids": p.ids, "memory_ids": p.memory_ids}
    assert torch.equal(functional.grafit(*arguments, weight=p.weight, **settings, **ids), p.loss(impl))
    assert torch.equal(functional.supcon(*arguments, **settings, **ids), supcon)
    torch.testing.assert_close(functional.selfcon(*arguments, **settings, **ids), selfcon)


@each_impl
@given(p=problems)
def test_a_large_target_temperature_tends_to_equal_shares(impl: str, p: Problem) -> None:
    near = replace(p, target_temperature=1e7).loss(impl)
    torch.testing.assert_close(
        near, replace(p, target_temperature=math.inf).loss(impl), rtol=0, atol=1e-6 * (1 + 1 / p.temperature)
    )


@each_impl
@given(seed=st.integers(0, 2**31), ties=st.integers(1, 4))
def test_a_small_target_temperature_halves_between_the_own_and_the_nearest_keys(
    impl: str, seed: int, ties: int
) -> None:
    """Own key 1/2 where one key is nearest; where several are equally near, they and the own key share evenly."""
    p = problem(5, 30, 6, classes=2, seed=seed, weight=1.0, target_temperature=1e-6)
    p = replace(p, labels=p.labels.abs() % 2, memory_labels=torch.arange(30) % 2)
    row = int((p.key[0] @ p.memory.T).masked_fill(p.memory_labels != p.labels[0], -2.0).argmax())
    copies = torch.cat([p.memory, p.memory[row].expand(ties - 1, -1)])
    labels = torch.cat([p.memory_labels, p.memory_labels[row].expand(ties - 1)])
    logits = torch.cat([(p.query[0] @ p.key[0])[None], copies @ p.query[0]]) / p.temperature
    chosen = [0, 1 + row, *range(31, 30 + ties)]
    expected = -(logits.log_softmax(0)[chosen]).mean()
    found = replace(p, memory=copies, memory_labels=labels).loss(impl)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@each_impl
@given(p=problems)
def test_a_row_whose_class_is_absent_is_a_selfcon_row(impl: str, p: Problem) -> None:
    strangers = replace(p, labels=torch.full_like(p.labels, 777))
    if p.memory is None:
        strangers = replace(p, labels=torch.arange(len(p.labels)))
    torch.testing.assert_close(strangers.loss(impl), selfcon_rows(strangers), rtol=0, atol=budget(p))


@each_impl
@given(p=problems, unlabelled=st.integers(-(2**31), -1))
def test_an_unlabelled_query_is_a_selfcon_row_and_an_unlabelled_key_a_negative(
    impl: str, p: Problem, unlabelled: int
) -> None:
    labels = p.labels.clone()
    labels[::2] = unlabelled
    rows = replace(p, labels=labels)
    torch.testing.assert_close(rows.loss(impl)[::2], selfcon_rows(rows)[::2], rtol=0, atol=budget(p))
    if p.memory is not None:
        nobody = torch.where(p.memory_labels == EMPTY, EMPTY, unlabelled)
        keys = replace(p, memory_labels=nobody)
        torch.testing.assert_close(keys.loss(impl), selfcon_rows(keys), rtol=0, atol=budget(p))


@each_impl
@given(p=problems)
def test_one_class_is_a_soft_nearest_neighbour_loss_without_labels(impl: str, p: Problem) -> None:
    labels, memory_labels = torch.full_like(p.labels, 5), None
    if p.memory is not None:
        memory_labels = torch.full_like(p.memory_labels, 5)
    one = replace(p, labels=labels, memory_labels=memory_labels)
    torch.testing.assert_close(one.loss(impl), oracle(one), rtol=0, atol=budget(p))


@each_impl
@given(p=problems, seed=st.integers(0, 2**31))
def test_permuting_the_memory_changes_nothing(impl: str, p: Problem, seed: int) -> None:
    if p.memory is None:
        return
    order = torch.randperm(len(p.memory), generator=torch.Generator().manual_seed(seed))
    ids = None if p.memory_ids is None else p.memory_ids[order]
    permuted = replace(p, memory=p.memory[order], memory_labels=p.memory_labels[order], memory_ids=ids)
    torch.testing.assert_close(permuted.loss(impl), p.loss(impl), rtol=0, atol=budget(p))


@each_impl
@pytest.mark.parametrize(("stretch", "unknown"), [(1, -(2**15) - 1), (1, -(2**63)), (2**14, -1), (2**58, -1)])
@given(p=problems)
def test_labels_are_names_whatever_their_size(impl: str, p: Problem, stretch: int, unknown: int) -> None:
    def renamed(labels: Tensor) -> Tensor:
        return torch.where(labels == EMPTY, EMPTY, torch.where(labels < 0, unknown, labels * stretch))

    memory_labels = None if p.memory_labels is None else renamed(p.memory_labels)
    others = replace(p, labels=renamed(p.labels), memory_labels=memory_labels)
    torch.testing.assert_close(others.loss(impl), p.loss(impl), rtol=0, atol=budget(p))


@each_impl
@given(p=problems)
def test_equal_embeddings_give_the_logarithm_of_the_number_of_candidates(impl: str, p: Problem) -> None:
    """Whatever the targets, all candidates look alike: log(K + 1), whatever the weight and the temperatures."""
    one = torch.zeros_like(p.query)
    one[:, 0] = 1.0
    memory = None if p.memory is None else one[:1].expand(p.memory.shape[0], -1)
    same = replace(p, query=one, key=one, memory=memory, ids=None, memory_ids=None)
    candidates = len(one) if p.memory is None else 1 + int((p.memory_labels != EMPTY).sum())
    expected = torch.full((len(one),), math.log(candidates), dtype=torch.float64)
    torch.testing.assert_close(same.loss(impl), expected, rtol=0, atol=budget(p))


@each_impl
@given(p=problems, first=weights, second=weights)
def test_the_loss_is_linear_in_the_weight(impl: str, p: Problem, first: float, second: float) -> None:
    a, b = replace(p, weight=first).loss(impl), replace(p, weight=second).loss(impl)
    middle = replace(p, weight=(first + second) / 2).loss(impl)
    torch.testing.assert_close(middle, (a + b) / 2, rtol=0, atol=2 * budget(p))


@each_impl
@given(p=problems)
def test_empty_rows_do_not_exist_whatever_they_hold(impl: str, p: Problem) -> None:
    if p.memory is None:
        return
    memory = p.memory.clone()
    memory[p.memory_labels == EMPTY] = math.nan
    kept = p.memory_labels != EMPTY
    ids = None if p.memory_ids is None else p.memory_ids[kept]
    cut = replace(p, memory=p.memory[kept], memory_labels=p.memory_labels[kept], memory_ids=ids).tracked()
    full = replace(p, memory=memory).tracked()
    found, expected = full.loss(impl), cut.loss(impl)
    torch.testing.assert_close(found, expected, rtol=0, atol=budget(p))
    ours, theirs = gradients(found, full), gradients(expected, cut)
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=budget(p) / p.temperature * len(found))
    assert not ours[2][~kept].any()


@each_impl
@given(p=problems)
def test_a_row_with_the_own_id_is_left_out(impl: str, p: Problem) -> None:
    if p.memory is None or len(p.memory) == 0:
        return
    ids, memory_ids = torch.arange(len(p.query)), torch.full((len(p.memory),), -1)
    memory_ids[0] = 0  # the stale key of image 0
    rows = replace(p, ids=ids, memory_ids=memory_ids).loss(impl)
    without = replace(p, memory=p.memory[1:], memory_labels=p.memory_labels[1:], ids=None, memory_ids=None).loss(impl)
    within = replace(p, ids=None, memory_ids=None).loss(impl)
    torch.testing.assert_close(rows[0], without[0], rtol=0, atol=budget(p))
    torch.testing.assert_close(rows[1:], within[1:], rtol=0, atol=budget(p))


@each_impl
@given(p=problems)
def test_in_the_batch_each_row_has_the_other_keys_as_memory(impl: str, p: Problem) -> None:
    rows = replace(p, memory=None, memory_labels=None, memory_ids=None, ids=None)
    for i in range(len(p.query)):
        others = torch.arange(len(p.query)) != i
        single = Problem(
            p.query[i : i + 1], p.key[i : i + 1], p.labels[i : i + 1], p.key[others], p.labels[others],
            weight=p.weight, temperature=p.temperature, target_temperature=p.target_temperature,
        )  # fmt: skip
        torch.testing.assert_close(rows.loss(impl)[i], single.loss(impl)[0], rtol=0, atol=budget(p))


@each_impl
@given(p=problems, scale=st.floats(-30, 30).map(lambda exponent: 10.0**exponent))
def test_normalising_makes_the_scale_of_query_and_key_irrelevant(impl: str, p: Problem, scale: float) -> None:
    scaled = replace(p, query=p.query * scale, key=p.key / scale)
    torch.testing.assert_close(scaled.loss(impl, normalize=True), p.loss(impl), rtol=0, atol=2 * budget(p))


# ---------------------------------------------------------------------------------------- precision, extremes, no NaN


lower_precision = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


@lower_precision
@given(p=problems)
def test_lower_precision_costs_no_more_than_in_plain_pytorch(dtype: torch.dtype, p: Problem) -> None:
    holds_the_error_budget(replace(p, temperature=max(p.temperature, 0.01)), dtype)  # float16 gradients reach 65504


@lower_precision
@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_the_error_budget_holds_on_a_long_peaked_memory(dtype: torch.dtype, temperature: float) -> None:
    holds_the_error_budget(problem(37, 3001, 67, classes=5, with_ids=True, empty=0.1, temperature=temperature), dtype)


def test_a_small_loss_keeps_its_digits_in_float32() -> None:
    """-log p(own key) near 1e-9 is far below the unit in the last place of 1, and still right."""
    eye = torch.eye(3)
    found = functional.selfcon(eye, eye, torch.arange(3), eye.roll(1, 0), torch.arange(3), temperature=0.05)
    stays = functional.selfcon(eye, eye, torch.arange(3), None, None, temperature=0.05)
    assert float(stays) == pytest.approx(math.log1p(2 * math.exp(-20.0)), rel=1e-6)
    assert torch.isfinite(found)


@pytest.mark.parametrize("impl", ["streamed", "triton"])
def test_the_gradient_of_an_own_key_with_little_mass_keeps_its_digits(impl: str) -> None:
    """p_i0 - t_i0 is far below 1 there, and must not come from a difference of numbers near 1."""
    if impl == "triton":
        import_triton()
    p = problem(3, 2000 if impl == "streamed" else 300, 2, target_temperature=math.inf)
    truth = gradients((exact := p.tracked()).loss("dense"), exact)[1]
    device = "cuda" if impl == "triton" and torch.cuda.is_available() else "cpu"
    found = gradients((ours := p.on(device).to(torch.float32).tracked()).loss(impl), ours)[1].cpu()
    assert error(found, truth) <= 64 * torch.finfo(torch.float32).eps * float(truth.abs().max())


@each_impl
@pytest.mark.parametrize("temperature", [1e-1, 1e-4, 1e-8, 1e-10, 1e-12])
def test_the_own_key_alone_costs_nothing_at_any_temperature(impl: str, temperature: float) -> None:
    """Query equal to key, far from all others: exactly 0, also where q . k / T is far beyond float32's digits."""
    query = F.normalize(torch.randn(50, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    empty = torch.full((30,), EMPTY)
    loss = functional.selfcon(
        query, query, torch.zeros(50).long(), query[:30], empty, temperature=temperature, reduction="none", impl=impl
    )
    assert torch.equal(loss, torch.zeros(50))


extremes = {
    "equal": lambda: (torch.ones(4, 8), torch.ones(4, 8), torch.ones(6, 8)),
    "opposite": lambda: (torch.ones(4, 8), -torch.ones(4, 8), -torch.ones(6, 8)),
    "zero query": lambda: (torch.zeros(4, 8), torch.ones(4, 8), torch.ones(6, 8)),
    "zero key": lambda: (torch.ones(4, 8), torch.zeros(4, 8), torch.ones(6, 8)),
    "all zero": lambda: (torch.zeros(4, 8), torch.zeros(4, 8), torch.zeros(6, 8)),
    "tiny": lambda: (torch.full((4, 8), 6e-8), torch.full((4, 8), 6e-8), torch.ones(6, 8)),
    "huge": lambda: (torch.full((4, 8), 6e4), torch.full((4, 8), -6e4), torch.ones(6, 8)),
    "one feature": lambda: (torch.ones(4, 1), -torch.ones(4, 1), torch.tensor([[1.0]] * 3 + [[-1.0]] * 3)),
}
memories = {
    "full": [0, 1, 0, 1, 0, 1],
    "partly filled": [0, 1, EMPTY, EMPTY, EMPTY, EMPTY],
    "empty": [EMPTY] * 6,
    "other classes": [7] * 6,
    "unlabelled": [UNLABELLED] * 6,
}


@each_impl
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_labels", memories.values(), ids=memories)
@pytest.mark.parametrize("vectors", extremes.values(), ids=extremes)
def test_nothing_finite_becomes_nan(vectors, memory_labels: list[int], dtype: torch.dtype, impl: str) -> None:
    query, key, memory = (each.to(dtype) for each in vectors())
    memory = F.normalize(memory.float(), dim=1).to(dtype)
    for temperature in (1e-3, 0.1, 1e3):
        for target_temperature in (1e-3, 0.05, 1e3, math.inf):
            for in_batch in (False, True):
                query, key = query.detach().requires_grad_(), key.detach().requires_grad_()
                loss = functional.maskcon(
                    query, key, torch.tensor([0, 1, -1, 2]),
                    None if in_batch else memory, None if in_batch else torch.tensor(memory_labels),
                    weight=0.8, temperature=temperature, target_temperature=target_temperature,
                    reduction="none", impl=impl,
                )  # fmt: skip
                loss.sum().backward()
                assert loss.isfinite().all()
                largest = torch.finfo(dtype).max  # a true gradient beyond it (6e-8 wide, T = 1e-3) is infinite, not NaN
                for leaf in (query, key):
                    assert not leaf.grad.isnan().any()
                    assert leaf.grad.isfinite().all() or largest < 1e5


@each_impl
def test_nan_and_infinity_are_never_hidden(impl: str) -> None:
    """A NaN row gives a NaN row; a NaN key in the memory reaches every row that sees it."""
    p = problem(4, 20, 5, weight=0.8)
    for bad in (math.nan, math.inf, -math.inf):
        query, key, memory = p.query.clone(), p.key.clone(), p.memory.clone()
        query[1, 2] = key[2, 0] = bad
        rows = replace(p, query=query, key=key).loss(impl, normalize=True)
        assert rows.isnan().tolist() == [False, True, True, False]
        memory[3] = bad
        assert replace(p, memory=memory).loss(impl).isnan().all()


@each_impl
@pytest.mark.parametrize("rows", [0, 1])
def test_the_smallest_batches(impl: str, rows: int) -> None:
    """No row: an empty vector and a sum of 0. One row without a memory: nothing to tell it from, a loss of 0."""
    query, labels = torch.randn(rows, 3).requires_grad_(), torch.zeros(rows, dtype=torch.long)
    for memory in (None, torch.randn(0, 3)):
        memory_labels = None if memory is None else torch.zeros(0, dtype=torch.long)
        settings = {"impl": impl, "reduction": "none"}
        loss = functional.maskcon(query, torch.randn(rows, 3), labels, memory, memory_labels, **settings)
        assert loss.shape == (rows,)
        assert float(loss.detach().abs().sum()) < 1e-6
        loss.sum().backward()
        assert not query.grad.isnan().any()


@each_impl
def test_any_integer_type_of_labels_and_any_strides_do(impl: str) -> None:
    p = problem(6, 15, 8, with_ids=True)
    p = replace(p, ids=p.ids.clamp(min=0))
    expected = p.loss(impl)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        cast = replace(p, labels=p.labels.to(dtype), memory_labels=p.memory_labels.to(dtype), ids=p.ids.to(dtype))
        assert torch.equal(cast.loss(impl), expected)
    wide = torch.randn(15, 16, dtype=torch.float64)
    wide[:, ::2] = p.memory
    strided = replace(p, query=p.query.T.contiguous().T, key=p.key.repeat(1, 2)[:, :8], memory=wide[:, ::2])
    strided = strided.tracked()
    strided = replace(strided, query=strided.query.T.contiguous().T, memory=wide[:, ::2])
    torch.testing.assert_close(strided.loss(impl), expected)


# ------------------------------------------------------------------------------------------------- CoIns, a mixture


@each_impl
@given(p=problems)
def test_coins_mixes_cross_entropy_and_selfcon_and_leaves_unlabelled_rows_to_selfcon(impl: str, p: Problem) -> None:
    logits = torch.randn(len(p.query), 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = functional.coins(
        p.query, p.key, p.labels, p.memory, p.memory_labels, logits=logits, weight=p.weight, temperature=p.temperature,
        reduction="none", normalize=False, impl=impl, sample_ids=p.ids, memory_ids=p.memory_ids,
    )  # fmt: skip
    selfcon = selfcon_rows(p)
    for i, label in enumerate(p.labels.tolist()):
        expected = selfcon[i]
        if label >= 0:
            expected = (1 - p.weight) * selfcon[i] - p.weight * logits[i].log_softmax(0)[label]
        torch.testing.assert_close(found[i], expected, rtol=0, atol=budget(p))
