"""Tables and the picture of synthetic runs of every recipe, and of one that nobody knows."""

from __future__ import annotations

import json
import struct
from io import StringIO
from pathlib import Path

import pytest
import synthetic
from rich.console import Console
from synthetic import SETS, make_run
from upath import UPath

from tsalign.report.attempts import stage_seconds
from tsalign.report.cost import cost_of_run
from tsalign.report.plots import plot_run
from tsalign.report.summary import last_reports, list_runs, read_reports, results, summarise_run
from tsalign.report.table import run_table, runs_table, variants_table
from tsalign.runs.report import Column, Panel, Point, Report, Table, Trend


def text(renderable: object) -> str:
    console = Console(width=120, record=True, file=StringIO())
    console.print(renderable, highlight=False)
    return console.export_text()


def came_to(folder: UPath) -> dict[str, int | float]:
    return results(last_reports(read_reports(folder)))


def test_run_table(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "demo"))
    lines = [line.rstrip() for line in text(run_table(folder)).splitlines()]
    assert lines[0].split() == ["demo", "·", "ts-align", "·", "done"]
    assert [line.split()[0] for line in lines[2:9]] == sorted(SETS)
    assert lines[2].split() == ["add", "0.300", "0.460", "66.0", "%"]
    assert lines[9].split() == ["mean", "0.450", "0.610", "69.0", "%", "66.0", "-", "72.0", "%"]
    assert lines[10:27] == [
        "iterations          2, sampled at temperature 1",
        "other temperatures  67.0 % at 0.7, 64.0 % at 0.0",
        "tied by the judge   25.0 %",
        "mean tokens         6.1 -> 5.9",
        "log-prob per token  -0.900 -> -1.060",
        "distinct 1-grams    0.100 -> 0.100",
        "distinct 2-grams    0.400 -> 0.400",
        "distinct 3-grams    0.800 -> 0.800",
        "repeated 4-grams    0.2 % -> 0.2 %",
        "cut at max_tokens   1.0 % -> 1.0 %",
        "student ~ teacher   0.730 -> 0.790",
        "sample 1            add 1 [and] 2",
        "  before            the answer is",
        "  after             3\\n",
        "sample 2            add 2 [and] 2",
        "  before            the answer is",
        "  after             4\\n",
    ]
    assert [line.split() for line in lines[29:]] == [
        ["policy", "6,400", "8.00", "96,000", "600", "8,000"],
        ["student", "6,400", "8.00", "128,000", "0", "0"],
        ["teacher", "1,600", "2.00", "32,000", "200", "4,000"],
    ]
    assert text(run_table(folder)).splitlines()[28].split("  ")[0] == "model"


def test_cost_is_told_by_role_purpose_and_stage(tmp_path: Path) -> None:
    cost = cost_of_run(UPath(make_run(tmp_path, "demo", 2)))
    assert cost["alignment"]["teacher"] == {"calls": 1600, "tokens": 32_000}
    assert cost["measuring"] == {
        "policy": {"calls": 600, "tokens": 8_000},
        "teacher": {"calls": 200, "tokens": 4_000},
    }
    assert cost["prompts"] == 800  # not those of the exam
    assert cost["stages"]["2/preferences"] == {"teacher": {"calls": 800, "tokens": 16_000}}
    assert "2/policy" not in cost["stages"]


@pytest.mark.parametrize(
    ("counts", "tokens"),
    [
        ({"calls.judge": 3, "tokens.judge": 21.0}, 21),
        ({"calls.judge": 3, "unreported.judge": 3}, None),
        ({"calls.judge": 3, "unreported.judge": 1, "tokens.judge": 14}, None),
        ({"calls.judge": 3}, None),
        ({"calls.judge": 0}, 0),
    ],
)
def test_tokens_that_nobody_reports_are_unknown_and_not_none(
    counts: dict[str, float], tokens: int | None, tmp_path: Path
) -> None:
    folder = make_run(tmp_path, "demo", 1)
    entries = [
        synthetic.done("1/verdicts", 1.0, counts, True),
        synthetic.done("1/more", 1.0, {"tokens.judge": 5}, True),
    ]
    with (folder / "ledger.jsonl").open("a") as ledger:
        ledger.writelines(json.dumps({**entry, "time": 2000}) + "\n" for entry in entries)
    total = None if tokens is None else tokens + 5
    cost = json.loads(json.dumps(summarise_run(UPath(folder))))["cost"]
    assert cost["stages"]["1/verdicts"]["judge"]["tokens"] == tokens
    assert cost["measuring"]["judge"]["tokens"] == total
    row = next(line for line in text(run_table(UPath(folder))).splitlines() if line.startswith("judge"))
    assert row.split()[-1] == ("-" if total is None else str(total))


