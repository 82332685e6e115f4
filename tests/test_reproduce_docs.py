"""What the page on the reproduction shows is what the stored runs say."""

from pathlib import Path

from examples.reproduce.table import finished, tables

DOCS = Path(__file__).parents[1] / "docs"


def test_the_table_of_the_page_is_that_of_the_stored_runs() -> None:
    results = finished(DOCS / "reproduction")
    assert results
    assert tables(results) in (DOCS / "reproduction.md").read_text()
