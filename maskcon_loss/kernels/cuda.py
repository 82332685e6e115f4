"""The loss and its gradient on CUDA, in two or three launches: which tiles, how many programs, in which order.

A row's keys are split among several programs where there are few rows. Every program writes its own part, and the parts
are joined in a fixed order: nothing waits for another, and every run gives the same bits.

Shapes: B rows in the batch, K rows in the memory, D features, P parts of the keys.
"""
# A kernel's launch takes options that its signature does not show.
# pyright: reportCallIssue=false, reportIndexIssue=false

import math
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from maskcon_loss._batch import Batch
from maskcon_loss.kernels.triton import finish_kernel, sums_kernel


class Tile(NamedTuple):
    """How a program works: rows and keys in a tile, columns of a product's slice, warps, and stages of loading."""

    rows: int
    keys: int
    columns: int
    warps: int
    stages: int


#: By the kind of numbers and the width of the vectors, what fits into registers and shared memory from sm_80 on, as
#: `tests/cross_compile.py` proves. Static, as a search would take seconds and end differently on each rank.
TILES = {
    "16 bits": {64: Tile(128, 64, 64, 8, 3), 128: Tile(64, 64, 128, 8, 2), 256: Tile(64, 64, 256, 8, 2),
                512: Tile(32, 32, 512, 8, 2)},
    "tf32": {64: Tile(64, 32, 64, 8, 2), 128: Tile(64, 32, 128, 8, 2), 256: Tile(32, 32, 256, 8, 2),
             512: Tile(32, 16, 64, 8, 2)},
    "tf32x3": {64: Tile(32, 32, 32, 4, 2), 128: Tile(64, 32, 16, 8, 2), 256: Tile(32, 32, 16, 8, 2),
               512: Tile(16, 16, 32, 8, 2)},
}  # fmt: skip
SORT_FROM = 1024  # rows; from here the targets' keys are sorted, so that each row meets its own class alone
PARTS_AT_ONCE = 16  # of a row that the last kernel holds


