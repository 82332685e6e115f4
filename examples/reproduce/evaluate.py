"""Are the features good for finding images of the same fine class? The paper's measure."""

import torch
from torch import Tensor, nn

from examples.reproduce.augment import plain
from examples.reproduce.data import Data
from examples.reproduce.machine import Machine, laid_out
from examples.reproduce.settings import Settings
from maskcon_loss import recall_at_k

DEPTHS = (1, 2, 5, 10)


@torch.no_grad()
def features(model: nn.Module, data: Data, settings: Settings, machine: Machine) -> Tensor:
    """Backbone features (N, F) of the images as they are, in eval mode: what the paper judges."""
    model.eval()
    view = plain(settings)
    with machine.autocast():
        found = [model(laid_out(view(some.to(machine.device)), machine))[0].float() for some in data.images.split(500)]
    model.train()
    return torch.cat(found)


def judge(model: nn.Module, data: Data, settings: Settings, machine: Machine) -> dict[int, float]:
    """Recall@K in percent, of the images against each other, by the fine class."""
    shares = recall_at_k(features(model, data, settings, machine), data.fine.to(machine.device), DEPTHS)
    return {depth: round(100 * share, 3) for depth, share in shares.items()}
