"""Names that stand for parts: ours, those of installed packages, `module:attribute`; and the built-in `toy:...`."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tsalign.common import registry
from tsalign.common.errors import TsalignError
from tsalign.engines import ENGINES
from tsalign.evaluation.procedures import PROCEDURES
from tsalign.recipes import RECIPES
from tsalign.scoring import SCORERS
from tsalign.training.objectives import OBJECTIVES

OURS = {"ours": "collections:Counter"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package whose part `theirs` is `json:dumps`, and that would like to be `ours`, too."""
    metadata = tmp_path / "example-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1\n")
    points = "[tsalign.examples]\ntheirs = json:dumps\nours = json:loads\nbroken = no_such_module:part\n"
    (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
def test_a_name_is_ours_then_a_packages_then_a_modules() -> None:
    import collections
    import json

    assert registry.find("examples", OURS, "ours", "key") is collections.Counter
    assert registry.find("examples", OURS, "theirs", "key") is json.dumps
    assert registry.find("examples", OURS, "json:JSONDecoder", "key") is json.JSONDecoder
    assert registry.names("examples", OURS)[0] == "ours"
    assert {"theirs", "broken"} <= set(registry.names("examples", OURS))


@pytest.mark.usefixtures("package")
def test_a_part_whose_package_is_missing_says_which() -> None:
    with pytest.raises(ModuleNotFoundError) as missing:
        registry.find("examples", OURS, "broken", "key")
    assert missing.value.name == "no_such_module"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "some.key: 'other' is not one of ours, .*theirs"),
        ("no_such_module:part", "some.key: 'no_such_module:part': No module named 'no_such_module'"),
        ("json:nothing", "some.key: 'json:nothing': module 'json' has no attribute 'nothing'"),
        (":part", "some.key: ':part': "),
    ],
)
def test_an_unknown_name_names_the_key_and_what_there_is(name: str, message: str) -> None:
    with pytest.raises(TsalignError, match=message):
        registry.find("examples", OURS, name, "some.key")


def top_level(module: Path) -> set[str]:
    """The names that a module's source defines."""
    names: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        names |= {node.name} if isinstance(node, ast.ClassDef | ast.FunctionDef) else set()
        names |= (
            {one.id for one in node.targets if isinstance(one, ast.Name)} if isinstance(node, ast.Assign) else set()
        )
    return names


@pytest.mark.parametrize("known", [ENGINES, OBJECTIVES, PROCEDURES, RECIPES, SCORERS], ids=len)
def test_every_registered_name_stands_for_something(known: dict[str, str]) -> None:
    for target in known.values():
        module, _, attribute = target.partition(":")
        spec = find_spec(module)  # read, not imported: vLLM takes seconds
        assert spec is not None, target
        assert attribute in top_level(Path(str(spec.origin))), target


def test_registries_import_nothing_that_they_name() -> None:
    code = (
        "import sys, tsalign.engines, tsalign.scoring, tsalign.recipes, tsalign.training.objectives\n"
        "named = [*tsalign.engines.ENGINES.values(), *tsalign.scoring.SCORERS.values(), "
        "*tsalign.recipes.RECIPES.values(), *tsalign.training.objectives.OBJECTIVES.values()]\n"
        "print([target for target in named if target.partition(':')[0] in sys.modules])\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


def test_built_in_names() -> None:
    assert registry.is_builtin("toy:train")
    assert not registry.is_builtin("s3://bucket/train.jsonl")
    assert not registry.is_builtin("toy/train.jsonl")
    assert Path(registry.builtin("model", "toy:policy"), "config.json").exists()
    family, row = next(registry.builtin("rows", "toy:test"))
    assert family
    assert row.keys() == {"prompt"}
    assert {task.name for task in registry.builtin("tasks", "toy:arte")}
    with pytest.raises(TsalignError, match=r"toy:polici: no such model; expected toy:policy, toy:student"):
        registry.builtin("model", "toy:polici")
