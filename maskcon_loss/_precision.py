"""In which precision a loss is computed: float64 stays float64, everything else is computed in float32.

Shapes: B rows, D features.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_TYPES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia", "maia", "xla", "ipu", "privateuseone")
#: Looked up once: older compilers cannot trace the question.
_WITH_AUTOCAST = frozenset(name for name in _TYPES if torch.amp.is_autocast_available(name))


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any of the tensors is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A region in which autocast lowers nothing, on any device."""
    if device.type in _WITH_AUTOCAST:
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def unit(vectors_BD: Tensor) -> Tensor:
    """Rows scaled to length 1, (B, D); a zero row stays zero, with a finite gradient.

    Dividing by the largest entry first keeps the squares from overflowing or vanishing (entries of 1e-30 or 1e30 in
    float32). The result does not depend on that scale, so it counts as a constant in the gradient.
    """
    largest_B1 = vectors_BD.detach().abs().amax(1, keepdim=True)
    scaled_BD = vectors_BD / torch.where(largest_B1 > 0, largest_B1, 1.0)
    length_B1 = torch.linalg.vector_norm(scaled_BD, dim=1, keepdim=True)
    return scaled_BD / torch.where(length_B1 > 0, length_B1, 1.0)
