"""The loop of `examples.reproduce`: every method, exact resume, the sweep, the table."""

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples.reproduce import __main__ as command
from examples.reproduce.augment import AutoAugmentEach, augmentations, plain
from examples.reproduce.data import Data
from examples.reproduce.formats import DataError
from examples.reproduce.machine import Machine
from examples.reproduce.model import Encoder, load_backbone
from examples.reproduce.patches import STRIDE, Patches
from examples.reproduce.settings import METHODS, PAPER, Settings, defaults
from examples.reproduce.table import finished, tables
from examples.reproduce.train import rate, train
from maskcon_loss import recall_at_k

TINY = Settings(
    dataset="cifartoy-good", backbone="resnet10", width=4, stem="half", dim=8, queue=24, batch=16, epochs=2, warm_up=1
)


def colours(count: int, seed: int) -> Data:
    """Images of four colours, which are the fine classes; two coarse ones."""
    fine = torch.arange(count) % 4
    generator = torch.Generator().manual_seed(seed)
    palette = torch.tensor([[220, 30, 30], [200, 120, 40], [30, 30, 220], [40, 160, 200]])
    noise = torch.randint(-30, 31, (count, 3, 32, 32), generator=generator)
    images = (palette[fine].view(count, 3, 1, 1) + noise).clamp(0, 255).to(torch.uint8)
    return Data(images, fine // 2, fine)


TRAIN, TEST = colours(40, 0), colours(24, 1)


def machine() -> Machine:
    return Machine(device="cpu", amp="none", profile=True)


@pytest.fixture(scope="module")
def all_methods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        train(replace(TINY, method=method, strong="crop", warm_start=1), machine(), TRAIN, TEST, out)
    return out


def test_every_method_trains_from_one_warm_start_and_is_judged(all_methods: Path) -> None:
    results = finished(all_methods)
    assert sorted(result["settings"]["method"] for result in results) == sorted(METHODS)
    for result in results:
        assert list(result["recall"]) == ["1", "2", "5", "10"]
        assert 25 < result["recall"]["1"] <= result["recall"]["10"] <= 100
        assert result["start"] == "1 epochs of SelfCon from scratch"
        assert set(result["shares"]) == {"augmentation", "encoder", "loss", "queue"}
        assert sum(result["shares"].values()) == pytest.approx(1, abs=1e-3)
    warm = torch.load(all_methods / "cifartoy-good" / "warm-seed0" / "checkpoint.pt", weights_only=True)
    assert warm["epoch"] == 1
    weights = [
        torch.load(all_methods / "cifartoy-good" / name / "checkpoint.pt", weights_only=True)["model"]
        for name in ("supcon-seed0", "supfine-seed0", "supce-seed0")
    ]
    first = [state["backbone.conv1.weight"] for state in weights]
    assert not torch.equal(first[0], first[1]), "SupFINE is told the fine labels"
    assert not torch.equal(first[0], first[2])
    assert torch.equal(warm["model"]["classifier.weight"], weights[0]["classifier.weight"]), "SupCon has no use for it"


def test_a_log_has_a_row_for_every_epoch(all_methods: Path) -> None:
    with (all_methods / "cifartoy-good" / "selfcon-seed0" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(math.isfinite(float(row["loss"])) and float(row["images_per_s"]) > 0 for row in rows)


def test_the_table_sets_runs_beside_the_paper_and_fills_no_cell_that_was_not_run(all_methods: Path) -> None:
    text = tables(finished(all_methods))
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in text.splitlines() if "|" in line}
    assert len(rows) == 9, text  # a head, a rule, and the seven methods; not the warm start
    assert rows["MaskCon, w 1, T' 0.05"][3] == "90.28"
    assert [rows["SupCon"][column] for column in (3, 5, 7, 9)] == [""] * 4
    assert "from scratch" in text
    assert "not comparable with the paper's numbers" in text
    assert tables([]) == "No run is finished here."


def test_seeds_are_averaged_and_machines_kept_apart(all_methods: Path) -> None:
    one = next(result for result in finished(all_methods) if result["settings"]["method"] == "SelfCon")
    other, far = json.loads(json.dumps(one)), json.loads(json.dumps(one))
    one["recall"]["1"], other["recall"]["1"], other["settings"]["seed"] = 50.0, 60.0, 1
    assert "| SelfCon | 2 | 55.00 ± 7.07 |" in tables([one, other])
    far["hardware"] = "another"
    assert tables([one, far]).count("**cifartoy-good**") == 2


@pytest.mark.parametrize(("warm", "backbone"), [(0, "resnet10"), (1, "resnet10"), (0, "patches")])
def test_interrupted_and_resumed_ends_in_the_same_weights(warm: int, backbone: str, tmp_path: Path) -> None:
    settings = replace(TINY, warm_start=warm, backbone=backbone)
    whole = train(settings, machine(), TRAIN, TEST, tmp_path / "whole")
    starts = 0
    while (pieces := train(settings, machine(), TRAIN, TEST, tmp_path / "pieces", stop_after=1)) is None:
        starts += 1
    assert starts >= 1
    assert whole is not None
    assert whole["recall"] == pieces["recall"]
    states = [
        torch.load(tmp_path / name / "cifartoy-good" / settings.name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "pieces")
    ]
    for part in ("model", "momentum", "queue"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), (part, name)
    assert [row["loss"] for row in states[0]["history"]] == [row["loss"] for row in states[1]["history"]]


def test_a_run_does_not_go_on_in_another_precision(tmp_path: Path) -> None:
    assert train(TINY, machine(), TRAIN, TEST, tmp_path, stop_after=1) is None
    with pytest.raises(ValueError, match="was written with --amp none, and this run has --amp bf16"):
        train(TINY, Machine(device="cpu", amp="bf16"), TRAIN, TEST, tmp_path)


def test_a_damaged_file_of_weights_or_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    assert train(TINY, machine(), TRAIN, TEST, tmp_path, stop_after=1) is None
    checkpoint = tmp_path / "cifartoy-good" / TINY.name / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read as a file of"):
        train(TINY, machine(), TRAIN, TEST, tmp_path)
    (tmp_path / "weights.pth").write_text("hi")
    with pytest.raises(DataError, match=r"weights.pth cannot be read"):
        load_backbone(Encoder(TINY, 2), tmp_path / "weights.pth")


def test_patches_need_images_of_sixteen_pixels() -> None:
    with pytest.raises(ValueError, match="needs images of 16 pixels a side or more, but they have 12"):
        Encoder(replace(TINY, backbone="patches", image_size=12), 2)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    losses = []
    for seed in (0, 1):
        train(replace(TINY, seed=seed, epochs=1), machine(), TRAIN, TEST, tmp_path)
        losses.append((tmp_path / "cifartoy-good" / f"maskcon-w1-t0.05-seed{seed}" / "log.csv").read_text())
    assert losses[0].split(",")[3] != losses[1].split(",")[3]


def test_a_folder_with_other_settings_is_not_overwritten(all_methods: Path) -> None:
    settings = replace(TINY, method="SupCon", strong="crop", warm_start=1)
    finished_before = train(settings, machine(), TRAIN, TEST, all_methods)
    assert finished_before is not None
    with pytest.raises(ValueError, match=r"other settings \(lr 0.02 and 0.5\); give another --out"):
        train(replace(settings, lr=0.5), machine(), TRAIN, TEST, all_methods)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are 40 training images, fewer than the batch of 64"):
        train(replace(TINY, batch=64), machine(), TRAIN, TEST, tmp_path)


def test_the_rate_warms_up_in_a_line_and_falls_along_a_cosine() -> None:
    settings = Settings(epochs=25, warm_up=5, lr=0.02)
    expected = {0: 0.0, 2.5: 0.01, 5: 0.02, 15: 0.01, 25: 0.0}
    assert {epoch: rate(settings, epoch) for epoch in expected} == pytest.approx(expected, abs=1e-12)


def test_autoaugment_draws_for_every_image() -> None:
    one = colours(1, 0).images.float() / 255
    torch.manual_seed(0)
    views = AutoAugmentEach("cifar10")(one.expand(64, -1, -1, -1))
    assert views.shape == (64, 3, 32, 32)
    assert torch.isfinite(views).all()
    distinct = {tuple(view.flatten()[::97].mul(255).round().tolist()) for view in views}
    assert len(distinct) > 20


@pytest.mark.parametrize("dataset", ["cifar100", "cars196", "sop-split1"])
def test_views_are_normalised_batches_of_the_right_size_and_repeat_with_the_seed(dataset: str) -> None:
    settings = defaults(dataset, "MaskCon")
    side = settings.size * 8 // 7 if settings.size > 64 else 32
    images = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
    for view in augmentations(settings):
        torch.manual_seed(0)
        first = view(images)
        torch.manual_seed(0)
        torch.testing.assert_close(first, view(images))
        assert first.shape == (4, 3, settings.size, settings.size)
        assert first.min() >= -2.2
        assert first.max() <= 2.7
    assert plain(settings)(images).shape == first.shape


def test_resnet18_is_torchvisions_in_size_and_names(tmp_path: Path) -> None:
    large = Encoder(replace(Settings(), image_size=224), 20)
    assert sum(parameter.numel() for parameter in large.backbone.parameters()) == 11_689_512 - 513_000
    names = large.backbone.state_dict()
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "layer4.1.bn2.weight"} <= set(names)
    torch.save({**names, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "weights.pth")
    small = Encoder(Settings(), 20)
    said = load_backbone(small, tmp_path / "weights.pth")
    assert said.endswith("from weights.pth; anew: conv1.weight")
    assert torch.equal(small.backbone.state_dict()["layer4.1.conv2.weight"], names["layer4.1.conv2.weight"])
    assert small.backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 512)
    with pytest.raises(ValueError, match="probably of another architecture"):
        load_backbone(Encoder(TINY, 2), tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError, match="there is no file of weights"):
        load_backbone(small, tmp_path / "nowhere.pth")


