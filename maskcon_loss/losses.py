"""The loss to drop into a training loop."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from maskcon_loss import _checks, functional, sharded


class MaskConLoss(nn.Module):
    r"""Masked contrastive loss: learn to tell fine classes apart from coarse labels.

    The positive mass of each query is shared out, by similarity of its key, among the memory's keys of its class:

    .. math::

        z_{i0} &= 1, \quad z_{ij} = [y_i = y_j] \exp\frac{k_i m_j - \max_{l: y_l = y_i} k_i m_l}{T'} \\
        t_i &= w \frac{z_i}{\sum_j z_{ij}} + (1 - w) \, \mathrm{onehot}(0) \\
        L_i &= -\sum_j t_{ij} \log \mathrm{softmax}([q_i k_i, q_i m_1, \dots, q_i m_K] / T)_j

    Args:
        weight: :math:`w` in [0, 1]. 0 ignores the coarse labels (SelfCon); 1, the paper's choice on most data, relies
            on them.
        temperature: :math:`T > 0`, the paper's tau_0, in units of cosine similarity.
        target_temperature: :math:`T' > 0`, the paper's tau, in the same unit. Towards 0 only the nearest key of the
            class is a positive beside the own key; with ``math.inf`` all of them are, equally (Grafit).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, as in :func:`torch.nn.functional.cross_entropy`.
        normalize: whether query and key are scaled to unit length first. The memory's keys are taken as they are.
        impl: ``"auto"``, ``"dense"`` (the equations in plain PyTorch), ``"streamed"`` (no B x K matrix, any device) or
            ``"triton"`` (fused kernels on CUDA, from compute capability 8.0 and PyTorch 2.7, up to 512 features,
            float64 excepted; what ``"auto"`` takes there). An implementation asked for by name runs or raises; it is
            never replaced.

    Shapes:
        - query, key: (B, D), float16, bfloat16, float32 or float64. A key that requires a gradient gets it through the
          logits, never through the targets.
        - coarse_labels: (B,) integers, a negative one for unlabelled; such a row is a SelfCon row.
        - queue: anything with ``.keys`` (K, D), ``.labels`` (K,) and, if it has them, ``.ids`` (K,), such as
          :class:`MemoryQueue`. None: the memory is the batch's own other keys. The loss never changes it; enqueue
          afterwards, before or after ``backward``.
        - sample_ids: (B,) integers that name the images. A memory row with the same id, a stale key of the same image,
          is left out; this matters where the queue is longer than the data set. Negative ids match nothing.
        - output: a scalar, or (B,) for ``"none"``, in nats; float64 if an input is, else float32, also under autocast.

    Raises:
        TypeError, ValueError: wrong settings or input, in a sentence that says what came, what is needed and what to
            type. NaN or Inf in the input is no error: it gives NaN, as in torch.

    Example:
        >>> import torch
        >>> from maskcon_loss import MaskConLoss, MemoryQueue
        >>> criterion, queue = MaskConLoss(weight=0.8), MemoryQueue(size=1024, dim=16)
        >>> query, key, labels = torch.randn(32, 16, requires_grad=True), torch.randn(32, 16), torch.arange(32) % 2
        >>> loss = criterion(query, key, labels, queue)
        >>> queue.enqueue(key, labels)
        >>> loss.backward()

    Source: Feng and Patras, *MaskCon: Masked Contrastive Learning for Coarse-Labelled Dataset*, CVPR 2023, eq. (9) to
    (13), arXiv 2303.12756.
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        temperature: float = 0.1,
        target_temperature: float = 0.05,
        reduction: str = "mean",
        normalize: bool = True,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        _checks.settings(reduction, normalize, impl, weight, temperature, target_temperature)
        self.weight = float(weight)
        self.temperature = float(temperature)
        self.target_temperature = float(target_temperature)
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
        sample_ids: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch against a queue; see the class."""
        if sharded.is_shard(queue):
            return sharded.maskcon(
                query, key, coarse_labels, queue,
                weight=self.weight, temperature=self.temperature, target_temperature=self.target_temperature,
                reduction=self.reduction, normalize=self.normalize, impl=self.impl, sample_ids=sample_ids,
            )  # fmt: skip
        keys, labels, ids = _checks.memory_of(queue)
        return functional.maskcon(
            query, key, coarse_labels, keys, labels,
            weight=self.weight, temperature=self.temperature, target_temperature=self.target_temperature,
            reduction=self.reduction, normalize=self.normalize, impl=self.impl,
            sample_ids=sample_ids, memory_ids=ids,
        )  # fmt: skip

    if TYPE_CHECKING:  # torch leaves the call of a module untyped

        def __call__(
            self,
            query: Tensor,
            key: Tensor,
            coarse_labels: Tensor,
            queue: object = None,
            *,
            sample_ids: Tensor | None = None,
        ) -> Tensor: ...

    def extra_repr(self) -> str:
        return (
            f"weight={self.weight}, temperature={self.temperature}, target_temperature={self.target_temperature}, "
            f"reduction={self.reduction!r}, normalize={self.normalize}, impl={self.impl!r}"
        )
