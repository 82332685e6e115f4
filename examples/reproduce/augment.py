"""Weak and strong augmentation of whole batches, on the device where they lie.

Images come as uint8 (B, 3, H, W) and leave as floats, normalised as the ImageNet weights expect.
"""

from collections.abc import Callable

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from kornia.augmentation.auto import AutoAugment
from kornia.augmentation.auto.operations.policy import PolicySequential
from torch import Tensor, nn

from examples.reproduce.settings import Settings

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Augmentation = Callable[[Tensor], Tensor]


class AutoAugmentEach(nn.Module):
    """AutoAugment with a sub-policy of its own for every image; kornia's class draws one for the whole batch."""

    def __init__(self, policy: str) -> None:
        super().__init__()
        every = AutoAugment(policy, transformation_matrix_mode="skip").children()
        self.policies = nn.ModuleList(child for child in every if isinstance(child, PolicySequential))

    def forward(self, images: Tensor) -> Tensor:
        choice = torch.randint(len(self.policies), (len(images),))  # on the CPU: no waiting for the device
        out = images.clone()
        for index, policy in enumerate(self.policies):
            rows = (choice == index).nonzero().squeeze(1)
            if len(rows):
                rows = rows.to(images.device, non_blocking=True)
                out[rows] = policy(images[rows])
        return out


def normalise(images: Tensor) -> Tensor:
    """Pixels from 0 to 1, to mean 0 and deviation 1 over ImageNet."""
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def augmentations(settings: Settings) -> tuple[Augmentation, Augmentation]:
    """The strong augmentation, for queries, and the weak one, for keys."""
    size = (settings.size, settings.size)
    crop: list[nn.Module] = [K.RandomResizedCrop(size, scale=(0.2, 1.0), cropping_mode="resample")]
    if settings.size > 64:
        crop.append(K.RandomPerspective(0.5, p=0.5))
    crop.append(K.RandomHorizontalFlip())
    strong = settings.strong
    if strong == "auto":
        strong = "autoaugment" if settings.size <= 64 else "jitter" if settings.dataset == "cars196" else "crop"
    if strong not in ("autoaugment", "jitter", "crop"):
        raise ValueError(f"strong augmentation {strong!r} is not known; it is auto, autoaugment, jitter or crop.")
    extra: list[nn.Module] = []
    if strong == "autoaugment":
        extra = [AutoAugmentEach("cifar10")]
    elif strong == "jitter":
        blur = settings.size // 20 * 2 + 1  # about a tenth of the side
        extra = [
            K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
            K.RandomGaussianBlur((blur, blur), (0.1, 2.0), p=0.5),
        ]
    return pipeline([*crop, *extra]), pipeline(crop)


def pipeline(steps: list[nn.Module]) -> Augmentation:
    """Steps one after another, between pixels as stored and the encoder's input."""

    @torch.no_grad()
    def augment(images: Tensor) -> Tensor:
        images = images.float() / 255
        for step in steps:
            images = step(images)
        return normalise(images.clamp(0, 1))

    return augment


def plain(settings: Settings) -> Augmentation:
    """Images as they are judged: whole, at the encoder's size."""

    def view(images: Tensor) -> Tensor:
        images = images.float() / 255
        if images.shape[-1] != settings.size:
            images = F.interpolate(images, (settings.size, settings.size), mode="bilinear", antialias=True)
        return normalise(images)

    return view
