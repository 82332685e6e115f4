"""What the README promises: its code runs, its commands are those of CI, its links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_its_code_runs_and_trains(code: str) -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    loss, queue = names["loss"], names["queue"]
    assert torch.isfinite(loss)
    assert len(queue) == 20 * 32


def test_the_lines_that_differ_are_those_of_its_code() -> None:
    added = [line[1:].split("#")[0].strip() for line in blocks("diff")[0].splitlines() if line.startswith("+")]
    code = [line.strip() for line in blocks("python")[0].splitlines()]
    assert len(added) == 2
    assert all(line in code for line in added)


def test_it_is_short_and_has_its_two_commands_as_ci_runs_them() -> None:
    assert len(README.splitlines()) <= 150
    for command in ('pip install -e ".[examples]" && python examples/digits.py', 'pip install -e ".[test]" && pytest'):
        assert command in README
    ci = (ROOT / ".ci" / "run").read_text()
    assert '-e ".[test]"\npytest\n' in ci


def test_files_it_points_to_exist() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target