def test_a_run_without_prompts_has_no_ratio(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "tasks", 0, recipe="arte", reporting=synthetic.arte)
    entry = synthetic.done("drafts", 1.0, {"calls.teacher": 30, "tokens.teacher": 4000})
    with (folder / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps({**entry, "time": 2000}) + "\n")
    assert text(run_table(UPath(folder))).splitlines()[-1].split() == ["teacher", "30", "-", "4,000", "0", "0"]


def test_failed_run_shows_its_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "broken", 0, {"run": "failed", "error": "TsalignError: no [such] file"})
    assert "TsalignError: no [such] file" in text(run_table(UPath(folder)))


def test_agreement_may_be_unknown(tmp_path: Path) -> None:
    def unknown(iteration: int) -> dict[str, Report]:
        agreed = synthetic.agreement(iteration)
        for pairs in ("fixed", "newest"):
            agreed[pairs]["teacher"] = {"before": None, "after": None}
        report = synthetic.student_agreement.report_of(agreed)
        return synthetic.evaluated(iteration) | ({"agreement": report} if iteration else {})

    folder = UPath(make_run(tmp_path, "single", 1, reporting=unknown))
    assert "student ~ teacher   - -> -" in text(run_table(folder))
    assert "agreement" not in came_to(folder)
    assert plot_run(folder).exists()


def test_runs_and_variants_tables(tmp_path: Path) -> None:
    one, two = (UPath(make_run(tmp_path, name, rounds)) for name, rounds in (("one", 1), ("two", 2)))
    lines = text(variants_table({"ts-align": [two], "random": [one]})).splitlines()
    assert lines[1].split() == ["ts-align", *["69.0", "%", "67.0", "%", "64.0", "%", "79.0", "%"], "1,600"]
    assert lines[2].split() == ["random", *["61.0", "%", "59.0", "%", "56.0", "%", "76.0", "%"], "800"]
    assert "no" not in text(runs_table([]))
    assert "win rate T=1.0 69.0 %" in text(runs_table(list_runs(str(tmp_path))))


def test_several_seeds_show_mean_and_spread(tmp_path: Path) -> None:
    folders = [UPath(make_run(tmp_path, f"seed{rounds}", rounds)) for rounds in (1, 2)]
    (line,) = text(variants_table({"ts-align": folders})).splitlines()[1:]
    assert line.split()[:5] == ["ts-align", "65.0", "±", "5.7", "%"]  # of 61 and 69
    assert line.split()[-1] == "1,200"


def test_steps_of_a_procedure_have_rows_of_their_own(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "rewriting", 1, recipe="citing", reporting=synthetic.citing))
    assert came_to(folder)["draft win rate T=1.0"] == pytest.approx(0.53)
    assert next(iter(came_to(folder))) == "win rate T=1.0"  # of the last step, although the draft was judged first
    assert "draft               53.0 %" in text(run_table(folder)).splitlines()


def test_an_iteration_that_is_not_over_does_not_hide_the_last_one(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "rewriting", 2, recipe="citing", reporting=synthetic.citing))
    (folder / "iterations" / "2" / "evaluation" / "report.json").unlink()
    assert came_to(folder)["win rate T=1.0"] == pytest.approx(0.61)
    assert next(iter(summarise_run(folder)["iterations"][1]["results"])) == "draft win rate T=1.0"


def test_a_run_that_ends_with_exact_match(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "tasks", 0, recipe="arte", reporting=synthetic.arte))
    lines = text(run_table(folder)).splitlines()
    assert [line.split() for line in lines[1:5]] == [
        ["task", "0-shot,", "before", "0-shot", "3-shot"],
        ["add", "10.0", "%", "40.0", "%", "100.0", "%"],
        ["sort", "30.0", "%", "60.0", "%", "100.0", "%"],
        ["mean", "20.0", "%", "50.0", "%", "100.0", "%"],
    ]
    assert came_to(folder) == {"0-shot exact match": 0.5, "3-shot exact match": 1.0}
    assert plot_run(folder).exists()


def fifth(iteration: int) -> dict[str, Report]:
    """Stages that the package has never heard of, one in each iteration and one of the run."""
    if not iteration:
        return {"tournament": Report({"champion's rate": 0.75}, lines={"champion": "[7]"})}
    reward = Column({"short": 0.25, "[long]": None}, 0.25, (0.125, 0.5), bar="reward")
    report = Report(
        results={"best of n": 0.5 + 0.1 * iteration, "rows": 100 * iteration},
        table=Table("length", {"reward": reward}, "Reward by length"),
        trends={"loss": Trend(1.0 / iteration, 0.5 / iteration)},
        panels={"Reward": Panel({"best": Point(0.5, (0.4, 0.6)), "mean": Point(None, before=0.1)}, chance=0.0)},
    )
    return {"weighing": report}


