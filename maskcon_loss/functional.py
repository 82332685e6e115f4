r"""The paper's equations in plain PyTorch, in the paper's order, and the losses as functions.

Every other implementation of this package is tested against the equations as they stand here, in float64.

Shapes: B rows in the batch, K rows in the memory, D features; N = 1 + K columns, of which column 0 is the own key.

With unit vectors :math:`q_i` (query), :math:`k_i` (key of the same image) and :math:`m_j` (memory keys), coarse labels
:math:`y`, weight :math:`w`, temperature :math:`T` and target temperature :math:`T'`:

.. math::

    z_{i0} &= 1, \qquad
    z_{ij} = [y_i = y_j] \, \exp\Bigl(\bigl(k_i m_j - \max_{l:\, y_l = y_i} k_i m_l\bigr) / T'\Bigr)       & (1) \\
    t_i &= w \, z_i \big/ \textstyle\sum_j z_{ij} + (1 - w) \, \mathrm{onehot}(0)                           & (2) \\
    L_i &= -\textstyle\sum_j t_{ij} \, \log \mathrm{softmax}([q_i k_i, q_i m_1, \dots, q_i m_K] / T)_j      & (3)

Equation (1) is the paper's masked softmax (its eq. 11) divided by its own maximum (eq. 13). The softmax's denominator
cancels, so nothing is divided by zero: a row whose class is absent from the memory keeps its own key as only positive.

Source: Feng and Patras, *MaskCon: Masked Contrastive Learning for Coarse-Labelled Dataset*, CVPR 2023,
arXiv 2303.12756.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from maskcon_loss import _checks, ops
from maskcon_loss._batch import Batch, arrange
from maskcon_loss._precision import without_autocast, working_dtype

# ---------------------------------------------------------------------------------------------------- the equations


def soft_targets(
    key_BD: Tensor, memory_KD: Tensor, same_BK: Tensor, weight: float, target_temperature: float
) -> Tensor:
    """Eq. (1) and (2), (B, N): how the unit of positive mass of each row is shared out. Detached."""
    with torch.no_grad():
        similarity_BK = key_BD @ memory_KD.mT
        lowest = torch.finfo(similarity_BK.dtype).min
        nearest_B1 = F.pad(similarity_BK.masked_fill(~same_BK, lowest), (1, 0), value=lowest).amax(1, keepdim=True)
        z_BK = torch.exp((similarity_BK - nearest_B1) / target_temperature).masked_fill(~same_BK, 0.0)
        z_BN = F.pad(z_BK, (1, 0), value=1.0)
        own_BN = F.pad(torch.zeros_like(z_BK), (1, 0), value=1.0)
        return weight * z_BN / z_BN.sum(1, keepdim=True) + (1.0 - weight) * own_BN


def logits(query_BD: Tensor, key_BD: Tensor, memory_KD: Tensor, seen_BK: Tensor, temperature: float) -> Tensor:
    """The logits in eq. (3), (B, N), minus infinity where a memory row is not seen."""
    own_B1 = (query_BD * key_BD).sum(1, keepdim=True)
    memory_BK = (query_BD @ memory_KD.mT).masked_fill(~seen_BK, -math.inf)
    return torch.cat([own_B1, memory_BK], dim=1) / temperature


def soft_cross_entropy(logits_BN: Tensor, targets_BN: Tensor) -> Tensor:
    """Eq. (3), (B,). A column at minus infinity holds no target and adds nothing."""
    log_softmax_BN = F.log_softmax(logits_BN, dim=1).masked_fill(logits_BN == -math.inf, 0.0)
    return -(targets_BN * log_softmax_BN).sum(1)


# --------------------------------------------------------------------------------------- the losses, as functions


def maskcon(
    query: Tensor,
    key: Tensor,
    coarse_labels: Tensor,
    memory_keys: Tensor | None,
    memory_labels: Tensor | None,
    *,
    weight: float = 1.0,
    temperature: float = 0.1,
    target_temperature: float = 0.05,
    reduction: str = "mean",
    normalize: bool = True,
    impl: str = "auto",
    sample_ids: Tensor | None = None,
    memory_ids: Tensor | None = None,
) -> Tensor:
    """Masked contrastive loss on coarse labels, eq. (1) to (3); as a module: :class:`maskcon_loss.MaskConLoss`.

    Args:
        query: (B, D) features of the encoder that is trained.
        key: (B, D) features of the same images from the key encoder; row i is the own key of query row i. If it
            requires a gradient it gets one through the logits, never through the targets.
        coarse_labels: (B,) integers. A negative one means unlabelled: that row is a SelfCon row.
        memory_keys: (K, D) features to compare with, taken as they are (a :class:`maskcon_loss.MemoryQueue` stores
            them at unit length). None, with ``memory_labels`` None: the other keys of the batch are the memory.
        memory_labels: (K,) integers, ``EMPTY`` where a row does not exist, any other negative one for unlabelled.
        weight: :math:`w` in [0, 1]: 0 ignores the coarse labels (SelfCon), 1 relies on them.
        temperature: :math:`T > 0` of the logits (the paper's tau_0), in units of cosine similarity.
        target_temperature: :math:`T' > 0` of the targets (the paper's tau), in the same unit. ``math.inf`` shares
            the positive mass equally.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the B rows.
        normalize: whether query and key are first scaled to unit length. Zero rows stay zero.
        impl: ``"dense"`` (the equations above), ``"streamed"`` (no B x K matrix, any device), ``"triton"`` (fused
            kernels on CUDA) or ``"auto"``, the fastest of the last two that runs here.
        sample_ids: (B,) integers that name the images. A memory row with the same non-negative id is left out.
        memory_ids: (K,) integers, the ids of the memory rows.

    Returns:
        The loss in nats, a scalar, or (B,) with ``reduction="none"``; float64 if an input is, else float32.

    Raises:
        TypeError, ValueError: wrong input, in a sentence that says what came, what is needed and what to type.

    Example:
        >>> import torch
        >>> from torch.nn.functional import normalize
        >>> from maskcon_loss.functional import maskcon
        >>> _ = torch.manual_seed(0)
        >>> query, key, memory = torch.randn(4, 8), torch.randn(4, 8), torch.randn(16, 8)
        >>> loss = maskcon(query, key, torch.tensor([0, 1, 0, 1]), normalize(memory), torch.arange(16) % 2)
        >>> loss.shape, bool(loss > 0)
        (torch.Size([]), True)

    Source: Feng and Patras, CVPR 2023, eq. (9) to (13).
    """
    _checks.settings(reduction, normalize, impl, weight, temperature, target_temperature)
    _checks.batch(query, key, coarse_labels, sample_ids)
    _checks.memory(query, memory_keys, memory_labels, memory_ids, sample_ids)
    _checks.implementation(impl, query, key, memory_keys)
    _checks.mean_of_nothing(query, reduction)
    with without_autocast(query.device):
        batch = arrange(query, key, coarse_labels, memory_keys, memory_labels, sample_ids, memory_ids, normalize)
        if impl == "dense":
            loss_B = _dense(batch, weight, temperature, target_temperature)
        else:
            loss_B = ops.contrast(batch, weight, temperature, target_temperature, ops.choose(impl, batch))
        return _reduce(loss_B, reduction)


def selfcon(
    query: Tensor,
    key: Tensor,
    coarse_labels: Tensor,
    memory_keys: Tensor | None,
    memory_labels: Tensor | None,
    *,
    temperature: float = 0.1,
    reduction: str = "mean",
    normalize: bool = True,
    impl: str = "auto",
    sample_ids: Tensor | None = None,
    memory_ids: Tensor | None = None,
) -> Tensor:
    """InfoNCE on the own key, as in MoCo: :func:`maskcon` with w = 0; as a module :class:`maskcon_loss.SelfConLoss`.

    Arguments, result and errors are those of :func:`maskcon`. ``coarse_labels`` change nothing.

    Source: van den Oord et al., arXiv 1807.03748, eq. (4); He et al., CVPR 2020, eq. (1).
    """
    return maskcon(
        query, key, coarse_labels, memory_keys, memory_labels,
        weight=0.0, temperature=temperature, reduction=reduction, normalize=normalize, impl=impl,
        sample_ids=sample_ids, memory_ids=memory_ids,
    )  # fmt: skip


def supcon(
    query: Tensor,
    key: Tensor,
    coarse_labels: Tensor,
    memory_keys: Tensor | None,
    memory_labels: Tensor | None,
    *,
    temperature: float = 0.1,
    reduction: str = "mean",
    normalize: bool = True,
    impl: str = "auto",
    sample_ids: Tensor | None = None,
    memory_ids: Tensor | None = None,
) -> Tensor:
    """Own key and all same-class keys as equal positives: :func:`grafit` with w = 1; as a module
    :class:`maskcon_loss.SupConLoss`.

    Arguments, result and errors are those of :func:`maskcon`.

    Source: Khosla et al., NeurIPS 2020, eq. (2), the mean outside the logarithm.
    """
    return grafit(
        query, key, coarse_labels, memory_keys, memory_labels,
        weight=1.0, temperature=temperature, reduction=reduction, normalize=normalize, impl=impl,
        sample_ids=sample_ids, memory_ids=memory_ids,
    )  # fmt: skip


def grafit(
    query: Tensor,
    key: Tensor,
    coarse_labels: Tensor,
    memory_keys: Tensor | None,
    memory_labels: Tensor | None,
    *,
    weight: float = 0.5,
    temperature: float = 0.1,
    reduction: str = "mean",
    normalize: bool = True,
    impl: str = "auto",
    sample_ids: Tensor | None = None,
    memory_ids: Tensor | None = None,
) -> Tensor:
    """The mixture w SupCon + (1 - w) SelfCon: :func:`maskcon` with T' infinite; as a module
    :class:`maskcon_loss.GrafitLoss`.

    Arguments, result and errors are those of :func:`maskcon`.

    Source: Touvron et al., *Grafit: Learning Fine-Grained Image Representations with Coarse Labels*, ICCV 2021, as
    Feng and Patras compare with it.
    """
    return maskcon(
        query, key, coarse_labels, memory_keys, memory_labels,
        weight=weight, temperature=temperature, target_temperature=math.inf, reduction=reduction,
        normalize=normalize, impl=impl, sample_ids=sample_ids, memory_ids=memory_ids,
    )  # fmt: skip


def coins(
    query: Tensor,
    key: Tensor,
    coarse_labels: Tensor,
    memory_keys: Tensor | None,
    memory_labels: Tensor | None,
    *,
    logits: Tensor | None,
    weight: float = 0.5,
    temperature: float = 0.1,
    reduction: str = "mean",
    normalize: bool = True,
    impl: str = "auto",
    sample_ids: Tensor | None = None,
    memory_ids: Tensor | None = None,
) -> Tensor:
    """The mixture w cross-entropy(logits, coarse label) + (1 - w) SelfCon; as a module :class:`maskcon_loss.CoInsLoss`.

    ``logits`` are a classifier's (B, C) scores for the coarse classes 0 to C-1. An unlabelled row is a SelfCon row.
    The other arguments, result and errors are those of :func:`maskcon`.

    Source: Xu et al., *Weakly Supervised Representation Learning with Coarse Labels*, ICCV 2021, as Feng and Patras
    compare with it.
    """
    _checks.settings(reduction, normalize, impl, weight, temperature)
    _checks.batch(query, key, coarse_labels, sample_ids)
    scores = _checks.class_logits(logits, coarse_labels)
    _checks.mean_of_nothing(query, reduction)
    selfcon_B = selfcon(
        query, key, coarse_labels, memory_keys, memory_labels,
        temperature=temperature, reduction="none", normalize=normalize, impl=impl,
        sample_ids=sample_ids, memory_ids=memory_ids,
    )  # fmt: skip
    with without_autocast(query.device):
        labelled = coarse_labels >= 0
        class_labels = torch.where(labelled, coarse_labels, 0).long()
        scores = scores.to(working_dtype(scores, selfcon_B))
        cross_entropy_B = F.cross_entropy(scores, class_labels, reduction="none")
        mixed_B = weight * cross_entropy_B + (1.0 - weight) * selfcon_B
        return _reduce(torch.where(labelled, mixed_B, selfcon_B), reduction)


def coarse_mask_soft_targets(
    key: Tensor,
    coarse_labels: Tensor,
    memory_keys: Tensor | None,
    memory_labels: Tensor | None,
    *,
    weight: float = 1.0,
    target_temperature: float = 0.05,
    normalize: bool = True,
    sample_ids: Tensor | None = None,
    memory_ids: Tensor | None = None,
) -> Tensor:
    """The targets of eq. (2), (B, 1+K), detached; as a module :class:`maskcon_loss.CoarseMaskSoftTargets`.

    Column 0 is the own key, column 1+j memory row j; rows sum to 1. The arguments are those of :func:`maskcon`.

    Example:
        >>> import torch
        >>> from maskcon_loss.functional import coarse_mask_soft_targets
        >>> key, memory = torch.eye(2), torch.eye(2)
        >>> labels, memory_labels = torch.tensor([0, 1]), torch.tensor([0, 0])
        >>> coarse_mask_soft_targets(key, labels, memory, memory_labels, weight=0.8, target_temperature=1.0)
        tensor([[0.5379, 0.3379, 0.1243],
                [1.0000, 0.0000, 0.0000]])

    Source: Feng and Patras, CVPR 2023, eq. (11) to (13).
    """
    _checks.settings("none", normalize, "auto", weight, target_temperature=target_temperature)
    _checks.batch(None, key, coarse_labels, sample_ids)
    _checks.memory(key, memory_keys, memory_labels, memory_ids, sample_ids)
    with without_autocast(key.device):
        batch = arrange(key, key, coarse_labels, memory_keys, memory_labels, sample_ids, memory_ids, normalize)
        same = batch.same_class(batch.seen())
        return soft_targets(batch.key, batch.memory_vectors(), same, weight, target_temperature)


def _dense(batch: Batch, weight: float, temperature: float, target_temperature: float) -> Tensor:
    """Eq. (1) to (3) as they stand, (B,), differentiated by autograd."""
    seen, memory_KD = batch.seen(), batch.memory_vectors()
    targets_BN = soft_targets(batch.key, memory_KD, batch.same_class(seen), weight, target_temperature)
    return soft_cross_entropy(logits(batch.query, batch.key, memory_KD, seen, temperature), targets_BN)


def _reduce(loss_B: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss_B
    return loss_B.sum() if reduction == "sum" else loss_B.mean()
