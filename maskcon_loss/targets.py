"""The soft targets on their own, to look at or to use in another loss."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from maskcon_loss import _checks, functional


class CoarseMaskSoftTargets(nn.Module):
    r"""How MaskCon shares out the positive mass of each row: :math:`t_i` of :class:`MaskConLoss`.

    .. math::

        z_{i0} &= 1, \quad z_{ij} = [y_i = y_j] \exp\frac{k_i m_j - \max_{l: y_l = y_i} k_i m_l}{T'} \\
        t_i &= w \frac{z_i}{\sum_j z_{ij}} + (1 - w) \, \mathrm{onehot}(0)

    Args:
        weight: :math:`w` in [0, 1], the share of the coarse class.
        target_temperature: :math:`T' > 0`, in units of cosine similarity; ``math.inf`` for equal shares.
        normalize: whether the key is scaled to unit length first.

    Shapes:
        - key: (B, D) floating; coarse_labels: (B,) integers; queue and sample_ids as in :class:`MaskConLoss`.
        - output: (B, 1+K), detached, rows summing to 1. Column 0 is the own key, column 1+j row j of the memory; EMPTY
          rows and those of another class hold 0. Without a queue K = B and column 1+i of row i holds 0.

    Raises:
        TypeError, ValueError: wrong settings or input, in a sentence that says what came, what is needed and what to
            type.

    Example:
        >>> import torch
        >>> from maskcon_loss import CoarseMaskSoftTargets
        >>> key, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])
        >>> CoarseMaskSoftTargets(weight=1.0)(key, labels)
        tensor([[0.5000, 0.0000, 0.5000, 0.0000],
                [0.5000, 0.5000, 0.0000, 0.0000],
                [1.0000, 0.0000, 0.0000, 0.0000]])

    Source: Feng and Patras, CVPR 2023, eq. (11) to (13).
    """

    def __init__(self, weight: float = 1.0, *, target_temperature: float = 0.05, normalize: bool = True) -> None:
        super().__init__()
        _checks.settings("none", normalize, "auto", weight, target_temperature=target_temperature)
        self.weight = float(weight)
        self.target_temperature = float(target_temperature)
        self.normalize = normalize

    def forward(
        self, key: Tensor, coarse_labels: Tensor, queue: object = None, *, sample_ids: Tensor | None = None
    ) -> Tensor:
        """The targets of a batch over a queue; see the class."""
        keys, labels, ids = _checks.memory_of(queue)
        return functional.coarse_mask_soft_targets(
            key, coarse_labels, keys, labels,
            weight=self.weight, target_temperature=self.target_temperature, normalize=self.normalize,
            sample_ids=sample_ids, memory_ids=ids,
        )  # fmt: skip

    if TYPE_CHECKING:  # torch leaves the call of a module untyped

        def __call__(
            self, key: Tensor, coarse_labels: Tensor, queue: object = None, *, sample_ids: Tensor | None = None
        ) -> Tensor: ...

    def extra_repr(self) -> str:
        return f"weight={self.weight}, target_temperature={self.target_temperature}, normalize={self.normalize}"
