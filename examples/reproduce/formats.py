"""The files of the datasets as their authors and torchvision distribute them, read into arrays."""

import io
import pickle
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

SUFFIXES = {".bmp", ".jpg", ".jpeg", ".png", ".webp"}


class DataError(Exception):
    """A file of the data is missing or damaged; the message says which and where to get it."""


class Picture(NamedTuple):
    """An encoded image: where it lies below its part of the data (CLASS/NAME.jpg), and how to read it."""

    path: str
    read: Callable[[], bytes]


def tensors(path: Path, device: str) -> dict[str, Any]:
    """A state dict or a checkpoint, as `torch.save` writes it."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise DataError(
            f"{path} cannot be read as a file of `torch.save` ({type(error).__name__}); it is damaged or of "
            "another kind. Get it again, or delete it if it is the checkpoint of a run, which then starts anew."
        ) from error


def unpickle(path: Path, home: str) -> dict[str, Any]:
    """A batch of CIFAR or ImageNet32: `data` (N, 3 * H * W) uint8 and lists of labels."""
    if not path.is_file():
        raise DataError(f"{path} is missing; get it from {home} and unpack it there.")
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="latin1").load()
        if batch["data"].dtype != np.uint8 or batch["data"].ndim != 2:
            raise ValueError("its data are no rows of uint8")
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(
            f"{path} cannot be read ({error}); it is damaged or another file: get it anew from {home}."
        ) from error
    return batch


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays and plain values. A pickle can run any code; these need none beyond numpy's."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": np.empty(0).__reduce__()[0]}
        if module.split(".")[0] == "numpy" and name in known:
            return known[name]
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def square(rows: np.ndarray) -> Tensor:
    """Rows of pickled pixels as images, (N, 3, H, H) uint8."""
    side = round((rows.shape[1] / 3) ** 0.5)
    return torch.from_numpy(np.ascontiguousarray(rows)).view(-1, 3, side, side)


def pictures(root: Path, part: str, home: str) -> list[Picture]:
    """All images below ROOT/PART, or below PART inside zips ROOT/PART*.zip, in the order of their names."""
    found = []
    folder, archives = root / part, sorted(root.glob(f"{part}*.zip"))
    if folder.is_dir():
        for path in folder.rglob("*"):
            if path.suffix.lower() in SUFFIXES:
                found.append(Picture(path.relative_to(folder).as_posix(), path.read_bytes))
    for archive in [] if found else archives:
        try:
            file = zipfile.ZipFile(archive)
        except zipfile.BadZipFile as error:
            raise DataError(f"{archive} is no zip ({error}); it is damaged: get it anew from {home}.") from error
        for name in file.namelist():
            if name.startswith(f"{part}/") and Path(name).suffix.lower() in SUFFIXES:
                found.append(Picture(name.removeprefix(f"{part}/"), lambda file=file, name=name: file.read(name)))
    if not found:
        raise DataError(
            f"{root} has no images in {part}/CLASS/ and no {part}*.zip with such a folder; get the data from {home}, "
            "or give its folder to --data."
        )
    return sorted(found)


def listed(root: Path, paths: Iterable[str], home: str) -> list[Picture]:
    """The images with these paths below ROOT."""
    found = [Picture(path, (root / path).read_bytes) for path in paths]
    gone = next((picture.path for picture in found if not (root / picture.path).is_file()), None)
    if gone is not None:
        raise DataError(f"{root / gone} is missing; get the images from {home}, or give their folder to --data.")
    return found


def decode(found: list[Picture], size: int, name: str) -> Tensor:
    """Every image once, scaled to a square of `size` pixels: (N, 3, size, size) uint8."""
    images = torch.empty(len(found), 3, size, size, dtype=torch.uint8)

    def one(place: int) -> None:
        try:
            with Image.open(io.BytesIO(found[place].read())) as image:
                image = image.convert("RGB")
                if image.size != (size, size):
                    image = image.resize((size, size), Image.Resampling.BICUBIC)
                images[place] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"the image {found[place].path} cannot be read ({error}); it is damaged: unpack or download it anew."
            ) from error

    with ThreadPoolExecutor() as pool:
        done = pool.map(one, range(len(found)))
        for _ in tqdm(done, desc=name, total=len(found), unit="image", leave=False):
            pass
    return images