def test_a_recipe_that_nobody_knows_is_shown_plotted_and_compared(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "new", 2, recipe="best-of-n", reporting=fifth))
    lines = [line.rstrip() for line in text(run_table(folder)).splitlines()]
    assert lines[0] == "new · best-of-n · done"
    assert [line.split() for line in lines[1:5]] == [
        ["length", "reward", "95", "%", "CI"],
        ["short", "0.250"],
        ["[long]", "-"],
        ["mean", "0.250", "0.125", "-", "0.500"],
    ]
    assert lines[5:7] == ["champion            [7]", "loss                1.000 -> 0.250"]
    assert came_to(folder) == {"best of n": 0.7, "rows": 200, "champion's rate": 0.75}
    assert text(variants_table({"new": [folder]})).splitlines()[1].split() == [
        *["new", "70.0", "%", "200", "75.0", "%", "1,600"],
    ]
    summary = summarise_run(folder)
    assert summary["reports"]["tournament"]["lines"] == {"champion": "[7]"}
    shown = summary["iterations"][0]["reports"]["weighing"]
    assert shown["table"]["columns"]["reward"]["values"] == {"short": 0.25, "[long]": None}
    assert drawn(folder) == (1440, 960)  # curves, bars and seconds


def drawn(folder: UPath) -> tuple[int, int]:
    """Width and height of the picture in pixels."""
    path = plot_run(folder)
    content = path.read_bytes()
    assert path.name == "report.png"
    assert content.startswith(b"\x89PNG")
    assert len(content) > 5_000
    width, height = struct.unpack(">II", content[16:24])
    return width, height


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_plot_is_a_png(tmp_path: Path, iterations: int) -> None:
    folder = UPath(make_run(tmp_path, "demo", iterations))
    assert drawn(folder) == (1440, 1440 if iterations else 480)


def test_seconds_count_failed_attempts(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "retried", 1)
    with (folder / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps({"stage": "1/policy", "state": "failed", "seconds": 6.0, "time": 2000}) + "\n")
    assert stage_seconds(UPath(folder))["1/policy"] == 50.0
    assert summarise_run(UPath(folder))["seconds"] == 139.25


def test_report_on_a_remote_filesystem(tmp_path: Path) -> None:
    local = make_run(tmp_path, "demo", 1)
    remote = UPath("memory://runs/demo")
    for file in local.rglob("*"):
        if file.is_file():
            target = remote / file.relative_to(local).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    assert plot_run(remote).read_bytes().startswith(b"\x89PNG")
    assert summarise_run(remote)["iterations"] == summarise_run(UPath(local))["iterations"]


def doubtful(iteration: int) -> dict[str, Report]:
    """Candidates that are cut in every iteration but the second; an evaluation that is odd from the second on."""
    if not iteration:
        return {}
    numbers = synthetic.evaluation(iteration)
    odd = ["the policy's answers repeat [themselves]: look at the samples."] if iteration > 1 else []
    cut = {} if iteration == 2 else {"candidates": Report(warnings=("90.0 % of the completions are cut",))}
    return {**cut, "evaluation": synthetic.report_of({**numbers, "warnings": odd})}


def test_warnings_are_those_of_each_stage_s_newest_report(tmp_path: Path) -> None:
    odd = "2/evaluation: the policy's answers repeat [themselves]: look at the samples."
    folder = UPath(make_run(tmp_path, "odd", 2, reporting=doubtful))
    assert summarise_run(folder)["warnings"] == [odd, "1/candidates: 90.0 % of the completions are cut"]
    shown = " ".join(text(run_table(folder)).split())
    assert f"warning: {odd}" in shown
    assert shown.index("mean 0.450") < shown.index("warning: 2/") < shown.index("tied by the judge")
    assert drawn(folder) == (1440, 1440)
    assert summarise_run(UPath(make_run(tmp_path, "well", 2)))["warnings"] == []


def test_a_warning_comes_before_any_result(tmp_path: Path) -> None:
    folder = UPath(make_run(tmp_path, "early", 1, {"run": "failed", "error": "boom"}, reporting=doubtful))
    (folder / "iterations" / "1" / "evaluation" / "report.json").unlink()
    lines = text(run_table(folder)).splitlines()
    assert lines[1:4] == ["boom", "warning: 1/candidates: 90.0 % of the completions are cut", "133 seconds so far"]
    (line,) = list_runs(str(tmp_path))
    assert (line["iterations_done"], line["results"]) == (0, {})
