"""The paper's settings, and the reduced run for a CPU. Every field is a flag of the command line."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

METHODS = ("SelfCon", "SupCE", "SupCon", "Grafit", "CoIns", "MaskCon", "SupFINE")
DATASETS = ("cifartoy-good", "cifartoy-bad", "cifar100", "imagenet32", "sop-split1", "sop-split2", "cars196", "folder")
STEMS = ("auto", "small", "half", "large")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. Two runs with equal settings end in equal weights on the same machine, interrupted or not."""

    dataset: str = "cifar100"
    method: str = "MaskCon"
    seed: int = 0
    # the loss
    weight: float = 1.0  # w of Grafit, CoIns and MaskCon
    temperature: float = 0.1  # T
    target_temperature: float = 0.05  # T' of MaskCon
    queue: int = 8192  # K
    momentum: float = 0.99  # of the key encoder
    # the encoder
    backbone: str = "resnet18"  # or resnet10, resnet34, patches, timm:NAME, torchvision:NAME
    width: int = 64  # channels of the first stage of our own ResNets, filters of patches
    stem: str = "auto"  # small, large or half; auto: small up to 64 px
    dim: int = 128  # of the projection
    weights: str = ""  # a local file of ImageNet weights for the backbone; empty: from scratch
    # the images
    image_size: int = 0  # side in pixels; 0: 224 for sop and cars196, else 32
    strong: str = "auto"  # autoaugment, jitter or crop; auto: as the paper for the dataset
    train_images: int = 0  # how many to take, equally often of every fine class; 0: all
    hold_out: int = 0  # so many of the training images are judged, instead of the test images; for choosing settings
    # the optimisation
    batch: int = 128
    epochs: int = 200
    warm_up: int = 5  # epochs of linear warm-up; cosine to 0 afterwards
    lr: float = 0.02
    weight_decay: float = 5e-4
    warm_start: int = 0  # epochs of SelfCon before, shared by all methods of a seed; 0: none

    def __post_init__(self) -> None:
        for name, known in (("dataset", DATASETS), ("method", METHODS), ("stem", STEMS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is not known; it is one of {', '.join(known)}.")
        for name in ("queue", "width", "dim", "batch", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but it must be at least 1.")
        for name in ("train_images", "hold_out", "image_size", "warm_up", "warm_start"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but it cannot be negative; 0 switches it off.")

    @property
    def size(self) -> int:
        """Side of the images that the encoder sees, in pixels."""
        if self.image_size:
            return self.image_size
        return 224 if self.dataset.startswith(("sop", "cars")) else 32

    @property
    def name(self) -> str:
        """The run's folder: method, the settings of its loss, seed."""
        parts = [self.method.lower()]
        if self.method in ("Grafit", "CoIns", "MaskCon"):
            parts.append(f"w{self.weight:g}")
        if self.method == "MaskCon":
            parts.append(f"t{self.target_temperature:g}")
        return "-".join([*parts, f"seed{self.seed}"])


# What differs from the defaults above. Where the paper says nothing (Grafit's and CoIns' weight, ImageNet32's and the
# second split's w and T'), 0.5 stands for the first two, and the values of the nearest dataset for the others.
PAPER: dict[str, dict[str, Any]] = {
    "cifartoy-good": {},
    "cifartoy-bad": {},
    "cifar100": {},
    "imagenet32": {"queue": 16384, "batch": 256, "epochs": 100},
    "sop-split1": {"weight": 0.8, "target_temperature": 0.1},
    "sop-split2": {"weight": 0.8, "target_temperature": 0.1},
    "cars196": {"target_temperature": 0.1},
    "folder": {},
}
MIXTURE_WEIGHT = {"Grafit": 0.5, "CoIns": 0.5}

# Seven methods within ten minutes on two idle cores. The rate was looked at on held-out training images of
# cifartoy-good (0.05 and 0.1), the sizes are by the clock; the settings of the losses are the defaults above.
CPU: dict[str, Any] = {
    "backbone": "patches", "width": 128, "strong": "crop", "dim": 64, "queue": 4096, "train_images": 8000,
    "epochs": 12, "warm_up": 1, "lr": 0.1,
}  # fmt: skip
PRESETS = ("paper", "cpu")


def defaults(dataset: str, method: str, preset: str = "paper") -> Settings:
    """The settings of a method on a dataset: the paper's, or reduced for a CPU."""
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is not known; it is one of {', '.join(PRESETS)}.")
    settings = Settings(dataset=dataset, method=method)  # refuses names that it does not know
    chosen = PAPER[dataset] | ({"weight": MIXTURE_WEIGHT[method]} if method in MIXTURE_WEIGHT else {})
    if preset == "cpu":
        chosen = chosen | CPU
    return replace(settings, **chosen)


def warm_start(settings: Settings) -> Settings:
    """The run that comes before the others of a seed: SelfCon, which uses no label."""
    plain = defaults(settings.dataset, "SelfCon")
    return replace(settings, method="SelfCon", epochs=settings.warm_start, warm_start=0,
                   weight=plain.weight, target_temperature=plain.target_temperature)  # fmt: skip


def differences(one: Settings, other: Settings) -> list[str]:
    """The fields in which two runs differ, each with both values."""
    first, second = asdict(one), asdict(other)
    return [f"{field.name} {first[field.name]} and {second[field.name]}" for field in fields(Settings)
            if first[field.name] != second[field.name]]  # fmt: skip
