"""Problems to test the losses on: hypothesis strategies and fixed generators."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from maskcon_loss import EMPTY, functional

IMPLEMENTATIONS = ("dense", "streamed")


@dataclass(frozen=True)
class Problem:
    """All a loss is computed from. Memory None: the batch is its own memory."""

    query: Tensor
    key: Tensor
    labels: Tensor
    memory: Tensor | None
    memory_labels: Tensor | None
    ids: Tensor | None = None
    memory_ids: Tensor | None = None
    weight: float = 1.0
    temperature: float = 0.1
    target_temperature: float = 0.05

    def loss(self, impl: str, reduction: str = "none", normalize: bool = False) -> Tensor:
        return functional.maskcon(
            self.query, self.key, self.labels, self.memory, self.memory_labels,
            weight=self.weight, temperature=self.temperature, target_temperature=self.target_temperature,
            reduction=reduction, normalize=normalize, impl=impl, sample_ids=self.ids, memory_ids=self.memory_ids,
        )  # fmt: skip

    def to(self, dtype: torch.dtype) -> "Problem":
        memory = None if self.memory is None else self.memory.to(dtype)
        return replace(self, query=self.query.to(dtype), key=self.key.to(dtype), memory=memory)

    def on(self, device: str) -> "Problem":
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def tracked(self) -> "Problem":
        """With leaves that collect gradients."""
        query, key = self.query.detach().clone().requires_grad_(), self.key.detach().clone().requires_grad_()
        memory = None if self.memory is None else self.memory.detach().clone().requires_grad_()
        return replace(self, query=query, key=key, memory=memory)

    def leaves(self) -> list[Tensor]:
        return [self.query, self.key, *([] if self.memory is None else [self.memory])]


def clustered(rows: int, width: int, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Unit vectors around one centre for each label, so that some similarities are high and every term matters."""
    centres = torch.randn(16, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return F.normalize(centres[labels % 16] + 0.7 * noise, dim=1)


def problem(
    rows: int,
    memory_rows: int | None,
    width: int,
    *,
    classes: int = 3,
    seed: int = 0,
    with_ids: bool = False,
    empty: float = 0.0,
    unlabelled: float = 0.0,
    **settings: float,
) -> Problem:
    """A problem in float64; memory_rows None: in the batch."""
    g = torch.Generator().manual_seed(seed)

    def some_labels(count: int) -> Tensor:
        labels = torch.randint(classes, (count,), generator=g)
        return torch.where(
            torch.rand(count, generator=g) < unlabelled, torch.randint(-9, 0, (count,), generator=g), labels
        )

    labels = some_labels(rows)
    query = clustered(rows, width, labels.abs(), g)
    key = F.normalize(query + 0.3 * torch.randn(rows, width, generator=g, dtype=torch.float64), dim=1)
    ids = torch.randint(-2, max(2, rows), (rows,), generator=g) if with_ids else None
    if memory_rows is None:
        return Problem(query, key, labels, None, None, ids, None, **settings)
    memory_labels = some_labels(memory_rows)
    memory = clustered(memory_rows, width, memory_labels.abs(), g)
    memory_labels[torch.rand(memory_rows, generator=g) < empty] = EMPTY
    memory_ids = torch.randint(-2, max(2, rows), (memory_rows,), generator=g) if with_ids else None
    return Problem(query, key, labels, memory, memory_labels, ids, memory_ids, **settings)


weights = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))
temperatures = st.floats(-3.0, 3.0).map(lambda exponent: 10.0**exponent)
target_temperatures = st.one_of(temperatures, st.just(math.inf))
problems = st.builds(
    problem,
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(0, 40)),
    st.integers(1, 12),
    classes=st.sampled_from([1, 2, 3, 12]),
    seed=st.integers(0, 2**31),
    with_ids=st.booleans(),
    empty=st.sampled_from([0.0, 0.3, 1.0]),
    unlabelled=st.sampled_from([0.0, 0.3, 1.0]),
    weight=weights,
    temperature=temperatures,
    target_temperature=target_temperatures,
)
