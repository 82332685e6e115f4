"""What the pages promise: every public name has a place, every page can be reached, every equation that the code cites
is there."""

import inspect
import re
from pathlib import Path

import pytest

import maskcon_loss
from maskcon_loss import functional

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*") if path.suffix in (".md", ".rst"))
API = "\n".join(path.read_text() for path in sorted((DOCS / "api").glob("*.rst")))
DOCUMENTED = set(re.findall(r"^\.\. (?:auto)?(?:class|function|data|module):: ([\w.]+)$", API, flags=re.MULTILINE))
FUNCTIONS = [
    name
    for name, value in inspect.getmembers(functional, inspect.isfunction)
    if value.__module__ == functional.__name__ and not name.startswith("_")
]

MATHS = (DOCS / "maths.md").read_text()
EQUATIONS = re.findall(r"\$\$\n(.*?)\n\$\$ \((eq-[\w-]+)\)", MATHS, flags=re.DOTALL)
SOURCES = sorted((ROOT / "maskcon_loss").rglob("*.py"))


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).with_suffix("").as_posix()


def entries(page: Path) -> set[str]:
    """The pages that a page's tables of contents name."""
    text = page.read_text()
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^\.\. toctree::\n((?: +.*\n|\n)*)", text, flags=re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    folder = page.parent.relative_to(DOCS)
    return {(folder / line).as_posix() for line in lines if line and not line.startswith(":")}


def cited(source: str) -> set[int]:
    """The equations of this project that a file cites; those of papers stand after a paper's name."""
    text = re.sub(r"Source:.*?(?=\n\s*\n|\"\"\")", "", source, flags=re.DOTALL)
    text = re.sub(r"its eq\. \d+|eq\. \d+\)", "", text)
    found = re.findall(r"\b[Ee]q(?:uation)?\.? \((\d+)\)(?: (?:to|and) \((\d+)\))?", text)
    return {int(number) for pair in found for number in pair if number}


@pytest.mark.parametrize("name", sorted(set(maskcon_loss.__all__) - {"functional"}))
def test_every_public_name_is_in_the_api_pages(name: str) -> None:
    assert name in DOCUMENTED


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_in_the_api_pages(name: str) -> None:
    assert name in DOCUMENTED
    assert "maskcon_loss.functional" in DOCUMENTED


def test_the_api_pages_name_nothing_that_is_not_there() -> None:
    for name in DOCUMENTED - {"maskcon_loss.functional"}:
        assert hasattr(maskcon_loss, name) or hasattr(functional, name), name


def test_every_page_is_in_a_table_of_contents_once() -> None:
    listed = [entry for page in PAGES for entry in entries(page)]
    assert sorted(listed) == sorted({name_of(page) for page in PAGES} - {"index"})


def test_every_equation_that_the_code_cites_is_numbered_in_the_maths() -> None:
    numbers = set().union(*(cited(path.read_text()) for path in SOURCES))
    assert {1, 2, 3} <= numbers, "the search finds none: has the way of citing changed?"
    assert numbers <= set(range(1, len(EQUATIONS) + 1))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_numbered_equations_of_the_code_are_those_of_the_maths(number: int) -> None:
    in_code = re.search(rf"(.*)& \({number}\)", inspect.getdoc(functional) or "")
    assert in_code is not None
    plain = [re.sub(r"\s|&|\\!|\\,", "", text) for text in (in_code[1], EQUATIONS[number - 1][0])]
    assert plain[0] in plain[1]


def test_the_pages_cite_equations_that_exist() -> None:
    labels = {label for _, label in EQUATIONS}
    for page in PAGES:
        assert set(re.findall(r"\{eq\}`([\w-]+)`", page.read_text())) <= labels, page.name
