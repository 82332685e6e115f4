"""Recall@K against a ranking done by hand, and against torchmetrics and pytorch-metric-learning."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from instruments import LargestTensor
from torch import Tensor

from maskcon_loss import recall_at_k


def by_hand(
    embeddings: Tensor, labels: Tensor, k: int, gallery: Tensor | None = None, others: Tensor | None = None
) -> float:
    hits = 0
    for i, vector in enumerate(embeddings.double()):
        against = embeddings if gallery is None else gallery
        names = labels if others is None else others
        ranked = sorted(
            (j for j in range(len(against)) if gallery is not None or j != i),
            key=lambda j: -float(vector @ against[j].double() / (vector.norm() * against[j].double().norm())),
        )
        hits += any(names[j] == labels[i] for j in ranked[:k])
    return hits / len(embeddings)


def samples(rows: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=g, dtype=torch.float64), torch.randint(classes, (rows,), generator=g)


@given(st.integers(3, 25), st.integers(1, 6), st.integers(0, 999), st.integers(1, 9), st.booleans())
def test_it_is_the_share_of_queries_that_find_their_label(
    rows: int, classes: int, seed: int, chunk: int, with_gallery: bool
) -> None:
    embeddings, labels = samples(rows, classes, seed)
    gallery, gallery_labels = samples(rows + 3, classes, seed + 1) if with_gallery else (None, None)
    found = recall_at_k(embeddings, labels, (2, 1), gallery=gallery, gallery_labels=gallery_labels, chunk_size=chunk)
    assert found == {k: by_hand(embeddings, labels, k, gallery, gallery_labels) for k in (1, 2)}
    assert list(found) == [1, 2]


def test_duplicates_count_as_neighbours_and_only_the_query_itself_is_left_out() -> None:
    """Every vector occurs twice, with two labels: whoever drops rank 0 instead of the query's index finds some hits."""
    base = torch.eye(8)
    embeddings = base.repeat_interleave(2, 0)
    assert recall_at_k(embeddings, torch.arange(16), (1,)) == {1: 0.0}
    assert recall_at_k(embeddings, torch.arange(16) // 2, (1,)) == {1: 1.0}


def test_a_label_that_nobody_shares_is_a_miss_and_keeps_its_query_counted() -> None:
    assert recall_at_k(torch.eye(4), torch.tensor([0, 0, 1, 2]), (3,)) == {3: 0.5}


def test_numpy_arrays_lists_of_depths_and_single_depths_do() -> None:
    embeddings, labels = samples(20, 3, 0)
    expected = recall_at_k(embeddings, labels, (1, 5))
    assert recall_at_k(embeddings.numpy(), labels.numpy(), [5, 1]) == expected
    assert recall_at_k(embeddings.numpy(), labels, np.array([1, 5]).tolist()) == expected
    assert recall_at_k(embeddings, labels, 1) == {1: expected[1]}


def test_normalize_false_ranks_by_inner_product() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.0], [5.0, 5.0]])
    labels = torch.tensor([0, 0, 1])
    assert recall_at_k(embeddings, labels, 1) == {1: pytest.approx(2 / 3)}
    assert recall_at_k(embeddings, labels, 1, normalize=False) == {1: 0.0}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision_is_ranked_in_float32(dtype: torch.dtype) -> None:
    embeddings, labels = samples(30, 3, 1)
    rounded = embeddings.to(dtype)
    assert recall_at_k(rounded, labels, (1, 5)) == recall_at_k(rounded.double(), labels, (1, 5))


def test_autocast_and_gradients_change_nothing() -> None:
    embeddings, labels = samples(30, 3, 1)
    embeddings = embeddings.float().requires_grad_()
    expected = recall_at_k(embeddings.detach(), labels, (1, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert recall_at_k(embeddings, labels, (1, 5)) == expected


def test_memory_is_bounded_by_the_chunk() -> None:
    embeddings, labels = torch.randn(1500, 3), torch.randint(5, (1500,))
    with LargestTensor() as seen:
        recall_at_k(embeddings, labels, (1, 10), chunk_size=100)
    assert seen.numel <= max(100 * 110, embeddings.numel())


def test_torchmetrics_agrees() -> None:
    retrieval = pytest.importorskip("torchmetrics.retrieval")
    embeddings, labels = samples(60, 12, 3)
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    pairs = torch.tensor([(i, j) for i in range(60) for j in range(60) if i != j])
    for k, found in recall_at_k(embeddings, labels, (1, 2, 5, 10)).items():
        metric = retrieval.RetrievalHitRate(top_k=k, empty_target_action="neg")
        scores = (unit @ unit.T)[pairs[:, 0], pairs[:, 1]]
        expected = metric(scores, labels[pairs[:, 0]] == labels[pairs[:, 1]], indexes=pairs[:, 0])
        assert found == pytest.approx(float(expected), abs=1e-6)


def test_pytorch_metric_learning_agrees_on_recall_at_1() -> None:
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    embeddings, labels = samples(200, 8, 4)
    calculator = AccuracyCalculator(
        include=("precision_at_1",), k=1, device=torch.device("cpu"), knn_func=CustomKNN(CosineSimilarity())
    )
    expected = calculator.get_accuracy(embeddings, labels)["precision_at_1"]
    assert recall_at_k(embeddings, labels, 1) == {1: pytest.approx(expected)}
