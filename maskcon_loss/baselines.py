"""The losses that the paper compares with, with the same call as `MaskConLoss`.

Three of them are MaskCon at the ends of its settings, and so they are built: the equations stand in one place.
"""

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from maskcon_loss import _checks, functional, sharded
from maskcon_loss.losses import MaskConLoss


class SelfConLoss(MaskConLoss):
    r"""InfoNCE on the own key alone, as in MoCo: :class:`MaskConLoss` with :math:`w = 0`. Labels change nothing.

    .. math:: L_i = -\log \mathrm{softmax}([q_i k_i, q_i m_1, \dots, q_i m_K] / T)_0

    Args:
        temperature: :math:`T > 0`, in units of cosine similarity.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        normalize: whether query and key are scaled to unit length first.
        impl: ``"auto"``, ``"dense"``, ``"streamed"`` or ``"triton"``, as in :class:`MaskConLoss`.

    Shapes and errors are those of :class:`MaskConLoss`.

    Example:
        >>> import torch
        >>> from maskcon_loss import SelfConLoss
        >>> SelfConLoss()(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))  # log(1 + exp(-1 / 0.1))
        tensor(4.5399e-05)

    Source: van den Oord et al., arXiv 1807.03748, eq. (4); He et al., *MoCo*, CVPR 2020, eq. (1).
    """

    def __init__(
        self, *, temperature: float = 0.1, reduction: str = "mean", normalize: bool = True, impl: str = "auto"
    ) -> None:
        super().__init__(0.0, temperature=temperature, reduction=reduction, normalize=normalize, impl=impl)


class GrafitLoss(MaskConLoss):
    r"""A mixture of SupCon and SelfCon: :class:`MaskConLoss` with :math:`T' = \infty`.

    .. math:: L = w \, L_{\mathrm{SupCon}} + (1 - w) \, L_{\mathrm{SelfCon}}

    Args:
        weight: :math:`w` in [0, 1]; 0 is SelfCon, 1 is SupCon.
        temperature: :math:`T > 0`, in units of cosine similarity.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        normalize: whether query and key are scaled to unit length first.
        impl: ``"auto"``, ``"dense"``, ``"streamed"`` or ``"triton"``, as in :class:`MaskConLoss`.

    Shapes and errors are those of :class:`MaskConLoss`.

    Example:
        >>> import torch
        >>> from maskcon_loss import GrafitLoss
        >>> GrafitLoss(weight=0.5)(torch.eye(2), torch.eye(2), torch.tensor([0, 0]))  # half of SupCon's
        tensor(2.5000)

    Source: Touvron et al., *Grafit: Learning Fine-Grained Image Representations with Coarse Labels*, ICCV 2021, as Feng
    and Patras compare with it.
    """

    def __init__(
        self,
        weight: float = 0.5,
        *,
        temperature: float = 0.1,
        reduction: str = "mean",
        normalize: bool = True,
        impl: str = "auto",
    ) -> None:
        super().__init__(
            weight,
            temperature=temperature,
            target_temperature=math.inf,
            reduction=reduction,
            normalize=normalize,
            impl=impl,
        )


class SupConLoss(GrafitLoss):
    r"""The own key and every memory key of the class as equal positives: :class:`GrafitLoss` with :math:`w = 1`.

    .. math::

        P_i = \{j : y_j = y_i\}, \quad
        L_i = -\frac{1}{1 + |P_i|} \sum_{j \in \{0\} \cup P_i} \log \mathrm{softmax}([q_i k_i, q_i m_1, \dots] / T)_j

    The mean stands outside the logarithm. Trained on fine labels this is the paper's ceiling, SupFINE.

    Args:
        temperature: :math:`T > 0`, in units of cosine similarity.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        normalize: whether query and key are scaled to unit length first.
        impl: ``"auto"``, ``"dense"``, ``"streamed"`` or ``"triton"``, as in :class:`MaskConLoss`.

    Shapes and errors are those of :class:`MaskConLoss`.

    Example:
        >>> import torch
        >>> from maskcon_loss import SupConLoss
        >>> SupConLoss()(torch.eye(2), torch.eye(2), torch.tensor([0, 0]))  # the mean of 4.54e-05 and 10
        tensor(5.0000)

    Source: Khosla et al., *Supervised Contrastive Learning*, NeurIPS 2020, eq. (2).
    """

    def __init__(
        self, *, temperature: float = 0.1, reduction: str = "mean", normalize: bool = True, impl: str = "auto"
    ) -> None:
        super().__init__(1.0, temperature=temperature, reduction=reduction, normalize=normalize, impl=impl)


class CoInsLoss(nn.Module):
    r"""A mixture of coarse classification and SelfCon.

    .. math:: L = w \, \mathrm{CE}(\mathrm{logits}, y) + (1 - w) \, L_{\mathrm{SelfCon}}

    Args:
        weight: :math:`w` in [0, 1]; 0 is SelfCon, 1 is cross-entropy on the coarse labels (SupCE).
        temperature: :math:`T > 0` of SelfCon, in units of cosine similarity.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        normalize: whether query and key are scaled to unit length first.
        impl: ``"auto"``, ``"dense"``, ``"streamed"`` or ``"triton"``, as in :class:`MaskConLoss`.

    Shapes and errors are those of :class:`MaskConLoss`, and logits: (B, C), a classifier's scores for coarse classes
    0 to C-1. An unlabelled row is a SelfCon row.

    Example:
        >>> import torch
        >>> from maskcon_loss import CoInsLoss
        >>> CoInsLoss(weight=1.0)(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), logits=torch.zeros(2, 2))
        tensor(0.6931)

    Source: Xu et al., *Weakly Supervised Representation Learning with Coarse Labels*, ICCV 2021, as Feng and Patras
    compare with it.
    """

    def __init__(
        self,
        weight: float = 0.5,
        *,
        temperature: float = 0.1,
        reduction: str = "mean",
        normalize: bool = True,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        _checks.settings(reduction, normalize, impl, weight, temperature)
        self.weight = float(weight)
        self.temperature = float(temperature)
        self.reduction = reduction
        self.normalize = normalize
        self.impl = impl

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        coarse_labels: Tensor,
        queue: object = None,
        *,
        logits: Tensor | None = None,
        sample_ids: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch against a queue; see the class."""
        if sharded.is_shard(queue):
            return sharded.coins(
                query, key, coarse_labels, queue,
                logits=logits, weight=self.weight, temperature=self.temperature, reduction=self.reduction,
                normalize=self.normalize, impl=self.impl, sample_ids=sample_ids,
            )  # fmt: skip
        keys, labels, ids = _checks.memory_of(queue)
        return functional.coins(
            query, key, coarse_labels, keys, labels,
            logits=logits, weight=self.weight, temperature=self.temperature, reduction=self.reduction,
            normalize=self.normalize, impl=self.impl, sample_ids=sample_ids, memory_ids=ids,
        )  # fmt: skip

    if TYPE_CHECKING:  # torch leaves the call of a module untyped

        def __call__(
            self,
            query: Tensor,
            key: Tensor,
            coarse_labels: Tensor,
            queue: object = None,
            *,
            logits: Tensor | None = None,
            sample_ids: Tensor | None = None,
        ) -> Tensor: ...

    def extra_repr(self) -> str:
        return (
            f"weight={self.weight}, temperature={self.temperature}, reduction={self.reduction!r}, "
            f"normalize={self.normalize}, impl={self.impl!r}"
        )
