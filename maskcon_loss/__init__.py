"""MaskCon: contrastive learning of fine classes from coarse labels, for the training loop you already have."""

from maskcon_loss import functional
from maskcon_loss._batch import EMPTY, UNLABELLED
from maskcon_loss.baselines import CoInsLoss, GrafitLoss, SelfConLoss, SupConLoss
from maskcon_loss.diagnostics import diagnose
from maskcon_loss.losses import MaskConLoss
from maskcon_loss.metrics import recall_at_k
from maskcon_loss.queue import MemoryQueue
from maskcon_loss.targets import CoarseMaskSoftTargets

__version__ = "0.1.0"

__all__ = [
    "EMPTY",
    "UNLABELLED",
    "CoInsLoss",
    "CoarseMaskSoftTargets",
    "GrafitLoss",
    "MaskConLoss",
    "MemoryQueue",
    "SelfConLoss",
    "SupConLoss",
    "__version__",
    "diagnose",
    "functional",
    "recall_at_k",
]
