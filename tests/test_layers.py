"""The layers of the package: what holds now, and that an import which breaks them is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Import-linter on the package in `folder`, by this project's contracts."""
    command = [Path(sys.executable).parent / "lint-imports", "--config", ROOT / "pyproject.toml", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's modules, to break."""
    ours = ROOT / "tsalign"
    shutil.copytree(ours, tmp_path / "tsalign", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    return tmp_path


def test_the_package_keeps_its_layers() -> None:
    linted = lint_imports(ROOT)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("common/seeds.py", "from tsalign.recipes import find", "Imports point downward"),
        ("data/chat.py", "def lazy():\n    import tsalign.engines", "Imports point downward"),
        ("recipes/pad/diversity.py", "from tsalign.recipes.arte import irt", "No recipe imports another"),
        ("scoring/function.py", "from tsalign.toy import oracle", "imports the toy world"),
        ("recipes/pad/rankings.py", "from tsalign.toy import oracle", "imports the toy world"),
        ("surprise.py", "", "Imports point downward"),
    ],
)
def test_an_import_that_breaks_a_contract_is_noticed(package: Path, module: str, line: str, broken: str) -> None:
    with (package / "tsalign" / module).open("a") as file:
        file.write(f"\n\n{line}\n")
    linted = lint_imports(package)
    assert linted.returncode == 1, linted.stdout
    verdicts = [verdict for verdict in linted.stdout.splitlines() if " BROKEN" in verdict]
    assert any(broken in verdict for verdict in verdicts), linted.stdout
