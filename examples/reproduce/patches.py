"""A start that needs no labels, no gradient and no pretrained weights: patches of training images as filters.

Stands in for ImageNet weights where a CPU has minutes. Source: Coates, Lee and Ng, *An Analysis of Single-Layer
Networks in Unsupervised Feature Learning*, AISTATS 2011: contrast normalisation, whitening, patches drawn at random, a
soft threshold with two signs, pooling.

Shapes: B images, N filters, P = 3 x SIDE x SIDE numbers in a patch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, STRIDE, GRID = 6, 2, 3  # of a patch, between patches, of the pooled map
THRESHOLD = 1.0  # in deviations of a place's responses
SAMPLE = 50_000  # patches that the whitening is computed from
FLAT = 0.03  # added to the variance of a patch, so that an even one is not blown up
SMALLEST = 16  # side of an image
FLOOR = 0.01  # added to the eigenvalues, as a share of the largest


class Patches(nn.Module):
    """Images (B, 3, H, W) to features (B, 2 N GRID GRID), through filters that are fixed once `fit` has seen images."""

    weight: Tensor  # (N, 3, SIDE, SIDE), whitened patches, each of mean 0
    shift: Tensor  # (N,)
    centre: Tensor  # (1, 2 N GRID GRID), the mean of the features before they are scaled
    scale: Tensor  # as centre, brings their deviation to 1

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.num_features = 2 * filters * GRID * GRID
        self.register_buffer("weight", torch.zeros(filters, 3, SIDE, SIDE))
        self.register_buffer("shift", torch.zeros(filters))
        self.register_buffer("centre", torch.zeros(1, self.num_features))
        self.register_buffer("scale", torch.ones(1, self.num_features))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Filters from images (B, 3, H, W), normalised as the encoder will see them."""
        filters = len(self.shift)
        patches = F.unfold(images, SIDE, stride=4).transpose(1, 2).flatten(0, 1)
        patches = patches[torch.randperm(len(patches))[:SAMPLE]]
        patches = patches - patches.mean(1, keepdim=True)
        patches = patches / (patches.var(1, keepdim=True, correction=0) + FLAT).sqrt()
        mean = patches.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
        whiten = vectors @ torch.diag((values.clamp(min=0) + FLOOR * values.max()).rsqrt()) @ vectors.T
        chosen = F.normalize((patches[:filters] - mean) @ whiten, dim=1) @ whiten
        chosen = chosen - chosen.mean(1, keepdim=True)  # so the mean of a patch need not be taken off
        self.weight.copy_(chosen.view_as(self.weight))
        self.shift.copy_(chosen @ mean)
        features = torch.cat([self(part) for part in images.split(250)])
        self.centre.copy_(features.mean(0, keepdim=True))
        self.scale.copy_(1 / (features.std(0, keepdim=True) + 1e-3))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        mean = F.avg_pool2d(images, SIDE, STRIDE).mean(1, keepdim=True)
        variance = F.avg_pool2d(images.square(), SIDE, STRIDE).mean(1, keepdim=True) - mean.square()
        response = F.conv2d(images, self.weight, stride=STRIDE) / (variance.clamp(min=0) + FLAT).sqrt()
        response = response - self.shift.view(1, -1, 1, 1)
        response = response / (response.square().mean(1, keepdim=True) + 1e-2).sqrt()
        both = torch.cat([F.relu(response - THRESHOLD), F.relu(-response - THRESHOLD)], dim=1)
        size = both.shape[-1]
        pooled = F.avg_pool2d(both, size - (GRID - 1) * (size // GRID), size // GRID)
        return (pooled.flatten(1) - self.centre) * self.scale
