"""The launched example, as a user starts it: two processes, then one that goes on from their checkpoint."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def table_of(*command: str) -> list[str]:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


def test_two_processes_train_and_one_goes_on_from_their_checkpoint(tmp_path: Path) -> None:
    example = ("examples/ddp.py", "--smoke", "--checkpoint", str(tmp_path / "ddp.pt"))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = table_of(*launcher, *example, "--sharded")
    assert "Processes: 2, on " in two[-1]
    assert "Queue: 256 of its 512 keys on process 0." in two[-1]
    one = table_of(*example)
    assert one[0].endswith("2 epochs are done, going on.")
    assert one[1:-1] == two[:-1]  # the same encoder, so the same table
    assert [line.count("|") for line in two[:-1]] == [6, 6, 6, 6]
    assert two[3].startswith("| MaskCon, 2 epochs |")
    assert two[3].split("|")[2:] != two[2].split("|")[2:]
    other = (sys.executable, "examples/ddp.py", "--epochs", "3", "--checkpoint", str(tmp_path / "ddp.pt"))
    refused = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert "is of a training of 2 epochs, whose learning rate falls to 0 at their end; go on with" in refused.stderr
