"""What is said about wrong embeddings, galleries and depths."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from instruments import error_of

from maskcon_loss import recall_at_k

N, M, D = 6, 9, 4
G = torch.Generator().manual_seed(0)
FEATURES, GALLERY = torch.randn(N, D, generator=G), torch.randn(M, D, generator=G)
LABELS, GALLERY_LABELS = torch.arange(N) % 2, torch.arange(M) % 2

Case = tuple[Callable[[], object], type[Exception], str]
CASES: dict[str, Case] = {
    # ------------------------------------------------------------------------------------------------------------- k
    "k 0": (
        lambda: recall_at_k(FEATURES, LABELS, k=0),
        ValueError,
        "`k` is 0; it must be a number of neighbours or several such numbers, whole and 1 or more. For one depth type "
        "`k=1`, for several `k=(1, 5)`.",
    ),
    "k with a 0": (
        lambda: recall_at_k(FEATURES, LABELS, k=[1, 0]),
        ValueError,
        "`k` is (1, 0); it must be a number of neighbours or several such numbers, whole and 1 or more. For one depth "
        "type `k=1`, for several `k=(1, 5)`.",
    ),
    "k empty": (
        lambda: recall_at_k(FEATURES, LABELS, k=()),
        ValueError,
        "`k` is (); it must be a number of neighbours or several such numbers, whole and 1 or more. For one depth type "
        "`k=1`, for several `k=(1, 5)`.",
    ),
    "k None": (
        lambda: recall_at_k(FEATURES, LABELS, k=None),
        TypeError,
        "`k` is None; it must be a number of neighbours or several such numbers, whole and 1 or more. For one depth "
        "type `k=1`, for several `k=(1, 5)`.",
    ),
    "k True": (
        lambda: recall_at_k(FEATURES, LABELS, k=True),
        TypeError,
        "`k` is True; it must be a number of neighbours or several such numbers, whole and 1 or more. For one depth "
        "type `k=1`, for several `k=(1, 5)`.",
    ),
    "k as text": (
        lambda: recall_at_k(FEATURES, LABELS, k="15"),
        TypeError,
        "`k` is '15'; it must be a number of neighbours or several such numbers, whole and 1 or more. For one depth "
        "type `k=1`, for several `k=(1, 5)`.",
    ),
    "k as bytes": (
        lambda: recall_at_k(FEATURES, LABELS, k=b"\x01"),
        TypeError,
        "`k` is b'\\x01'; it must be a number of neighbours or several such numbers, whole and 1 or more. For one "
        "depth type `k=1`, for several `k=(1, 5)`.",
    ),
    "k as a float": (
        lambda: recall_at_k(FEATURES, LABELS, k=1.0),
        TypeError,
        "`k` is 1.0; it must be a number of neighbours or several such numbers, whole and 1 or more. For one depth "
        "type `k=1`, for several `k=(1, 5)`.",
    ),
    "k of texts": (
        lambda: recall_at_k(FEATURES, LABELS, k=["1", "5"]),
        TypeError,
        "`k` is ('1', '5'); it must be a number of neighbours or several such numbers, whole and 1 or more. If they "
        "were read or computed, type `k=[int(depth) for depth in values]`.",
    ),
    "k of floats, from a generator": (
        lambda: recall_at_k(FEATURES, LABELS, k=(depth / 1 for depth in (1, 5))),
        TypeError,
        "`k` is (1.0, 5.0); it must be a number of neighbours or several such numbers, whole and 1 or more. If they "
        "were read or computed, type `k=[int(depth) for depth in values]`.",
    ),
    "k as an array": (
        lambda: recall_at_k(FEATURES, LABELS, k=np.array([1, 5])),
        TypeError,
        "`k` is array([1, 5]); it must be a number of neighbours or several such numbers, whole and 1 or more. If it "
        "was computed, type `k=value.tolist()`.",
    ),
    "k as a tensor": (
        lambda: recall_at_k(FEATURES, LABELS, k=torch.tensor(5)),
        TypeError,
        "`k` is tensor(5); it must be a number of neighbours or several such numbers, whole and 1 or more. If it was "
        "computed, type `k=value.tolist()`.",
    ),
    "k beyond all others": (
        lambda: recall_at_k(FEATURES, LABELS),
        ValueError,
        "`k` asks for 10 neighbours but each query has only 5 to be compared with; no depth may exceed that. Embed "
        "more samples, or type `k=(1, 2, 5)`.",
    ),
    "k beyond the gallery": (
        lambda: recall_at_k(FEATURES, LABELS, k=20, gallery=GALLERY, gallery_labels=GALLERY_LABELS),
        ValueError,
        "`k` asks for 20 neighbours but each query has only 9 to be compared with; no depth may exceed that. Embed "
        "more samples, or type `k=(9,)`.",
    ),
    "chunk_size 0": (
        lambda: recall_at_k(FEATURES, LABELS, k=1, chunk_size=0),
        ValueError,
        "`chunk_size` is 0; it is a number of rows and must be 1 or more. If it was computed, type "
        "`chunk_size=max(1, value)`.",
    ),
    "chunk_size None": (
        lambda: recall_at_k(FEATURES, LABELS, k=1, chunk_size=None),
        TypeError,
        "`chunk_size` is None; it is a number of rows and must be a whole number. Type one, such as `chunk_size=1024`.",
    ),
    # --------------------------------------------------------------------------------------------- embeddings, labels
    "labels as a list": (
        lambda: recall_at_k(FEATURES, LABELS.tolist(), k=1),
        TypeError,
        "`labels` is of type list; it must be a torch.Tensor or a NumPy array. Type `torch.as_tensor(labels)`.",
    ),
    "labels as an array of objects": (
        lambda: recall_at_k(FEATURES, LABELS.numpy().astype(object), k=1),
        TypeError,
        "`labels` is an array of dtype object, which torch does not know; numbers are needed. Number them by one list "
        "of all names: `np.array([names.index(name) for name in labels])`.",
    ),
    "labels as an array of names": (
        lambda: recall_at_k(FEATURES.numpy(), np.array(["cat", "dog"] * 3), k=1),
        TypeError,
        "`labels` is an array of dtype <U3, which torch does not know; numbers are needed. Number them by one list of "
        "all names: `np.array([names.index(name) for name in labels])`.",
    ),
    "embeddings as an array of objects": (
        lambda: recall_at_k(FEATURES.numpy().astype(object), LABELS, k=1),
        TypeError,
        "`embeddings` is an array of dtype object, which torch does not know; numbers are needed. Type "
        "`embeddings.astype(np.float32)`.",
    ),
    "embeddings and labels exchanged": (
        lambda: recall_at_k(LABELS, FEATURES, k=1),
        TypeError,
        "`embeddings` has dtype torch.int64; similarities need float16, bfloat16, float32 or float64. If labels came "
        "in the place of features, exchange the two.",
    ),
    "no embeddings": (
        lambda: recall_at_k(FEATURES[:0], LABELS[:0], k=1),
        ValueError,
        "`embeddings` has 0 rows, and the recall of no queries is undefined; at least one is needed. Look at the loop "
        "that collects them: `torch.cat(collected)`.",
    ),
    "one embedding": (
        lambda: recall_at_k(FEATURES[:1], LABELS[:1], k=1),
        ValueError,
        "`embeddings` has 1 row and there is no gallery, so a query has nothing to be compared with; at least one "
        "other row is needed. Pass what is to be searched: `gallery=encoder(images), gallery_labels=labels`.",
    ),
    "embeddings NaN": (
        lambda: recall_at_k(FEATURES * math.nan, LABELS, k=1),
        ValueError,
        "`embeddings` holds NaN or infinite values, and a rank among them means nothing; all must be finite. If the "
        "training diverged, find the rows with `torch.as_tensor(embeddings).isfinite().all(1).logical_not()`.",
    ),
    "labels on another device": (
        lambda: recall_at_k(FEATURES, LABELS.to("meta"), k=1),
        ValueError,
        "`labels` is on meta but `embeddings` is on cpu; both must be on one device. One of them was not moved: type "
        "`torch.as_tensor(labels).to(embeddings.device)`.",
    ),
    # ------------------------------------------------------------------------------------------------------- gallery
    "gallery without labels": (
        lambda: recall_at_k(FEATURES, LABELS, k=1, gallery=GALLERY),
        ValueError,
        "`gallery` came without `gallery_labels`; a gallery needs both, and without either the embeddings are their "
        "own gallery. Type `gallery=..., gallery_labels=...`.",
    ),
    "gallery labels without gallery": (
        lambda: recall_at_k(FEATURES, LABELS, k=1, gallery_labels=GALLERY_LABELS),
        ValueError,
        "`gallery_labels` came without `gallery`; a gallery needs both, and without either the embeddings are their "
        "own gallery. Type `gallery=..., gallery_labels=...`.",
    ),
    "gallery of another width": (
        lambda: recall_at_k(FEATURES, LABELS, k=1, gallery=GALLERY[:, :3], gallery_labels=GALLERY_LABELS),
        ValueError,
        "`gallery` has 3 features but `embeddings` has 4; they are compared, so the widths must be equal. Pass both "
        "through the same encoder: `gallery=encoder(images)`.",
    ),
    "gallery on another device": (
        lambda: recall_at_k(FEATURES, LABELS, k=1, gallery=GALLERY.to("meta"), gallery_labels=GALLERY_LABELS),
        ValueError,
        "`gallery` is on meta but `embeddings` is on cpu; both must be on one device. One of them was not moved: type "
        "`torch.as_tensor(gallery).to(embeddings.device)`.",
    ),
    "gallery empty": (
        lambda: recall_at_k(FEATURES, LABELS, k=1, gallery=GALLERY[:0], gallery_labels=GALLERY_LABELS[:0]),
        ValueError,
        "`gallery` has 0 rows, so a query has nothing to be compared with; at least one other row is needed. Pass what "
        "is to be searched: `gallery=encoder(images), gallery_labels=labels`.",
    ),
    "gallery infinite": (
        lambda: recall_at_k(FEATURES, LABELS, k=1, gallery=GALLERY / 0, gallery_labels=GALLERY_LABELS),
        ValueError,
        "`gallery` holds NaN or infinite values, and a rank among them means nothing; all must be finite. If the "
        "training diverged, find the rows with `torch.as_tensor(gallery).isfinite().all(1).logical_not()`.",
    ),
}


@pytest.mark.parametrize(("call", "kind", "sentence"), CASES.values(), ids=CASES)
def test_the_sentence(call: Callable[[], object], kind: type[Exception], sentence: str) -> None:
    error = error_of(call)
    assert type(error) is kind
    assert str(error) == sentence


@pytest.mark.parametrize("k", [[1, 5], range(1, 6, 4), (depth for depth in (5, 1)), {5, 1}, (1, 1, 5), [5, 1]])
def test_depths_come_in_any_collection_and_go_in_ascending_order(k: object) -> None:
    assert recall_at_k(FEATURES, LABELS, k) == recall_at_k(FEATURES, LABELS, (1, 5))
    assert list(recall_at_k(FEATURES, LABELS, (5, 1))) == [1, 5]


@pytest.mark.parametrize("value", [np.array([1, 5]), np.array(5), torch.tensor([1, 5]), torch.tensor(5), np.int64(5)])
def test_depths_made_a_list_as_advised_are_accepted(value: object) -> None:
    with pytest.raises(TypeError, match=r"type `k=value.tolist\(\)`"):
        recall_at_k(FEATURES, LABELS, value)
    recall_at_k(FEATURES, LABELS, value.tolist())


def read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    "array",
    [
        read_only(FEATURES.numpy().copy()),  # as numpy.load(..., mmap_mode="r") gives
        FEATURES.flip(1).numpy()[:, ::-1],
        np.asfortranarray(FEATURES.numpy()),
        FEATURES.numpy().astype(">f4"),
        FEATURES.numpy().astype(np.float64),
    ],
    ids=["read-only", "backwards", "by columns", "of another byte order", "float64"],
)
def test_an_array_that_torch_cannot_share_is_read_all_the_same(array: np.ndarray) -> None:
    expected = recall_at_k(FEATURES, LABELS, k=(1, 2, 3))
    assert recall_at_k(array, LABELS.numpy()[::-1][::-1], k=(1, 2, 3)) == expected


def test_names_numbered_as_advised_are_accepted() -> None:
    names, labels = ["cat", "dog"], np.array(["cat", "dog"] * 3)
    assert recall_at_k(FEATURES, np.array([names.index(name) for name in labels]), k=1) == recall_at_k(
        FEATURES, LABELS, k=1
    )


@pytest.mark.parametrize("as_passed", [torch.as_tensor, np.asarray])
def test_rows_that_are_not_finite_are_found_as_advised(as_passed: Callable[[object], object]) -> None:
    embeddings = FEATURES.clone()
    embeddings[2, 1], embeddings[5, 0] = math.nan, math.inf
    embeddings = as_passed(embeddings)
    assert torch.as_tensor(embeddings).isfinite().all(1).logical_not().nonzero().flatten().tolist() == [2, 5]
