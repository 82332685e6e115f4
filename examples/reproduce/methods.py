"""The paper's seven methods: a loss each, and which labels it is told. Nothing else differs between them."""

from typing import NamedTuple

from torch import Tensor

from examples.reproduce.settings import Settings
from maskcon_loss import CoInsLoss, GrafitLoss, MaskConLoss, MemoryQueue, SelfConLoss, SupConLoss


class Views(NamedTuple):
    """What the encoders make of a batch, and what is known about it."""

    query: Tensor  # (B, D) projections of the strong view
    key: Tensor  # (B, D) projections of the weak view, by the momentum encoder
    logits: Tensor  # (B, C) the classifier's scores of the strong view
    labels: Tensor  # (B,) coarse, or fine for SupFINE
    ids: Tensor  # (B,) the images' numbers: an image never meets its own stale key


def criterion(settings: Settings) -> MaskConLoss | CoInsLoss:
    """The loss of a method."""
    weight, temperature = settings.weight, settings.temperature
    match settings.method:
        case "SelfCon":
            return SelfConLoss(temperature=temperature)
        case "SupCE":
            return CoInsLoss(1.0, temperature=temperature)  # the classifier's cross-entropy alone
        case "SupCon" | "SupFINE":
            return SupConLoss(temperature=temperature)
        case "Grafit":
            return GrafitLoss(weight, temperature=temperature)
        case "CoIns":
            return CoInsLoss(weight, temperature=temperature)
        case _:
            return MaskConLoss(weight, temperature=temperature, target_temperature=settings.target_temperature)


def loss_of(loss: MaskConLoss | CoInsLoss, views: Views, queue: MemoryQueue) -> Tensor:
    """The loss of a batch against the queue; the classifying methods get the scores as well."""
    scores = {"logits": views.logits.float()} if isinstance(loss, CoInsLoss) else {}
    return loss(views.query, views.key, views.labels, queue, sample_ids=views.ids, **scores)


def told(settings: Settings) -> str:
    """Which labels the method is trained on."""
    return "fine" if settings.method == "SupFINE" else "coarse"