def striped(count: int) -> Data:
    """Noisy images of four directions of stripes, which begin anew in each of 16 squares; colour tells nothing."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.arange(count) % 4
    angle, phase = fine * math.pi / 4, 6.3 * torch.rand(count, 4, 4, generator=generator)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    along = x * angle.cos().view(-1, 1, 1) + y * angle.sin().view(-1, 1, 1)
    waves = (along + phase.repeat_interleave(8, 1).repeat_interleave(8, 2)).sin().unsqueeze(1).expand(-1, 3, -1, -1)
    noise = torch.randn(waves.shape, generator=generator)
    return Data((128 + 50 * waves + 30 * noise).clamp(0, 255).to(torch.uint8), fine // 2, fine)


def test_patches_find_an_image_that_was_shifted_by_a_stride_where_pixels_lose_it() -> None:
    data = striped(200)
    images = plain(TINY)(data.images)
    torch.manual_seed(0)
    layer = Patches(16)
    layer.fit(images)
    assert layer.weight.flatten(1).mean(1).abs().max() < 1e-5  # a patch's mean changes nothing
    features = layer(images)
    assert features.shape == (200, layer.num_features)
    torch.testing.assert_close(features.mean(0), torch.zeros(layer.num_features), rtol=0, atol=1e-4)
    shifted, which = images.roll((STRIDE, STRIDE), (2, 3)), torch.arange(200)
    pixels, patches = (
        recall_at_k(view(images).flatten(1), which, 1, gallery=view(shifted).flatten(1), gallery_labels=which)[1]
        for view in (torch.Tensor.clone, layer)
    )
    assert pixels < 0.5
    assert patches > 0.95


def test_patches_see_contrast_and_not_brightness() -> None:
    images = plain(TINY)(striped(40).images)
    layer = Patches(8)
    layer.fit(images)
    torch.testing.assert_close(layer(images + 0.7), layer(images), rtol=0, atol=1e-2)


def test_an_unknown_backbone_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="it is one of resnet10, resnet18, resnet34, patches, timm:NAME or torchvision:NAME"
    ):
        Encoder(replace(TINY, backbone="resnet9"), 2)


def test_the_papers_settings_are_the_defaults() -> None:
    assert set(PAPER) >= {"cifar100", "cars196", "imagenet32", "sop-split1"}
    usual = defaults("cifar100", "MaskCon")
    assert (usual.lr, usual.epochs, usual.batch, usual.queue, usual.momentum) == (0.02, 200, 128, 8192, 0.99)
    assert defaults("sop-split1", "MaskCon").weight == 0.8
    assert defaults("cars196", "MaskCon").target_temperature == 0.1
    assert defaults("imagenet32", "SupCon").queue == 16384


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"method": "Simclr"}, "method 'Simclr' is not known; it is one of SelfCon"),
        ({"batch": 0}, "batch is 0, but it must be at least 1"),
        ({"stem": "nope"}, "stem 'nope' is not known; it is one of auto, small, half, large."),
        ({"warm_up": -1}, "warm_up is -1, but it cannot be negative"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(**wrong)


def asked(*flags: str) -> list[str]:
    return [settings.name for settings in command.runs(command.parser().parse_args(["--data", "x", *flags]))]


def test_several_values_make_a_sweep() -> None:
    swept = asked("--weight", "0.5", "1", "--target-temperature", "0.05", "0.1", "--seed", "0", "1")
    assert len(swept) == 8
    assert "maskcon-w0.5-t0.1-seed1" in swept
    assert asked("--method", "all", "--weight", "0.2", "0.5").count("supcon-seed0") == 1
    assert asked("--method", "grafit") == ["grafit-w0.5-seed0"]


def test_the_command_runs_from_pictures_to_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for part, data in (("train", TRAIN), ("test", TEST)):
        for number, (image, group, fine) in enumerate(zip(*data, strict=True)):
            folder = tmp_path / "data" / part / str(int(group)) / str(int(fine))
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    flags = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--dataset", "folder", "--epochs", "1"]
    tiny = ["--backbone", "resnet10", "--width", "4", "--batch", "16", "--queue", "24", "--dim", "8"]
    monkeypatch.setattr(sys, "argv", ["reproduce", *flags, *tiny, "--method", "maskcon", "--device", "cpu"])
    command.main()
    assert "maskcon-w1-t0.05-seed0: R@1" in capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text().startswith("**folder**")
    assert (tmp_path / "out" / "table.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["reproduce", *flags, "--lr", "1"])
    with pytest.raises(SystemExit):
        command.main()
    assert "holds a run with other settings" in capsys.readouterr().err
