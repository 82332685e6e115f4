"""Evaluation: do the nearest neighbours of a sample share its fine class?

Shapes: Q queries in a chunk, G gallery rows in a chunk, D features.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskcon_loss import _checks
from maskcon_loss._precision import unit, without_autocast, working_dtype

if TYPE_CHECKING:
    import numpy as np

    Rows = Tensor | np.ndarray


@torch.no_grad()
def recall_at_k(
    embeddings: "Rows",
    labels: "Rows",
    k: int | Iterable[int] = (1, 2, 5, 10),
    *,
    gallery: "Rows | None" = None,
    gallery_labels: "Rows | None" = None,
    normalize: bool = True,
    chunk_size: int = 1024,
) -> dict[int, float]:
    r"""The share of queries that find their own label among the k most similar gallery rows.

    .. math:: R@k = \frac{1}{|Q|} \sum_{i \in Q} \bigl[ y_i \in \{ y_j : j \in \mathrm{top}_k(e_i \cdot g_j) \} \bigr]

    Without a gallery the embeddings are their own: each query then leaves itself out, by its index, so duplicates of it
    count as the neighbours they are. A query whose label nobody else has counts as a miss.

    Args:
        embeddings: (N, D) floating, tensor or NumPy array. The paper takes the backbone's features, not the projection.
        labels: (N,) integers, the fine labels.
        k: the depths, each at most the number of candidates.
        gallery: (M, D) rows to search instead.
        gallery_labels: (M,) integers.
        normalize: whether to compare by cosine; else by inner product.
        chunk_size: how many queries meet how many gallery rows at once; memory grows with its square, not with N.

    Returns:
        ``{depth: share}`` with shares from 0 to 1, in ascending depths. Equal similarities are ranked as
        :func:`torch.topk` does.

    Raises:
        TypeError, ValueError: wrong input, also NaN or Inf, in a sentence that says what to type.

    Example:
        >>> import torch
        >>> from maskcon_loss import recall_at_k
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.5, 0.6]])
        >>> recall_at_k(embeddings, torch.tensor([0, 0, 1, 0]), k=(1, 2))
        {1: 0.5, 2: 0.75}

    Source: Jegou et al., *Product Quantization for Nearest Neighbor Search*, TPAMI 2011; Feng and Patras, CVPR 2023, 4.
    """
    depths = _checks.depths(k)
    embeddings, labels = _checks.array("embeddings", embeddings), _checks.array("labels", labels)
    gallery = None if gallery is None else _checks.array("gallery", gallery)
    gallery_labels = None if gallery_labels is None else _checks.array("gallery_labels", gallery_labels)
    _checks.flag("normalize", normalize)
    _checks.positive_integer("chunk_size", chunk_size, "a number of rows")
    _checks.recall(embeddings, labels, depths, gallery, gallery_labels)
    itself = gallery is None
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels = embeddings, labels

    first_hit = torch.full_like(labels, depths[-1], dtype=torch.int64)  # rank of the first neighbour with the label
    with without_autocast(embeddings.device):
        for start in range(0, embeddings.shape[0], chunk_size):
            queries = slice(start, start + chunk_size)
            nearest = _nearest(
                embeddings[queries], gallery, depths[-1], normalize, chunk_size, start if itself else None
            )
            hit = gallery_labels[nearest] == labels[queries].unsqueeze(1)
            first_hit[queries] = torch.where(hit.any(1), hit.int().argmax(1), depths[-1])
    return {depth: float((first_hit < depth).double().mean()) for depth in depths}


def _nearest(
    queries: Tensor, gallery: Tensor, depth: int, normalize: bool, chunk_size: int, own_start: int | None
) -> Tensor:
    """The gallery rows most similar to each query, (Q, depth), nearest first, a chunk of the gallery at a time.

    Where the queries are rows of the gallery themselves, ``own_start`` is the row of the first.
    """
    dtype = working_dtype(queries, gallery)
    scale = unit if normalize else lambda vectors: vectors
    queries = scale(queries.to(dtype))
    best_similarity = queries.new_empty(queries.shape[0], 0)
    best = torch.empty(queries.shape[0], 0, dtype=torch.int64, device=queries.device)
    for start in range(0, gallery.shape[0], chunk_size):
        similarity_QG = queries @ scale(gallery[start : start + chunk_size].to(dtype)).mT
        rows_G = torch.arange(start, start + similarity_QG.shape[1], device=queries.device)
        if own_start is not None:
            own_Q = torch.arange(own_start, own_start + queries.shape[0], device=queries.device)
            similarity_QG.masked_fill_(own_Q.unsqueeze(1) == rows_G, -torch.inf)
        best_similarity = torch.cat([best_similarity, similarity_QG], dim=1)
        best = torch.cat([best, rows_G.expand(queries.shape[0], -1)], dim=1)
        best_similarity, order = best_similarity.topk(min(depth, best.shape[1]), dim=1)
        best = best.gather(1, order)
    return best
