"""Asserts what is in the wheel and the source archive of a folder: python -m build && python tests/archives.py dist

The wheel is the package and nothing else; the source archive is what git tracks, and all that its tests read. The
description links to nothing that lies beside it, as the package index has no other file.
"""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ELSEWHERE = (".github/", ".pre-commit-config.yaml", ".readthedocs.yaml")  # of use to the repository's host alone
MADE = {"PKG-INFO"}


def tracked() -> set[str]:
    command = ["git", "ls-files", "--cached"]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")) - {""}


def differences(what: str, found: set[str], expected: set[str]) -> list[str]:
    lacks = [f"{what} lacks {name}" for name in sorted(expected - found)]
    return lacks + [f"{what} has {name}, which does not belong there" for name in sorted(found - expected)]


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)  # one, not those of an earlier version too
    return path


def main(folder: Path) -> list[str]:
    files = tracked()
    with zipfile.ZipFile(only(folder, "*.whl")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (metadata,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    with tarfile.open(only(folder, "*.tar.gz")) as archive:
        sources = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    wrong = differences("the wheel", names, {name for name in files if name.startswith("maskcon_loss/")})
    wrong += differences(
        "the source archive", sources, {name for name in files if not name.startswith(ELSEWHERE)} | MADE
    )
    relative = re.findall(r"\]\((?!https://)([^)]*)\)", metadata)
    return wrong + [f"the description links to {target}, which is not beside it" for target in relative]


if __name__ == "__main__":
    complaints = main(Path(sys.argv[1]))
    sys.exit("\n".join(complaints) or None)
