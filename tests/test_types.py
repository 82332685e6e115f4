"""The types that a user's editor shows, checked by pyright where it is installed."""

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maskcon_loss

SNIPPET = Path(__file__).with_name("typed_user.py")


@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="pyright is not installed")
def test_a_user_sees_tensors_and_wrong_calls_are_flagged(tmp_path: Path) -> None:
    shutil.copy(SNIPPET, tmp_path)  # out of the tree, so that the installed package is looked at
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, SNIPPET.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    found = {
        each["range"]["start"]["line"] + 1: each["message"] for each in json.loads(done.stdout)["generalDiagnostics"]
    }
    lines = SNIPPET.read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("  # wrong")}
    assert len(expected) > 10
    assert found.keys() == expected, [(lines[number - 1], found.get(number)) for number in found.keys() ^ expected]


@pytest.mark.parametrize("module", ["losses", "baselines", "targets"])
def test_the_typed_call_is_that_of_forward(module: str) -> None:
    tree = ast.parse((Path(maskcon_loss.__file__).parent / f"{module}.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    forward, call = (
        [ast.dump(node.args) for node in functions if node.name == name] for name in ("forward", "__call__")
    )
    assert len(forward) == 1
    assert call == forward
