"""Recall@K: embeddings, gallery and depths."""

import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskcon_loss._checks.settings import convertible
from maskcon_loss._checks.tensors import integers, same_device, tensor, vectors


def depths(k: Any) -> list[int]:
    """Ascending, each once."""
    listed: list[Any] = [None]
    if isinstance(k, int):
        listed = [k]
    elif isinstance(k, Iterable) and not isinstance(k, (str, bytes, Tensor, np.ndarray)):
        listed = list(k)
    whole = all(isinstance(depth, int) and not isinstance(depth, bool) for depth in listed)
    if not whole or not listed or min(listed) < 1:
        came = k if isinstance(k, int) or listed == [None] else tuple(listed)
        cause = "For one depth type `k=1`, for several `k=(1, 5)`."
        if hasattr(k, "tolist"):
            cause = "If it was computed, type `k=value.tolist()`."
        elif not whole and all(convertible(depth) for depth in listed):
            cause = "If they were read or computed, type `k=[int(depth) for depth in values]`."
        raise (ValueError if whole else TypeError)(
            f"`k` is {reprlib.repr(came)}; it must be a number of neighbours or several such numbers, whole and 1 or "
            f"more. {cause}"
        )
    return sorted(set(listed))


def array(name: str, value: Any) -> Tensor:
    """A tensor as it is, a NumPy array as a tensor: on the same memory, where torch can use it."""
    if isinstance(value, np.ndarray):
        if not value.flags.writeable or not value.dtype.isnative or min(value.strides, default=0) < 0:
            value = np.array(value, value.dtype.newbyteorder("="), order="C")
        try:
            return torch.as_tensor(value)
        except TypeError:
            if name.endswith("labels"):
                cause = f"Number them by one list of all names: `np.array([names.index(name) for name in {name}])`."
            else:
                cause = f"Type `{name}.astype(np.float32)`."
            raise TypeError(
                f"`{name}` is an array of dtype {value.dtype}, which torch does not know; numbers are needed. {cause}"
            ) from None
    tensor(name, value, "a torch.Tensor or a NumPy array")
    return value


def recall(
    embeddings: Tensor,
    labels: Tensor,
    depths: list[int],
    gallery: Tensor | None,
    gallery_labels: Tensor | None,
    elsewhere: tuple[int, int] = (0, 0),
) -> None:
    """Queries, gallery and depths fit each other; looks at values, as the result is waited for anyway.

    ``elsewhere`` are the numbers of queries and of gallery rows that other ranks bring.
    """
    vectors("embeddings", embeddings, "torch.as_tensor(embeddings)")
    integers("labels", labels, embeddings.shape[0], "embeddings", embeddings, "torch.as_tensor(labels)")
    if embeddings.shape[0] + elsewhere[0] == 0:
        raise ValueError(
            "`embeddings` has 0 rows, and the recall of no queries is undefined; at least one is needed. Look at the "
            "loop that collects them: `torch.cat(collected)`."
        )
    if (gallery is None) != (gallery_labels is None):
        given, missing = ("gallery_labels", "gallery") if gallery is None else ("gallery", "gallery_labels")
        raise ValueError(
            f"`{given}` came without `{missing}`; a gallery needs both, and without either the embeddings are their "
            "own gallery. Type `gallery=..., gallery_labels=...`."
        )
    if gallery is not None:
        vectors("gallery", gallery, "torch.as_tensor(gallery)")
        if gallery.shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"`gallery` has {gallery.shape[1]} features but `embeddings` has {embeddings.shape[1]}; they are "
                "compared, so the widths must be equal. Pass both through the same encoder: `gallery=encoder(images)`."
            )
        same_device("gallery", gallery, "embeddings", embeddings, "torch.as_tensor(gallery)")
        code = "torch.as_tensor(gallery_labels)"
        integers("gallery_labels", gallery_labels, gallery.shape[0], "gallery", gallery, code)
    candidates = embeddings.shape[0] + elsewhere[0] - 1 if gallery is None else gallery.shape[0] + elsewhere[1]
    if candidates == 0:
        what = "`embeddings` has 1 row and there is no gallery" if gallery is None else "`gallery` has 0 rows"
        raise ValueError(
            f"{what}, so a query has nothing to be compared with; at least one other row is needed. Pass what is to be "
            "searched: `gallery=encoder(images), gallery_labels=labels`."
        )
    if depths[-1] > candidates:
        within = tuple(depth for depth in depths if depth <= candidates) or (candidates,)
        raise ValueError(
            f"`k` asks for {depths[-1]} neighbours but each query has only {candidates} to be compared with; no depth "
            f"may exceed that. Embed more samples, or type `k={within}`."
        )
    for name, value in (("embeddings", embeddings), ("gallery", gallery)):
        if value is not None and not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"`{name}` holds NaN or infinite values, and a rank among them means nothing; all must be finite. If "
                f"the training diverged, find the rows with `torch.as_tensor({name}).isfinite().all(1).logical_not()`."
            )
