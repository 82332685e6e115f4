"""Real processes (gloo): what every rank holds after it has enqueued its own rows, and what happens when one fails."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rank_checks
import rank_checks_sharded
import torch
from launch import launch, run_checks

from maskcon_loss import MemoryQueue

CHECKS = rank_checks.CHECKS + rank_checks_sharded.CHECKS


@pytest.fixture(scope="module", params=[2, 3], ids=["two_ranks", "three_ranks"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """The ranks go through all checks in one life, as starting them is what takes time."""
    folder = tmp_path_factory.mktemp("ranks")
    launch(run_checks, request.param, str(folder), CHECKS)
    return request.param, folder


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_all_ranks(check: Callable[..., None], ranks: tuple[int, Path]) -> None:
    world, folder = ranks
    for rank in range(world):
        failed = folder / f"{check.__name__}.{rank}.failed"
        assert not failed.exists(), f"rank {rank}: {failed.read_text()}"
        assert (folder / f"{check.__name__}.{rank}.passed").exists(), f"rank {rank} hung or died"


def test_without_a_process_group_nothing_is_gathered_and_a_shard_is_the_whole() -> None:
    sharded, whole = MemoryQueue(7, 3, sharded=True), MemoryQueue(7, 3)
    for queue in (sharded, whole):
        queue.enqueue(torch.arange(15.0).reshape(5, 3), torch.arange(5))
    assert len(sharded) == len(whole) == 5
    for name, buffer in whole.state_dict().items():
        assert torch.equal(sharded.full_state_dict()[name], buffer), name


def test_a_rank_that_dies_or_stalls_is_named_within_the_time_limit(tmp_path: Path) -> None:
    hows = ("killed", "stalled")
    for how in hows:
        (tmp_path / how).mkdir()
    with ThreadPoolExecutor() as pool:  # side by side, as they mostly wait
        list(pool.map(lambda how: launch(rank_checks.die, 3, str(tmp_path / how), how, limit=45, awaited=2), hows))
    for how in hows:
        for rank in range(2):
            seconds, sentence = (tmp_path / how / f"{rank}.told").read_text().split("\n", 1)
            assert float(seconds) < 4 + 3 * 3 + 10  # its time limit, the answers, and a busy machine
            beginning = f"`MemoryQueue.enqueue` on rank {rank} of 3 could not finish: rank 2 did not answer."
            assert sentence.startswith(beginning)
