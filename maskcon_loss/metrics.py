"""Evaluation: do the nearest neighbours of a sample share its fine class?

Shapes: Q queries in a chunk, G gallery rows in a chunk, D features.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from maskcon_loss import _checks, distributed
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
    gather_distributed: bool = False,
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
        gather_distributed: whether every rank brings its own part of the embeddings (and of the gallery) and all get
            the recall of all of them, as one process would with the parts in rank order. Each gallery row visits every
            rank once, a chunk at a time. Without a process group it changes nothing.

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
    _checks.flag("gather_distributed", gather_distributed)
    if gather_distributed and distributed.place()[1] > 1:
        return _over_ranks(embeddings, labels, k, gallery, gallery_labels, normalize, chunk_size)
    depths, embeddings, labels, gallery, gallery_labels = _arguments(
        embeddings, labels, k, gallery, gallery_labels, normalize, chunk_size
    )
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


def _arguments(
    embeddings: "Rows",
    labels: "Rows",
    k: int | Iterable[int],
    gallery: "Rows | None",
    gallery_labels: "Rows | None",
    normalize: bool,
    chunk_size: int,
) -> tuple[list[int], Tensor, Tensor, Tensor | None, Tensor | None]:
    """The depths, and all rows as tensors, each looked at alone."""
    depths = _checks.depths(k)
    embeddings, labels = _checks.array("embeddings", embeddings), _checks.array("labels", labels)
    gallery = None if gallery is None else _checks.array("gallery", gallery)
    gallery_labels = None if gallery_labels is None else _checks.array("gallery_labels", gallery_labels)
    _checks.flag("normalize", normalize)
    _checks.positive_integer("chunk_size", chunk_size, "a number of rows")
    return depths, embeddings, labels, gallery, gallery_labels


def _nearest(
    queries: Tensor, gallery: Tensor, depth: int, normalize: bool, chunk_size: int, own_start: int | None
) -> Tensor:
    """The gallery rows most similar to each query, (Q, depth), nearest first, a chunk of the gallery at a time.

    Where the queries are rows of the gallery themselves, ``own_start`` is the row of the first.
    """
    found = _Found(queries, working_dtype(queries, gallery), depth, normalize, own_start)
    for start in range(0, gallery.shape[0], chunk_size):
        found.meet(gallery[start : start + chunk_size], start)
    return found.rows


class _Found:
    """The gallery rows met so far that are most similar to each query, nearest first: ``rows`` (Q, up to depth)."""

    def __init__(self, queries: Tensor, dtype: torch.dtype, depth: int, normalize: bool, own_start: int | None) -> None:
        self.scale = unit if normalize else lambda vectors: vectors
        self.queries, self.depth = self.scale(queries.to(dtype)), depth
        self.own_Q = None
        if own_start is not None:
            self.own_Q = torch.arange(own_start, own_start + queries.shape[0], device=queries.device)
        self.similarity = self.queries.new_empty(queries.shape[0], 0)
        self.rows = torch.empty(queries.shape[0], 0, dtype=torch.int64, device=queries.device)

    def meet(self, gallery: Tensor, start: int) -> None:
        """A chunk of the gallery, of which the first row has the number ``start``."""
        similarity_QG = self.queries @ self.scale(gallery.to(self.queries.dtype)).mT
        rows_G = torch.arange(start, start + gallery.shape[0], device=gallery.device)
        if self.own_Q is not None:
            similarity_QG.masked_fill_(self.own_Q.unsqueeze(1) == rows_G, -torch.inf)
        similarity = torch.cat([self.similarity, similarity_QG], dim=1)
        rows = torch.cat([self.rows, rows_G.expand(self.queries.shape[0], -1)], dim=1)
        self.similarity, order = similarity.topk(min(self.depth, rows.shape[1]), dim=1)
        self.rows = rows.gather(1, order)


def _over_ranks(
    embeddings: "Rows",
    labels: "Rows",
    k: int | Iterable[int],
    gallery: "Rows | None",
    gallery_labels: "Rows | None",
    normalize: bool,
    chunk_size: int,
) -> dict[int, float]:
    """Each rank keeps its queries and is shown the whole gallery, a chunk at a time."""
    call, (rank, world) = "recall_at_k", distributed.place()
    try:
        depths, embeddings, labels, gallery, gallery_labels = _arguments(
            embeddings, labels, k, gallery, gallery_labels, normalize, chunk_size
        )
        many = (max(depths[-1], embeddings.shape[0]), max(depths[-1], 0 if gallery is None else gallery.shape[0]))
        _checks.recall(embeddings, labels, depths, gallery, gallery_labels, (many[0] + 1, many[1] + 1))
    except (TypeError, ValueError):
        distributed.refuse(call, "", embeddings.device if isinstance(embeddings, Tensor) else torch.device("cpu"))
        raise
    itself = gallery is None
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels = embeddings, labels
    common: dict[str, int | Tensor] = {
        "gallery": itself,
        "dim": gallery.shape[1],
        "dtype": distributed.DTYPES.index(gallery.dtype),
        "depth": depths[-1],
        "depths": len(depths),
        "chunk_size": chunk_size,
        "normalize": normalize,
    }
    (all_labels,), counts = distributed.gather(call, [gallery_labels.long()], common, "")
    total = torch.tensor([embeddings.shape[0]], device=embeddings.device)
    with distributed.answered(call, ""):
        dist.all_reduce(total)
    elsewhere = (int(total) - embeddings.shape[0], sum(counts) - gallery.shape[0])
    _checks.recall(
        embeddings, labels, depths, None if itself else gallery, gallery_labels if not itself else None, elsewhere
    )

    first = [sum(counts[:other]) for other in range(world)]
    parts = embeddings.split(chunk_size)
    starts = range(first[rank], first[rank] + embeddings.shape[0], chunk_size)
    found = [
        _Found(part, working_dtype(part), depths[-1], normalize, start if itself else None)
        for part, start in zip(parts, starts, strict=False)
    ]
    hits = torch.zeros(len(depths), dtype=torch.int64, device=embeddings.device)
    with without_autocast(embeddings.device), distributed.answered(call, ""):
        for source, count in enumerate(counts):
            for start in range(0, count, chunk_size):
                rows = min(chunk_size, count - start)
                mine = gallery[start : start + rows] if source == rank else gallery.new_empty(rows, gallery.shape[1])
                chunk = mine.contiguous()
                dist.broadcast(chunk, source)
                for each in found:
                    each.meet(chunk, first[source] + start)
        for each, part in zip(found, labels.split(chunk_size), strict=False):
            hit = all_labels[each.rows] == part.unsqueeze(1)
            hits += torch.stack([hit[:, :depth].any(1).sum() for depth in depths])
        dist.all_reduce(hits)
    return {depth: int(number) / int(total) for depth, number in zip(depths, hits, strict=True)}
