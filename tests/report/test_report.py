"""Tables and the picture of synthetic runs."""

from __future__ import annotations

import json
import struct
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from synthetic import SETS, evaluation, make_run
from upath import UPath

from tsalign.report.plots import plot_run
from tsalign.report.summary import results, stage_seconds, summarise
from tsalign.report.table import run_table, runs_table, variants_table


def text(renderable: object) -> str:
    console = Console(width=120, record=True, file=StringIO())
    console.print(renderable, highlight=False)
    return console.export_text()


def test_run_table(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "demo"))
    lines = text(run_table(folder)).splitlines()
    assert lines[0].split() == ["demo", "·", "ts-align", "·", "done"]
    assert [line.split()[0] for line in lines[2:9]] == sorted(SETS)
    assert lines[2].split() == ["add", "0.300", "0.460", "66.0", "%"]
    assert lines[9].split() == ["mean", "0.450", "0.610", "69.0", "%", "66.0", "-", "72.0", "%"]
    assert "student ~ teacher   0.730 -> 0.790" in lines
    assert "teacher evaluations 1,600 (2.00 per prompt)" in lines
    assert lines[11].startswith("other temperatures  ")
    assert text(run_table(folder)) == "\n".join(lines) + "\n"


def test_failed_run_shows_its_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "broken", 0, {"run": "failed", "error": "TsalignError: no [such] file"})
    assert "TsalignError: no [such] file" in text(run_table(UPath(folder)))


def test_agreement_may_be_unknown(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "single", 1))
    file = folder / "iterations" / "1" / "agreement" / "summary.json"
    content = json.loads(file.read_text())
    for pairs in ("fixed", "newest"):
        content[pairs]["teacher"] = {"before": None, "after": None}
    file.write_text(json.dumps(content))
    assert "student ~ teacher   - -> -" in text(run_table(folder))
    assert plot_run(folder).exists()


def test_runs_and_variants_tables(tmp_path: Path) -> None:
    one, two = (UPath(make_run(tmp_path, name, rounds)) for name, rounds in (("one", 1), ("two", 2)))
    lines = text(variants_table({"ts-align": [two], "random": [one]})).splitlines()
    assert lines[1].split() == ["ts-align", *["69.0", "%", "67.0", "%", "64.0", "%", "79.0", "%"], "1,600"]
    assert lines[2].split() == ["random", *["61.0", "%", "59.0", "%", "56.0", "%", "76.0", "%"], "800"]
    assert "no" not in text(runs_table([]))


def test_several_seeds_show_mean_and_spread(tmp_path: Path) -> None:
    folders = [UPath(make_run(tmp_path, f"seed{rounds}", rounds)) for rounds in (1, 2)]
    (line,) = text(variants_table({"ts-align": folders})).splitlines()[1:]
    assert line.split()[:5] == ["ts-align", "65.0", "±", "5.7", "%"]  # of 61 and 69


def test_steps_of_a_procedure_have_rows_of_their_own(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "rewriting", 1))
    draft = folder / "iterations" / "1" / "evaluation_draft" / "summary.json"
    draft.parent.mkdir()
    draft.write_text(json.dumps({**evaluation(0), "iteration": 1}))
    assert results(folder)["draft win rate T=1.0"] == pytest.approx(0.53)
    assert "draft               53.0 %" in text(run_table(folder)).splitlines()


def test_a_run_that_ends_with_exact_match(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "tasks", 0))
    right = {
        "0": {"mean": 0.5, "by_task": {"add": 0.4, "sort": 0.6}},
        "3": {"mean": 1, "by_task": {"add": 1, "sort": 1}},
    }
    (folder / "exact_match").mkdir()
    (folder / "exact_match" / "summary.json").write_text(json.dumps({"exact_match": right}))
    lines = text(run_table(folder)).splitlines()
    assert [line.split() for line in lines[1:5]] == [
        ["task", "0-shot", "3-shot"],
        ["add", "40.0", "%", "100.0", "%"],
        ["sort", "60.0", "%", "100.0", "%"],
        ["mean", "50.0", "%", "100.0", "%"],
    ]
    assert results(folder) == {"0-shot exact match": 0.5, "3-shot exact match": 1}
    assert plot_run(folder).exists()


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_plot_is_a_png(tmp_path: Path, iterations: int) -> None:
    path = plot_run(UPath(make_run(tmp_path, "demo", iterations)))
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert path.name == "report.png"
    assert content.startswith(b"\x89PNG")
    assert (width, height) == (1440, 960 if iterations else 480)
    assert len(content) > 5_000


def test_seconds_count_failed_attempts(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "retried", 1)
    with (folder / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps({"stage": "1/policy", "state": "failed", "seconds": 6.0, "time": 2000}) + "\n")
    assert stage_seconds(UPath(folder))["1/policy"] == 50.0
    assert summarise(UPath(folder))["seconds"] == 139.25


def test_report_on_a_remote_filesystem(tmp_path: Path) -> None:
    local = make_run(tmp_path, "demo", 1)
    remote = UPath("memory://runs/demo")
    for file in local.rglob("*"):
        if file.is_file():
            target = remote / file.relative_to(local).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    assert plot_run(remote).read_bytes().startswith(b"\x89PNG")
    assert summarise(remote)["iterations"] == summarise(UPath(local))["iterations"]
