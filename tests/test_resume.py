"""A run that is killed and resumed goes on as if nothing had happened, bit for bit."""

import signal
from pathlib import Path

import pytest
import torch
from launch import launch
from resume_run import EVERY, SAMPLES, train

DIES_AT = {1: 18, 2: 10}  # in the second epoch, between two checkpoints


def start(world: int, folder: Path, log: str, die_at: int | None, resume: bool) -> list[int | None]:
    return launch(train, world, str(folder), log, die_at, resume, limit=60)


@pytest.mark.parametrize("world", [1, 2])
def test_a_killed_run_resumes_with_the_losses_of_an_unbroken_one(world: int, tmp_path: Path) -> None:
    die_at = DIES_AT[world]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (unbroken, broken):
        folder.mkdir()
    assert start(world, unbroken, "whole", None, False) == [0] * world
    assert -signal.SIGKILL in start(world, broken, "killed", die_at, False)
    last = die_at // EVERY * EVERY
    assert last < die_at
    position = int(torch.load(broken / "0.pt", weights_only=True)["queue"]["position"])
    assert position not in (0, 13 - 1)  # in the middle of a wrap
    assert start(world, broken, "resumed", None, True) == [0] * world
    for rank in range(world):
        whole, killed, resumed = (
            (folder / f"{log}.{rank}").read_text().splitlines()
            for folder, log in ((unbroken, "whole"), (broken, "killed"), (broken, "resumed"))
        )
        assert killed == whole[: len(killed)]
        assert len(killed) >= die_at - 1
        assert resumed == whole[last:]
        assert len(resumed) > SAMPLES // (4 * world)  # over the end of an epoch
        assert len({line.split()[1] for line in whole}) == len(whole)
