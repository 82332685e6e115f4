"""Where the paper's datasets come from: a reader for each, from its authors' files to two `Data`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from examples.reproduce import coarse
from examples.reproduce.data import Data
from examples.reproduce.formats import DataError, Picture, decode, listed, pictures, square, unpickle
from examples.reproduce.settings import Settings

CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
IMAGENET_HOME = "https://image-net.org/download-images.php (Downsampled ImageNet, 32x32)"
LABELS_HOME = "https://github.com/MrChenFeng/MaskCon_CVPR2023/tree/main/coarse_labels"
SOP_HOME = "https://cvgl.stanford.edu/projects/lifted_struct/"
CARS_HOME = "https://www.kaggle.com/datasets/eduardo4jesus/stanford-cars-dataset"


def cifartoy(settings: Settings, root: Path, _: Path) -> tuple[Data, Data]:
    """Eight classes of CIFAR-10 in two groups, from CIFAR-10's pickles or from an image folder."""
    rule = lambda name: coarse.cifartoy(settings.dataset, name)  # noqa: E731
    pickled = _place(root, "cifar-10-batches-py", "data_batch_1")
    if pickled is None:
        return _folders(settings, root, rule)
    train, test = [f"data_batch_{number}" for number in range(1, 6)], ["test_batch"]
    parts = []
    for names in (train, test):
        batches = [unpickle(pickled / name, CIFAR_HOME) for name in names]
        fine = [coarse.CIFAR10[label] for batch in batches for label in batch["labels"]]
        parts.append((square(np.concatenate([batch["data"] for batch in batches])), fine))
    return _labelled(parts, rule)


def cifar100(settings: Settings, root: Path, _: Path) -> tuple[Data, Data]:
    """CIFAR-100 with its own superclasses, from its pickles or from an image folder."""
    pickled = _place(root, "cifar-100-python", "test")
    if pickled is None or not (pickled / "test").is_file():
        return _folders(settings, root, coarse.cifar100)
    train, test = (unpickle(pickled / name, CIFAR_HOME) for name in ("train", "test"))
    return _of(train, train["coarse_labels"], train["fine_labels"]), _of(
        test, test["coarse_labels"], test["fine_labels"]
    )


def imagenet32(settings: Settings, root: Path, labels: Path) -> tuple[Data, Data]:
    """ImageNet at 32 pixels; its classes, numbered from 1, to ImageNet's own numbers, to 12 WordNet groups."""
    labels = _below(labels, "imagenet32")
    to_fine, to_coarse = (
        {int(key): value for key, value in _json(labels / name).items()}
        for name in ("imagenet32_to_fine.json", "imagenet_fine_to_coarse.json")
    )
    train = [f"train_data_batch_{number}" for number in range(1, 11)]
    parts = []
    for names in (train, ["val_data"]):
        batches = [unpickle(root / name, IMAGENET_HOME) for name in names]
        fine = [to_fine[label - 1] for batch in batches for label in batch["labels"]]
        images = square(np.concatenate([batch["data"] for batch in batches]))
        parts.append(Data(images, torch.tensor([to_coarse[label] for label in fine]), torch.tensor(fine)))
    return parts[0], parts[1]


def products(settings: Settings, root: Path, labels: Path) -> tuple[Data, Data]:
    """Stanford Online Products by the paper's label files, or split 1 by its rule from the data's own text files."""
    root = _below(root, "Stanford_Online_Products")
    folder = _below(labels, settings.dataset.replace("-", "_"))
    parts = []
    for part in ("train", "test"):
        if (folder / f"{part}_path.json").is_file() or settings.dataset == "sop-split2":
            paths, groups, fine = (
                _json(folder / f"{part}_{kind}.json") for kind in ("path", "coarse_label", "fine_label")
            )
        else:
            paths, groups, fine = _often(root / f"Ebay_{part}.txt")
        images = decode(listed(root, paths, SOP_HOME), _stored(settings, part), f"{settings.dataset} {part}")
        parts.append(Data(images, torch.tensor(groups), torch.tensor(fine)))
    return parts[0], parts[1]


def cars(settings: Settings, root: Path, _: Path) -> tuple[Data, Data]:
    """Cars196 by body type, from the devkit's .mat files or from an image folder."""
    root = _below(root, "stanford_cars")
    if not (root / "devkit").is_dir():
        return _folders(settings, root, coarse.car)
    from scipy.io import loadmat

    def annotations(path: Path) -> dict[str, np.ndarray]:
        if not path.is_file():
            raise DataError(f"{path} is missing; get it from {CARS_HOME}.")
        try:
            return loadmat(path, squeeze_me=True)
        except Exception as error:  # a damaged file can raise anything
            raise DataError(f"{path} cannot be read ({error}); it is damaged: get it from {CARS_HOME}.") from error

    names = [str(name) for name in annotations(root / "devkit" / "cars_meta.mat")["class_names"]]
    parts = []
    inside = root / "devkit" / "cars_test_annos_withlabels.mat"
    outside = root / inside.name  # where torchvision puts it
    for part, path in (
        ("train", root / "devkit" / "cars_train_annos.mat"),
        ("test", outside if outside.is_file() else inside),
    ):
        rows = np.atleast_1d(annotations(path)["annotations"])
        found = listed(root / f"cars_{part}", [str(row["fname"]) for row in rows], CARS_HOME)
        fine = [names[int(row["class"]) - 1] for row in rows]
        parts.append((decode(found, _stored(settings, part), f"cars196 {part}"), fine))
    return _labelled(parts, coarse.car)


