"""The loops of `examples/loops`, started as a user starts them, in smoke mode, where their library is installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskcon_loss import MaskConLoss, MemoryQueue, SelfConLoss

ROOT = Path(__file__).parents[1]
LOOPS = ROOT / "examples" / "loops"
NEEDS = {
    "moco": "kornia",
    "simclr": "kornia",
    "moco_v3": "kornia",
    "with_metric_learning": "pytorch_metric_learning",
    "with_lightly": "lightly",
    "with_lightning": "lightning",
    "with_accelerate": "accelerate",
    "with_timm": "timm",
    "with_text": "sklearn",
}
LOWEST = 0.08  # chance finds one of ten digits at the first try


def test_every_loop_is_tested_and_has_a_page() -> None:
    names = {path.stem for path in LOOPS.glob("*.py")}
    assert names == set(NEEDS)
    pages = {path.stem for path in (ROOT / "docs" / "loops").glob("*.md")} - {"index"}
    assert pages == names
    for name in names:
        assert f"../../examples/loops/{name}.py" in (ROOT / "docs" / "loops" / f"{name}.md").read_text()


@pytest.mark.parametrize("name", NEEDS)
def test_a_loop_trains_and_prints_its_recalls_before_and_after(name: str, tmp_path: Path) -> None:
    if NEEDS[name] in ("lightly", "timm"):
        pytest.importorskip("torchvision")
    pytest.importorskip(NEEDS[name])
    command = [sys.executable, str(LOOPS / f"{name}.py"), "--smoke"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (?!Recall|---)(.+?) \| (.+) \|$", done.stdout, flags=re.MULTILINE)
    assert [label for label, _ in rows][-1] == "MaskCon, 2 epochs"
    assert len(rows) >= 2
    for _, cells in rows:
        recalls = [float(cell) / 100 for cell in cells.split(" | ")]
        assert len(recalls) == 4
        assert all(LOWEST < recall <= 1 for recall in recalls)
        assert recalls == sorted(recalls)  # more neighbours never find less
    assert rows[0][1] != rows[-1][1]


@pytest.mark.parametrize("path", sorted(LOOPS.glob("*.py")), ids=lambda path: path.stem)
def test_a_loop_is_short_and_shows_what_it_replaces(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 125
    assert "# before: " in text
    assert "weight=0.8" in text


def test_stacked_views_with_their_ids_are_the_loss_of_simclr() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    torch.manual_seed(0)
    one, other = torch.randn(2, 12, 8, dtype=torch.float64).unbind()
    expected = losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=0.1))(one, other)
    labels, ids = torch.zeros(24, dtype=torch.int64), torch.arange(12).repeat(2)
    stacked = SelfConLoss(temperature=0.1)(torch.cat([one, other]), torch.cat([other, one]), labels, sample_ids=ids)
    torch.testing.assert_close(stacked, expected, rtol=1e-12, atol=0.0)


def test_a_queue_of_one_batch_that_is_filled_first_is_the_batch_without_a_queue() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 24, 8, dtype=torch.float64).unbind()
    ids = torch.arange(12).repeat(2)
    criterion, queue = MaskConLoss(weight=0.8), MemoryQueue(24, 8, dtype=torch.float64)
    queue.enqueue(key, ids % 2, ids)
    filled_first = criterion(query, key, ids % 2, queue, sample_ids=ids)
    torch.testing.assert_close(filled_first, criterion(query, key, ids % 2, sample_ids=ids), rtol=1e-12, atol=0.0)


def test_lightning_trains_every_parameter_that_wants_a_gradient_as_ddp_demands() -> None:
    pytest.importorskip("lightning")
    code = f"""
import runpy
model = runpy.run_path({str(LOOPS / "with_lightning.py")!r})["MaskCon"](steps=1)
[group] = model.configure_optimizers()["optimizer"].param_groups
assert {{id(each) for each in group["params"]}} == {{id(each) for each in model.parameters() if each.requires_grad}}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
