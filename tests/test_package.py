"""The package as a whole: names, imports, floors, sizes, docstrings."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import maskcon_loss
from maskcon_loss import functional

ROOT = Path(maskcon_loss.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

FLOORS = {
    "maskcon_loss": 9,
    "maskcon_loss.baselines": 8,
    "maskcon_loss.losses": 7,
    "maskcon_loss.targets": 7,
    "maskcon_loss.queue": 7,
    "maskcon_loss.metrics": 7,
    "maskcon_loss.diagnostics": 7,
    "maskcon_loss.sharded": 6,
    "maskcon_loss.functional": 5,
    "maskcon_loss.ops": 4,
    "maskcon_loss.distributed": 4,
    "maskcon_loss.kernels.streamed": 3,
    "maskcon_loss.kernels.cuda": 3,
    "maskcon_loss.kernels.triton": 2,
    "maskcon_loss.kernels.cpu": 2,
    "maskcon_loss.kernels.sums": 1,
    "maskcon_loss.kernels": 2,
    "maskcon_loss._batch": 1,
    "maskcon_loss._ring": 0,
    "maskcon_loss._precision": 0,
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int:
    return 0 if module.startswith("maskcon_loss._checks") else FLOORS[module]


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    modules = {module_of(source) for source in SOURCES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= (names & modules) or {node.module}
    return found & modules


def test_the_public_names_are_those_that_are_promised() -> None:
    promised = (
        "MaskConLoss MemoryQueue CoarseMaskSoftTargets SelfConLoss SupConLoss GrafitLoss CoInsLoss recall_at_k "
        "functional EMPTY UNLABELLED __version__ diagnose"
    )
    assert set(maskcon_loss.__all__) == set(promised.split())
    assert all(hasattr(maskcon_loss, name) for name in maskcon_loss.__all__)
    assert maskcon_loss.EMPTY != maskcon_loss.UNLABELLED < 0


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_only_point_down(path: Path) -> None:
    module = module_of(path)
    for other in imported(path):
        within_checks = module.startswith("maskcon_loss._checks") and other.startswith("maskcon_loss._checks")
        assert within_checks or floor_of(other) < floor_of(module), f"{module} imports {other}"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_one_concept_stays_one_evening_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 320


def test_the_package_imports_with_nothing_but_torch_and_numpy() -> None:
    """In a fresh process in which everything else that is optional cannot be imported; and no Triton is pulled in."""
    code = """
import sys
blocked = ("triton", "sklearn", "scipy", "matplotlib", "tqdm", "kornia", "torchvision", "lightly", "torchmetrics")
for name in blocked:
    sys.modules[name] = None  # as if it were not installed, also for torch, which asks
import torch
before = set(sys.modules)
import maskcon_loss
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert new <= {"maskcon_loss", "torch"}, new
loss = maskcon_loss.MaskConLoss()(torch.eye(3), torch.eye(3), torch.tensor([0, 0, 1]))
assert torch.isfinite(loss)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent, timeout=120)


functions = [getattr(functional, name) for name in (
    "maskcon", "selfcon", "supcon", "grafit", "coins", "coarse_mask_soft_targets"
)]  # fmt: skip
classes = [value for value in vars(maskcon_loss).values() if inspect.isclass(value)]


@pytest.mark.parametrize(
    "thing", [*classes, maskcon_loss.recall_at_k, maskcon_loss.diagnose], ids=lambda thing: thing.__name__
)
def test_every_public_class_says_what_a_user_asks(thing: type) -> None:
    text = inspect.getdoc(thing) or ""
    for word in ("Args:", ">>>", "Source:", "(B, " if thing is not maskcon_loss.recall_at_k else "(N, D)"):
        assert word in text or (word == "(B, " and ("Shapes and errors are those of" in text or "dim" in text)), word
    assert "Raises:" in text or "errors are those of" in text


@pytest.mark.parametrize("function", functions, ids=lambda function: function.__name__)
def test_every_public_function_has_a_source_and_the_arguments_of_its_module(function) -> None:
    assert "Source:" in (inspect.getdoc(function) or "")
    names = list(inspect.signature(function).parameters)
    assert names[-2:] == ["sample_ids", "memory_ids"]


@pytest.mark.parametrize("loss", ["MaskConLoss", "SelfConLoss", "SupConLoss", "GrafitLoss", "CoInsLoss"])
def test_every_loss_has_the_same_call(loss: str) -> None:
    names = list(inspect.signature(getattr(maskcon_loss, loss).forward).parameters)
    assert [name for name in names if name != "logits"] == [
        "self",
        "query",
        "key",
        "coarse_labels",
        "queue",
        "sample_ids",
    ]


def test_changelog_and_citation_have_the_version_and_one_date() -> None:
    citation = (ROOT.parent / "CITATION.cff").read_text()
    date = re.search(r"^date-released: (\d{4}-\d\d-\d\d)$", citation, flags=re.MULTILINE)
    assert date is not None
    assert f"\nversion: {maskcon_loss.__version__}\n" in citation
    assert f"\n## {maskcon_loss.__version__} ({date[1]})\n" in (ROOT.parent / "CHANGELOG.md").read_text()


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "py.typed").is_file()