def nested(settings: Settings, root: Path, _: Path) -> tuple[Data, Data]:
    """Any data in folders PART/COARSE/FINE/IMAGE."""
    found = [pictures(root, part, "where your data are") for part in ("train", "test")]
    for picture in (picture for part in found for picture in part):
        if picture.path.count("/") != 2:
            raise DataError(f"{picture.path} is not COARSE/FINE/IMAGE below train/ or test/; move it to such a place.")
    groups = sorted({picture.path.split("/")[0] for part in found for picture in part})
    parts = []
    for part, some in zip(("train", "test"), found, strict=True):
        parts.append((decode(some, _stored(settings, part), part), [_class(picture) for picture in some]))
    return _labelled(parts, lambda name: groups.index(name.split("/")[0]))


READERS: dict[str, Callable[[Settings, Path, Path], tuple[Data, Data]]] = {
    "cifartoy-good": cifartoy, "cifartoy-bad": cifartoy, "cifar100": cifar100, "imagenet32": imagenet32,
    "sop-split1": products, "sop-split2": products, "cars196": cars, "folder": nested,
}  # fmt: skip


def _folders(settings: Settings, root: Path, rule: Callable[[str], int]) -> tuple[Data, Data]:
    """From images in PART/CLASS/, with the coarse class by rule from the name of the fine one."""
    parts = []
    home = CARS_HOME if settings.dataset == "cars196" else CIFAR_HOME
    for part in ("train", "test"):
        found = [picture for picture in pictures(root, part, home) if rule(_class(picture)) >= 0]
        if not found:
            raise DataError(
                f"no folder in {root / part} is named after a class of {settings.dataset}; get the data from {home}."
            )
        images = decode(found, _stored(settings, part), f"{settings.dataset} {part}")
        parts.append((images, [_class(picture) for picture in found]))
    return _labelled(parts, rule)


def _labelled(parts: Sequence[tuple[Tensor, list[str]]], rule: Callable[[str], int]) -> tuple[Data, Data]:
    """Numbers for the names of fine classes; images whose name has no coarse class are left out."""
    names = sorted({name for _, fine in parts for name in fine if rule(name) >= 0})
    numbers = {name: number for number, name in enumerate(names)}
    data = []
    for images, fine in parts:
        kept = [row for row, name in enumerate(fine) if rule(name) >= 0]
        data.append(
            Data(
                images if len(kept) == len(fine) else images[kept],
                torch.tensor([rule(fine[row]) for row in kept]),
                torch.tensor([numbers[fine[row]] for row in kept]),
            )
        )
    return data[0], data[1]


def _of(batch: dict, groups: list[int], fine: list[int]) -> Data:
    return Data(square(batch["data"]), torch.tensor(groups), torch.tensor(fine))


def _class(picture: Picture) -> str:
    return picture.path.rpartition("/")[0]


def _stored(settings: Settings, part: str) -> int:
    """Side of the stored images: large training images keep a margin of an eighth for the random crop."""
    return settings.size * 8 // 7 if part == "train" and settings.size > 64 else settings.size


def _below(root: Path, name: str) -> Path:
    return root / name if (root / name).is_dir() else root


def _place(root: Path, folder: str, file: str) -> Path | None:
    """Where a pickle lies: in its usual folder below the root, or in the root itself."""
    if (root / folder).is_dir():
        return root / folder
    return root if (root / file).is_file() else None


def _json(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path} is missing; get it from {LABELS_HOME} and give the folder to --labels.")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); it is damaged: get it anew from {LABELS_HOME}.") from error


def _often(path: Path) -> tuple[list[str], list[int], list[int]]:
    """Paths, super classes and products from a text file of the data, of products with 8 images or more."""
    if not path.is_file():
        raise DataError(f"{path} is missing; get it from {SOP_HOME}.")
    try:
        rows = [line.split() for line in path.read_text().splitlines()[1:] if line.strip()]
        products = np.array([int(row[1]) for row in rows])
        paths, groups = [row[3] for row in rows], [int(row[2]) - 1 for row in rows]
    except (IndexError, ValueError) as error:
        raise DataError(
            f"{path} does not have the columns image_id, class_id, super_class_id and path ({error}); "
            f"it is damaged: get it from {SOP_HOME}."
        ) from error
    _, fine, counts = np.unique(products, return_inverse=True, return_counts=True)
    kept = [row for row in range(len(rows)) if counts[fine[row]] >= 8]
    _, again = np.unique(fine[kept], return_inverse=True)
    return [paths[row] for row in kept], [groups[row] for row in kept], again.tolist()