def contrast(
    batch: Batch, weight: float, temperature: float, target_temperature: float, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `streamed.contrast` returns, for query, key and memory of one precision."""
    width = batch.query.shape[1]
    aligned = {name: _aligned(getattr(batch, name)) for name in ("query", "key", "memory")}
    with torch.cuda.device_of(batch.query):  # where Triton launches
        loss_B, by_query_BD, by_own_B, statistics_B4 = _contrast(
            batch._replace(**aligned), weight, temperature, target_temperature, with_gradient
        )
    return loss_B, by_query_BD[:, :width].contiguous(), by_own_B, statistics_B4


def _contrast(
    batch: Batch, weight: float, temperature: float, target_temperature: float, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (rows, width), device = batch.query.shape, batch.query.device
    loss_B, by_own_B = torch.empty(rows, device=device), torch.empty(rows, device=device)
    by_query_BD = torch.empty(rows if with_gradient else 0, width, device=device)
    statistics_B4 = torch.empty(rows, 4, device=device)
    if not rows:
        return loss_B, by_query_BD, by_own_B, statistics_B4
    logits = _sums(batch, batch.query, temperature, None, own_class=False, pull=with_gradient)
    similar, order = logits, None
    if weight > 0:
        order = batch.labels.argsort() if rows >= SORT_FROM else None
        similar = _sums(batch, batch.key, target_temperature, order, own_class=True, pull=True)
    finish_kernel[(rows,)](
        batch.query, batch.key, *logits, logits[0].shape[0], *similar, similar[0].shape[0],
        None if order is None else order.argsort(),
        loss_B, by_query_BD, by_own_B, statistics_B4, rows, batch.query.stride(0), batch.key.stride(0),
        weight, temperature, D=width, WIDTH=padded(width), P=PARTS_AT_ONCE,
        HAS_TARGETS=weight > 0, SORTED=order is not None, GRADIENT=with_gradient, num_warps=4,
    )  # fmt: skip
    return loss_B, by_query_BD, by_own_B, statistics_B4


def _aligned(vectors: Tensor) -> Tensor:
    """The vectors row by row, each at a multiple of 16 numbers, as loads of 16 bytes need it; copied only if not so."""
    vectors = F.pad(vectors, (0, -vectors.shape[1] % 16))
    return vectors if vectors.stride(1) == 1 and vectors.stride(0) % 16 == 0 else vectors.contiguous()


def _sums(
    batch: Batch, vectors_BD: Tensor, temperature: float, order_B: Tensor | None, own_class: bool, pull: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Tops, totals and pulls (P, B), (P, B), (P, B, D) of vectors . memory / temperature; in that order of the rows."""
    precision = _precision(batch.memory.dtype)
    (rows, width), device = vectors_BD.shape, vectors_BD.device
    tile = TILES[precision][max(64, padded(width))]
    spans = None
    if order_B is not None:
        batch, spans = _sorted(batch, order_B, tile.rows)
        vectors_BD = vectors_BD.index_select(0, order_B)
    keys = batch.memory.shape[0]
    tiles = triton.cdiv(rows, tile.rows)
    parts = _parts(tiles, triton.cdiv(keys, tile.keys), device)
    tops_PB, totals_PB = torch.empty(2, parts, rows, device=device).unbind()
    pulls_PBD = torch.empty(parts, rows if pull else 0, width, device=device)
    has_ids = batch.ids is not None and batch.memory_ids is not None
    sums_kernel[(tiles, parts)](
        vectors_BD, batch.labels, batch.ids, batch.own_rows, batch.memory, batch.memory_labels, batch.memory_ids, spans,
        tops_PB, totals_PB, pulls_PBD, rows, keys, vectors_BD.stride(0), batch.memory.stride(0),
        math.log2(math.e) / temperature, D=width, WIDTH=padded(width), SLICE=min(tile.columns, padded(width)),
        R=tile.rows, C=tile.keys, PRECISION="tf32" if precision == "16 bits" else precision,
        LIFT=15 if batch.memory.dtype == torch.float16 else 0, PULL=pull, OWN_CLASS=own_class,
        SORTED=spans is not None, HAS_IDS=has_ids, IN_BATCH=batch.own_rows is not None,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return tops_PB, totals_PB, pulls_PBD


def _sorted(batch: Batch, order_B: Tensor, tile_rows: int) -> tuple[Batch, Tensor]:
    """The batch in that order beside its memory in the order of the labels, and which keys each tile of rows meets."""
    labels_B = batch.labels.index_select(0, order_B)
    labels_K, order_K = batch.memory_labels.sort()
    last = torch.arange(tile_rows - 1, labels_B.shape[0] + tile_rows - 1, tile_rows, device=labels_B.device)
    last = labels_B[last.clamp_(max=labels_B.shape[0] - 1)]
    first = torch.searchsorted(labels_K, labels_B[::tile_rows].clamp(min=0))  # an unlabelled row has no class
    end = torch.searchsorted(labels_K, last, right=True)
    own_rows = None
    if batch.own_rows is not None:
        own_rows = torch.empty_like(order_K).scatter_(0, order_K, torch.arange(len(order_K), device=order_K.device))
        own_rows = own_rows.index_select(0, batch.own_rows.index_select(0, order_B))
    batch = batch._replace(
        labels=labels_B,
        ids=None if batch.ids is None else batch.ids.index_select(0, order_B),
        own_rows=own_rows,
        memory=batch.memory.index_select(0, order_K),
        memory_labels=labels_K,
        memory_ids=None if batch.memory_ids is None else batch.memory_ids.index_select(0, order_K),
    )
    return batch, torch.stack([first, torch.maximum(first, end)], dim=1)


def _parts(tiles: int, key_tiles: int, device: torch.device) -> int:
    """Into how many parts the keys are split, so that the programs fill whole waves of processors."""
    processors = _processors(device)
    most = max(1, min(key_tiles, 2 * processors // tiles))
    return min(range(1, most + 1), key=lambda parts: -(-tiles * parts // processors) / parts + 0.01 * parts)


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def _precision(dtype: torch.dtype) -> str:
    """The kind of numbers that are multiplied; float32 as `torch.set_float32_matmul_precision` says."""
    if dtype != torch.float32:
        return "16 bits"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def padded(width: int) -> int:
    """The power of two that holds this many columns; a product needs 16."""
    return max(16, triton.next_power_of_2(width))
