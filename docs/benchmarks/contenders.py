"""What is compared: the inputs of a case, and the losses that take one step on them.

Shapes: B rows in the batch, K rows in the memory, D features.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from flex import flex_maskcon
from torch import Tensor

from maskcon_loss import MaskConLoss, MemoryQueue, SelfConLoss

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from oracle import published_steps  # the baseline that the tests hold us against

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WEIGHT, TEMPERATURE, TARGET_TEMPERATURE = 1.0, 0.1, 0.05
SETTINGS: dict[str, Any] = {"weight": WEIGHT, "temperature": TEMPERATURE, "target_temperature": TARGET_TEMPERATURE}


class Kind(NamedTuple):
    """What a case differs by from the plain one."""

    classes: int = 20
    zipf: bool = False  # class c is drawn with a probability in proportion to 1 / c
    memory_dtype: torch.dtype | None = None  # None: as query and key
    sample_ids: bool = False
    unlabelled_rows: bool = False  # half of the batch and half of the memory


KINDS = {
    "plain": Kind(),
    "1-class": Kind(classes=1),
    "1000-classes": Kind(classes=1000),
    "zipf-classes": Kind(classes=100, zipf=True),
    "float16-memory": Kind(memory_dtype=torch.float16),
    "bfloat16-memory": Kind(memory_dtype=torch.bfloat16),
    "sample-ids": Kind(sample_ids=True),
    "unlabelled": Kind(unlabelled_rows=True),
}


class Case(NamedTuple):
    """The name of a kind, the sizes, and the precision of query and key."""

    kind: str
    rows: int
    memory: int
    dim: int
    dtype: torch.dtype


class Inputs:
    """The tensors of a case, the same for all contenders."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        kind = KINDS[case.kind]
        self.raw_key = torch.randn(case.rows, case.dim, device=DEVICE).to(case.dtype)
        self.query = F.normalize(torch.randn(case.rows, case.dim, device=DEVICE)).to(case.dtype).requires_grad_()
        self.key = F.normalize(self.raw_key)
        self.labels = draw_labels(case.rows, kind)
        self.queue = MemoryQueue(case.memory, case.dim, dtype=kind.memory_dtype or case.dtype, device=DEVICE)
        keys = torch.randn(case.memory, case.dim, device=DEVICE)
        ids = torch.arange(case.memory, device=DEVICE) if kind.sample_ids else None
        self.queue.enqueue(keys, draw_labels(case.memory, kind), ids)
        self.ids = torch.randperm(case.memory, device=DEVICE)[: case.rows] if kind.sample_ids else None

    def memory(self) -> Tensor:
        """The memory in the precision of the query, as products in plain PyTorch need it."""
        return self.queue.keys.to(self.query.dtype)


def draw_labels(rows: int, kind: Kind) -> Tensor:
    chances = 1.0 / torch.arange(1, kind.classes + 1) if kind.zipf else torch.ones(kind.classes)
    labels = torch.multinomial(chances, rows, replacement=True)
    if kind.unlabelled_rows:
        labels = labels.masked_fill(torch.rand(rows) < 0.5, -1)
    return labels.to(DEVICE)


class Contender(NamedTuple):
    """One of those compared."""

    name: str
    computes: str  # which loss
    matrices: float  # about how many B x K matrices of float32 a step takes, to skip what cannot fit
    make: Callable[[], Callable[[], Tensor]]  # returns the function that returns the loss
    cannot: tuple[str, ...] = ()  # the fields of Kind that it has no way to express


def contenders(inputs: Inputs) -> list[Contender]:
    query, key, labels, queue = inputs.query, inputs.key, inputs.labels, inputs.queue
    blind = ("sample_ids", "unlabelled_rows")

    def published(function: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return lambda: function(query, key, labels, inputs.memory(), queue.labels, **SETTINGS)

    def ours(criterion: torch.nn.Module) -> Callable[[], Tensor]:
        return lambda: criterion(query, key, labels, queue, sample_ids=inputs.ids)

    def compiled() -> Callable[[], Tensor]:
        return published(torch.compile(published_steps, dynamic=False))

    found = [
        Contender("published steps", "MaskCon", 10, lambda: published(published_steps), blind),
        Contender("published steps, torch.compile", "MaskCon", 6, compiled, blind),
        Contender("ours, dense", "MaskCon", 10, lambda: ours(MaskConLoss(**SETTINGS, impl="dense"))),
        Contender("ours, streamed", "MaskCon", 0, lambda: ours(MaskConLoss(**SETTINGS, impl="streamed"))),
        Contender("plain InfoNCE", "SelfCon", 5, lambda: lambda: info_nce(inputs), ("sample_ids",)),
        Contender("ours, SelfConLoss", "SelfCon", 0, lambda: ours(SelfConLoss(temperature=TEMPERATURE))),
    ]
    if DEVICE.type == "cuda":

        def flex() -> Callable[[], Tensor]:
            from torch.nn.attention.flex_attention import flex_attention

            attend: Any = torch.compile(flex_attention, dynamic=False)
            return lambda: flex_maskcon(
                query, key, labels, inputs.memory(), queue.labels, attend=attend, **SETTINGS
            ).mean()

        found += [
            Contender("ours, triton", "MaskCon", 0, lambda: ours(MaskConLoss(**SETTINGS, impl="triton"))),
            Contender("FlexAttention, two passes", "MaskCon", 0, flex, ("sample_ids",)),
        ]
    if importlib.util.find_spec("pytorch_metric_learning"):
        supcon = Contender("pytorch-metric-learning SupCon", "SupCon", 20, lambda: metric_learning(inputs), blind)
        found.append(supcon)
    if importlib.util.find_spec("lightly") and importlib.util.find_spec("torchvision"):
        found.append(Contender("lightly NTXent", "SelfCon", 5, lambda: lightly(inputs), ("sample_ids",)))
    return found


def info_nce(inputs: Inputs) -> Tensor:
    """The loss of MoCo as it is usually written."""
    own_B1 = (inputs.query * inputs.key).sum(1, keepdim=True)
    logits_BN = torch.cat([own_B1, inputs.query @ inputs.memory().T], dim=1) / TEMPERATURE
    return F.cross_entropy(logits_BN, torch.zeros(len(logits_BN), dtype=torch.long, device=DEVICE))


def metric_learning(inputs: Inputs) -> Callable[[], Tensor]:
    from pytorch_metric_learning.losses import SupConLoss

    query, labels, queue = inputs.query, inputs.labels, inputs.queue
    own = torch.eye(len(query), dtype=torch.bool, device=DEVICE)
    same = torch.cat([own, labels[:, None] == queue.labels], 1)
    other = torch.cat([torch.zeros_like(own), labels[:, None] != queue.labels], 1)
    pairs = (*same.nonzero(as_tuple=True), *other.nonzero(as_tuple=True))
    keys, key_labels = torch.cat([inputs.key, inputs.memory()]), torch.cat([labels, queue.labels])
    criterion = SupConLoss(TEMPERATURE)
    return lambda: criterion(query, labels, indices_tuple=pairs, ref_emb=keys, ref_labels=key_labels)


def lightly(inputs: Inputs) -> Callable[[], Tensor]:
    from lightly.loss.ntx_ent_loss import NTXentLoss  # pyright: ignore[reportMissingImports]

    criterion = NTXentLoss(TEMPERATURE, memory_bank_size=tuple(inputs.queue.keys.shape)).to(DEVICE)
    criterion(inputs.query.detach(), inputs.key)  # makes its bank
    return lambda: criterion(inputs.query, inputs.key)
