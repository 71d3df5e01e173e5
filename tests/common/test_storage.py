"""Locations: on this machine or elsewhere, and what is said where a filesystem's package is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tsalign.cli import app
from tsalign.common.errors import TsalignError
from tsalign.common.storage import is_remote, resolve
from tsalign.config import ModelConfig
from tsalign.runs.artifacts import model_from


@pytest.fixture
def without_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where s3fs is not installed."""
    monkeypatch.setitem(sys.modules, "s3fs", None)


@pytest.mark.parametrize(
    ("location", "remote"),
    [
        ("prompts.jsonl", False),
        ("/data/*.parquet", False),
        ("file:///data/prompts.jsonl", False),
        ("toy:train", False),
        ("s3://bucket/prompts", True),
        ("gs://bucket/prompts", True),
        ("hf://datasets/org/name", True),
        ("anything://else", True),
    ],
)
def test_where_a_location_is_is_told_by_its_name(location: str, remote: bool) -> None:
    assert is_remote(location) is remote


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(resolve("runs")) == str(tmp_path / "runs")
    assert str(resolve("~/runs")) == str(Path.home() / "runs")


@pytest.mark.usefixtures("without_s3")
def test_a_missing_filesystem_is_one_line_that_names_the_extra() -> None:
    with pytest.raises(TsalignError, match=r"^s3://bucket/runs: cannot open .* pip install 'tsalign\[s3\]'$"):
        resolve("s3://bucket/runs")
    with pytest.raises(TsalignError, match=r"tsalign\[s3\]"):
        model_from(ModelConfig(model="s3://bucket/model"), "policy")
    with pytest.raises(TsalignError, match=r"foo://runs: .*Protocol not known: foo"):
        resolve("foo://runs")


@pytest.mark.usefixtures("without_s3")
def test_a_run_into_storage_that_cannot_be_opened_ends_in_one_line() -> None:
    config = str(Path(__file__).parents[2] / "configs" / "ts_align_paper.yaml")
    result = CliRunner().invoke(app, ["run", config])
    assert result.exit_code == 2
    assert result.stderr == "s3://your-bucket/runs: cannot open s3:// here: pip install 'tsalign[s3]'\n"
