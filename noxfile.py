"""The checks of CI one by one, each in a fresh environment: nox --list, nox -s lint, nox -s "tests(3.12-newest)".

`bash .ci/run` is what must hold before a change lands; this is for other versions of Python and PyTorch.
"""

import tempfile

import nox

nox.options.sessions = ["lint", "types", "docs", "examples", "build"]

OLDEST, NEWEST = ("torch==2.6.0", "numpy<2.4"), ("torch",)  # its Triton is interpreted with that NumPy only
VERSIONS = [
    nox.param(python, torch, id=f"{python}-{name}")
    for python in ("3.11", "3.12", "3.13", "3.14")
    for name, torch in (("oldest", OLDEST), ("newest", NEWEST))
    if (python, torch) != ("3.14", OLDEST)  # PyTorch came to Python 3.14 later
]


@nox.session
@nox.parametrize("python, torch", VERSIONS)
def tests(session: nox.Session, torch: tuple[str, ...]) -> None:
    """The whole suite; what follows -- goes to pytest."""
    session.install(*torch, "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, of the package and as a user sees them."""
    session.install("-e", ".[dev]")
    session.run("pyright")
    session.run("pytest", "tests/test_types.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The pages and their examples, where a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("sphinx-build", "-W", "-b", "doctest", "docs", "docs/_build/doctest")


@nox.session
def examples(session: nox.Session) -> None:
    """The examples, in smoke mode."""
    session.install("-e", ".[examples]")
    with tempfile.TemporaryDirectory() as out:
        session.run("python", "examples/digits.py", "--smoke", "--out", out)
        launcher = ("torchrun", "--standalone", "--nproc-per-node", "2")
        session.run(*launcher, "examples/ddp.py", "--smoke", "--checkpoint", f"{out}/ddp.pt")


@nox.session
def build(session: nox.Session) -> None:
    """Wheel and source archive, and what is in them."""
    session.install("build", "twine")
    with tempfile.TemporaryDirectory() as out:
        session.run("python", "-m", "build", "--outdir", out)
        session.run("python", "tests/archives.py", out)
        session.run("twine", "check", "--strict", *[f"{out}/maskcon_loss-*{end}" for end in (".whl", ".tar.gz")])
