"""The examples, started as a user starts them, in smoke mode."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
METHODS = ["SelfCon", "SupCE", "SupCon", "Grafit", "CoIns", "MaskCon", "SupFINE"]


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "examples/digits.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.parametrize("coarse", ["parity", "half"])
def test_digits_prints_seven_rows_and_draws_two_pictures(coarse: str, tmp_path: Path) -> None:
    done = start("--smoke", "--coarse", coarse, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    for method in METHODS:
        row = next((row for row in rows if row and method in row[:2]), None)
        assert row is not None, done.stdout
        recalls = [float(cell) for cell in row if cell.replace(".", "", 1).isdigit()][:4]
        assert len(recalls) == 4
        assert all(10 < recall <= 100 for recall in recalls)
    for picture in ("soft_targets.png", "embedding.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_digits_refuses_what_it_does_not_know() -> None:
    done = start("--coarse", "colour")
    assert done.returncode == 2
    assert "invalid choice" in done.stderr
