"""What tests measure with."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operator made."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def import_triton() -> None:
    """Skips where Triton is not installed, or can neither run on a GPU nor be interpreted."""
    triton = pytest.importorskip("triton")
    too_new = TorchVersion(np.__version__) >= "2.4" and TorchVersion(triton.__version__) < "3.7"
    if too_new and not torch.cuda.is_available():
        pytest.skip("Triton before 3.7 is interpreted with NumPy before 2.4 only", allow_module_level=True)


def error_of(call: Callable[[], object]) -> Exception:
    """The complaint that a call raises."""
    with pytest.raises((TypeError, ValueError, RuntimeError)) as error:
        call()
    return error.value
