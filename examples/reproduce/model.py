"""The encoder: a backbone, whose features are judged, a projector for the losses, a classifier of coarse classes."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from examples.reproduce.formats import tensors
from examples.reproduce.patches import SMALLEST, Patches
from examples.reproduce.settings import Settings

BLOCKS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; the names are torchvision's, so that its weights fit."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet(nn.Module):
    """ResNet-10, -18 or -34 without its last layer.

    The small stem is a 3x3 convolution of stride 1 without max-pool, the half one the same with stride 2; the large one
    is ImageNet's.
    """

    def __init__(self, blocks: tuple[int, ...], width: int, stem: str) -> None:
        super().__init__()
        kernel, stride = {"small": (3, 1), "half": (3, 2), "large": (7, 2)}[stem]
        self.conv1 = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "large" else nn.Identity()
        before = width
        for stage, count in enumerate(blocks):
            layers = []
            for index in range(count):
                after = width * 2**stage
                layers.append(Block(before, after, 2 if stage and not index else 1))
                before = after
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.num_features = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))


class Encoder(nn.Module):
    """Images (B, 3, H, W) to features (B, F), projections (B, D) and scores of the coarse classes (B, C)."""

    def __init__(self, settings: Settings, classes: int) -> None:
        super().__init__()
        self.backbone, features = make_backbone(settings)
        self.projector = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, settings.dim))
        self.classifier = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.backbone(images)
        return features, self.projector(features), self.classifier(features)


def make_backbone(settings: Settings) -> tuple[nn.Module, int]:
    """The backbone and the number of its features: ours, or one of timm's or torchvision's by name."""
    library, _, name = settings.backbone.rpartition(":")
    if not library and name in BLOCKS:
        stem = settings.stem if settings.stem != "auto" else "small" if settings.size <= 64 else "large"
        backbone = ResNet(BLOCKS[name], settings.width, stem)
        return backbone, backbone.num_features
    if not library and name == "patches":
        if settings.size < SMALLEST:
            raise ValueError(
                f"backbone patches needs images of {SMALLEST} pixels a side or more, but they have {settings.size}; "
                "give a larger --image-size, or another --backbone."
            )
        patches, features = Patches(settings.width), 512
        mixer = nn.Linear(patches.num_features, features, bias=False)
        return nn.Sequential(patches, mixer, nn.BatchNorm1d(features), nn.ReLU()), features
    if library not in ("timm", "torchvision"):
        raise ValueError(
            f"backbone {settings.backbone!r} is not known; it is one of {', '.join(BLOCKS)}, patches, timm:NAME "
            "or torchvision:NAME."
        )
    try:
        models: Any = import_module("timm" if library == "timm" else "torchvision.models")
    except ImportError as error:
        raise ValueError(f"backbone {settings.backbone!r} needs {library}: pip install {library}") from error
    if library == "timm":
        backbone = models.create_model(name, num_classes=0)
        return backbone, backbone.num_features
    backbone = models.get_model(name)
    last_name, last = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear)][-1]
    backbone.set_submodule(last_name, nn.Identity())
    return backbone, last.in_features


def load_backbone(encoder: Encoder, path: Path) -> str:
    """Take a backbone's weights from a file, as far as names and shapes agree; says in one line what was taken.

    The file is a state dict as `torch.save` writes it: torchvision's ResNet-18, say. The small stem has another shape
    than ImageNet's and starts anew, as in the paper.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file of weights at {path}; download one, for instance "
            "https://download.pytorch.org/models/resnet18-f37072fd.pth, and give its path to --weights."
        )
    state = tensors(path, "cpu")
    state = state.get("state_dict", state)
    own = encoder.backbone.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    missing = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
    if len(missing) > len(own) // 2:
        raise ValueError(
            f"the weights in {path} fit only {len(fitting)} of the backbone's {len(own)} tensors; they are probably of "
            "another architecture: give --backbone the one they belong to."
        )
    encoder.backbone.load_state_dict(own | fitting)
    return f"{len(fitting)} of {len(own)} tensors from {path.name}; anew: {', '.join(missing) or 'none'}"
