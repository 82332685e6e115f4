"""Every format that `examples.reproduce` reads, on small files written in that format."""

import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from examples.reproduce import coarse
from examples.reproduce.data import Data, load
from examples.reproduce.formats import DataError, decode, pictures
from examples.reproduce.settings import Settings

RNG = np.random.default_rng(0)


def pixels(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)


def dump(path: Path, **batch: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(batch, protocol=2))


def paint(path: Path, side: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def cifar10(root: Path) -> np.ndarray:
    """CIFAR-10 with two images of every class in every batch; the rows of the first batch."""
    data = pixels(20)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        dump(root / "cifar-10-batches-py" / name, data=data, labels=[*range(10), *range(10)])
    return data


@pytest.mark.parametrize(("dataset", "beside_airplane"), [("cifartoy-good", "ship"), ("cifartoy-bad", "bird")])
def test_cifartoy_takes_eight_classes_of_cifar10_in_two_groups(
    dataset: str, beside_airplane: str, tmp_path: Path
) -> None:
    rows = cifar10(tmp_path)
    train, test = load(Settings(dataset=dataset), tmp_path)
    assert train.images.shape == (80, 3, 32, 32)
    assert test.images.shape == (16, 3, 32, 32)
    assert test.coarse.bincount().tolist() == [8, 8]
    assert test.fine.bincount().tolist() == [2] * 8
    torch.testing.assert_close(test.images[2].flatten(), torch.from_numpy(rows[2]))  # neither deer nor frog before
    names = ["airplane", "automobile", "bird", "cat", "dog", "horse", "ship", "truck"]
    groups = {names[int(fine)]: int(group) for group, fine in zip(test.coarse, test.fine, strict=True)}
    assert groups[beside_airplane] == groups["airplane"] != groups["horse"]


def test_an_image_folder_and_its_zips_are_the_same_data(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("airplane", "cat", "frog", "ship"):
            paint(tmp_path / "folder" / part / name / "one.png")
    for part in ("train", "test"):
        (tmp_path / "zips").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "zips" / f"{part}-1.zip", "w") as archive:
            for path in (tmp_path / "folder" / part).rglob("*.png"):
                archive.write(path, path.relative_to(tmp_path / "folder").as_posix())
    settings = Settings(dataset="cifartoy-good")
    for one, other in zip(load(settings, tmp_path / "folder"), load(settings, tmp_path / "zips"), strict=True):
        assert len(one.fine) == 3  # CIFARtoy has no frogs
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert one.coarse.tolist() == [0, 1, 0]


def test_cifar100_keeps_its_own_superclasses(tmp_path: Path) -> None:
    for part in ("train", "test"):
        dump(tmp_path / "cifar-100-python" / part, data=pixels(3), fine_labels=[4, 99, 0], coarse_labels=[0, 13, 4])
    train, _ = load(Settings(dataset="cifar100"), tmp_path)
    assert (train.coarse.tolist(), train.fine.tolist()) == ([0, 13, 4], [4, 99, 0])


def test_cifar100_has_five_classes_in_each_of_twenty_superclasses() -> None:
    names = [name for group in coarse.CIFAR100.values() for name in group.split()]
    assert (len(coarse.CIFAR100), len(names), len(set(names))) == (20, 100, 100)
    assert (coarse.cifar100("beaver"), coarse.cifar100("worm"), coarse.cifar100("unicorn")) == (0, 13, -1)


def test_imagenet32_counts_from_one_and_is_renumbered(tmp_path: Path) -> None:
    labels = tmp_path / "labels" / "imagenet32"
    labels.mkdir(parents=True)
    (labels / "imagenet32_to_fine.json").write_text(json.dumps({"0": 7, "1": 3}))
    (labels / "imagenet_fine_to_coarse.json").write_text(json.dumps({"7": 1, "3": 0}))
    for name in [*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"]:
        dump(tmp_path / name, data=pixels(2), labels=[1, 2])
    train, test = load(Settings(dataset="imagenet32"), tmp_path, tmp_path / "labels")
    assert len(train.fine) == 20
    assert (test.fine.tolist(), test.coarse.tolist()) == ([7, 3], [1, 0])


def sop(root: Path) -> None:
    """Two products with eight images and one with seven, in each part."""
    for part, first in (("train", 1), ("test", 4)):
        lines = ["image_id class_id super_class_id path"]
        for product, count in ((first, 8), (first + 1, 7), (first + 2, 8)):
            for number in range(count):
                name = (
                    f"bicycle_final/{product}_{number}.JPG" if product == first else f"fan_final/{product}_{number}.JPG"
                )
                lines.append(f"{len(lines)} {product} {1 if product == first else 5} {name}")
                paint((root / name).with_suffix(".png"), 8).rename(root / name)
        (root / f"Ebay_{part}.txt").write_text("\n".join(lines) + "\n")


def test_products_with_eight_images_make_split_1(tmp_path: Path) -> None:
    sop(tmp_path)
    train, test = load(Settings(dataset="sop-split1", image_size=28), tmp_path)
    for data in (train, test):
        assert data.fine.tolist() == [0] * 8 + [1] * 8
        assert data.coarse.tolist() == [0] * 8 + [4] * 8
    assert train.images.shape == (16, 3, 28, 28)


def test_label_files_say_what_belongs_to_split_2(tmp_path: Path) -> None:
    sop(tmp_path)
    folder = tmp_path / "labels" / "sop_split2"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        for kind, value in (("path", ["fan_final/3_0.JPG", "fan_final/3_1.JPG"]), ("coarse_label", [4, 4])):
            (folder / f"{part}_{kind}.json").write_text(json.dumps(value))
        (folder / f"{part}_fine_label.json").write_text(json.dumps([0, 0]))
    train, test = load(Settings(dataset="sop-split2"), tmp_path, tmp_path / "labels")
    assert train.coarse.tolist() == test.coarse.tolist() == [4, 4]
    assert train.images.shape[-1] == 256, "a margin for the random crop"
    assert test.images.shape[-1] == 224


CARS = ["AM General Hummer SUV 2000", "Acura Integra Type R 2001", "Dodge Caravan Minivan 1997"]


def test_cars_by_the_devkit_and_by_folders_agree(tmp_path: Path) -> None:
    devkit = tmp_path / "devkit" / "devkit"
    devkit.mkdir(parents=True)
    savemat(devkit / "cars_meta.mat", {"class_names": np.array(CARS, dtype=object)})
    fields = [("class", "O"), ("fname", "O")]
    for part, name in (("train", "cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = np.array([(number + 1, f"{number}.png") for number in range(3)], dtype=fields)
        savemat(devkit / name, {"annotations": rows})
        for number, car in enumerate(CARS):
            path = paint(tmp_path / "devkit" / f"cars_{part}" / f"{number}.png")
            copy = tmp_path / "folders" / part / car / "0.png"
            copy.parent.mkdir(parents=True)
            copy.write_bytes(path.read_bytes())
    settings = Settings(dataset="cars196", image_size=32)
    by_devkit, by_folders = (load(settings, tmp_path / name)[0] for name in ("devkit", "folders"))
    assert [coarse.BODIES[group] for group in by_devkit.coarse.tolist()] == ["suv", "coupe", "van"]
    assert all(torch.equal(*pair) for pair in zip(by_devkit, by_folders, strict=True))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("Rolls-Royce Phantom Drophead Coupe Convertible 2012", "convertible"),
        ("Ford Ranger SuperCab 2011", "cab"),
        ("Aston Martin V8 Vantage Coupe 2012", "coupe"),
        ("Ford E-Series Wagon Van 2012", "van"),
        ("Infiniti G Coupe IPL 2012", "coupe"),
        ("Jaguar XK XKR 2012", "convertible"),
    ],
)
def test_the_body_of_a_car_is_read_off_its_name(name: str, body: str) -> None:
    assert coarse.BODIES[coarse.car(name)] == body


def test_folders_of_coarse_and_fine_classes_plug_in(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("cat/siamese", "cat/tabby", "dog/collie"):
            paint(tmp_path / part / name / "a.png")
    train, _ = load(Settings(dataset="folder"), tmp_path)
    assert (train.coarse.tolist(), train.fine.tolist()) == ([0, 0, 1], [0, 1, 2])


def complaint(settings: Settings, root: Path, labels: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        load(settings, root, labels)
    return str(caught.value)


def test_a_missing_file_is_named_with_the_place_to_get_it(tmp_path: Path) -> None:
    assert "give the one that holds the data of cifar100 to --data" in complaint(Settings(), tmp_path / "nowhere")
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in complaint(Settings(), tmp_path)
    assert "imagenet32_to_fine.json is missing; get it from https://" in complaint(
        Settings(dataset="imagenet32"), tmp_path
    )
    assert "Ebay_train.txt is missing" in complaint(Settings(dataset="sop-split1"), tmp_path)
    assert "train_path.json is missing" in complaint(Settings(dataset="sop-split2"), tmp_path)
    cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    assert "data_batch_3 is missing; get it" in complaint(Settings(dataset="cifartoy-good"), tmp_path)
    sop(tmp_path)
    (tmp_path / "fan_final" / "3_1.JPG").unlink()
    assert re.search(r"3_1\.JPG is missing; get the images", complaint(Settings(dataset="sop-split1"), tmp_path))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    cifar10(tmp_path)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:5000])
    assert "data_batch_3 cannot be read" in complaint(Settings(dataset="cifartoy-good"), tmp_path)
    path = paint(tmp_path / "folder" / "train" / "cat" / "a.png")
    path.write_bytes(path.read_bytes()[:99])
    assert "the image cat/a.png cannot be read" in complaint(Settings(dataset="cifartoy-bad"), tmp_path / "folder")
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips" / "train.zip").write_bytes(b"no zip")
    assert "train.zip is no zip" in complaint(Settings(dataset="cifartoy-bad"), tmp_path / "zips")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'harm'}",)

    for part in ("train", "test"):
        dump(tmp_path / "cifar-100-python" / part, data=Evil())
    assert re.search(r"it asks for \w+\.system", complaint(Settings(), tmp_path))
    assert not (tmp_path / "harm").exists()


def test_fewer_images_and_held_out_ones_are_balanced_and_disjoint() -> None:
    fine = torch.tensor([0] * 40 + [1] * 40 + [2] * 20)
    data = Data(torch.arange(100).view(-1, 1, 1, 1), fine // 2, fine)
    few = data.few(30, seed=0)
    assert few.fine.bincount().tolist() == [10, 10, 10]
    assert torch.equal(few.images, data.few(30, seed=0).images)
    assert not torch.equal(few.images, data.few(30, seed=1).images)
    rest, held_out = data.hold_out(30, seed=0)
    assert held_out.fine.bincount().tolist() == [10, 10, 10]
    assert sorted([*rest.images.flatten().tolist(), *held_out.images.flatten().tolist()]) == list(range(100))


def given(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set to a folder of the real files")
    return Path(os.environ[variable])


def test_the_real_images_of_cifartoy() -> None:
    root = given("MASKCON_DATA") / "cifartoy"
    for part, count in (("train", 40_000), ("test", 8_000)):
        found = pictures(root, part, "")
        assert len(found) == count
        classes, counts = np.unique([picture.path.split("/")[0] for picture in found], return_counts=True)
        assert sorted(classes) == sorted([*coarse.CIFARTOY["cifartoy-good"][0], *coarse.CIFARTOY["cifartoy-good"][1]])
        assert set(counts) == {count // 8}
        images = decode(found[:: count // 100], 32, part).float()
        assert images.std() > 40, "pictures, not blanks"


def test_the_real_label_files() -> None:
    root = given("MASKCON_LABELS")
    to_fine = json.loads((root / "imagenet32" / "imagenet32_to_fine.json").read_text())
    groups = json.loads((root / "imagenet32" / "imagenet_fine_to_coarse.json").read_text())
    assert sorted(to_fine.values()) == list(range(1000))
    assert set(groups.values()) == set(range(12))
    for split, part, count in (
        ("1", "train", 25_368),
        ("1", "test", 25_278),
        ("2", "train", 14_980),
        ("2", "test", 2_996),
    ):
        kinds = [json.loads((root / f"sop_split{split}" / f"{part}_{kind}.json").read_text())
                 for kind in ("path", "coarse_label", "fine_label")]  # fmt: skip
        assert [len(kind) for kind in kinds] == [count] * 3
        assert set(kinds[1]) == set(range(12))
