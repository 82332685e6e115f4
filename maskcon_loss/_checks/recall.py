"""Recall@K: embeddings, gallery and depths."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskcon_loss._checks.settings import positive_integer
from maskcon_loss._checks.tensors import integers, same_device, tensor, vectors


def depths(k: Any) -> list[int]:
    """Ascending, each once."""
    listed = [k] if isinstance(k, int) else list(k) if isinstance(k, Iterable) else []
    if not listed:
        raise TypeError(
            f"`k` is {k!r}; it must hold the depths at which recall is taken, one or more whole numbers. For one "
            "depth, type `k=(1,)`."
        )
    for depth in listed:
        positive_integer("k", depth, "a number of neighbours")
    return sorted(set(listed))


def array(name: str, value: Any) -> Tensor:
    """A tensor as it is, a NumPy array as a tensor on the same memory."""
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    tensor(name, value)
    return value


def recall(
    embeddings: Tensor, labels: Tensor, depths: list[int], gallery: Tensor | None, gallery_labels: Tensor | None
) -> None:
    vectors("embeddings", embeddings)
    integers("labels", labels, embeddings.shape[0], "embeddings", embeddings)
    if (gallery is None) != (gallery_labels is None):
        given, missing = ("gallery_labels", "gallery") if gallery is None else ("gallery", "gallery_labels")
        raise ValueError(
            f"`{given}` came without `{missing}`; a gallery needs both, and without either the embeddings are their "
            "own gallery. Type `gallery=..., gallery_labels=...`."
        )
    if gallery is not None:
        vectors("gallery", gallery)
        if gallery.shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"`gallery` has {gallery.shape[1]} features but `embeddings` has {embeddings.shape[1]}; they are "
                "compared, so the widths must be equal. Pass both through the same encoder: `gallery=encoder(images)`."
            )
        same_device("gallery", gallery, "embeddings", embeddings)
        integers("gallery_labels", gallery_labels, gallery.shape[0], "gallery", gallery)
    candidates = embeddings.shape[0] - 1 if gallery is None else gallery.shape[0]
    if embeddings.shape[0] == 0:
        raise ValueError(
            "`embeddings` has 0 rows, and the recall of no queries is undefined; at least one is needed. Look at the "
            "loop that collects them: `torch.cat(collected)`."
        )
    if depths[-1] > candidates:
        raise ValueError(
            f"`k` asks for {depths[-1]} neighbours but each query has only {candidates} candidates; the largest depth "
            f"must not exceed that. Embed more samples, or type `k=({max(candidates, 1)},)`."
        )
    for name, value in (("embeddings", embeddings), ("gallery", gallery)):
        if value is not None and not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"`{name}` holds NaN or infinite values, and a rank among them means nothing; all must be finite. If "
                f"the training diverged, find the rows with `(~torch.isfinite({name})).any(1).nonzero()`."
            )
