"""A run as a session has it at hand, read from folders as drivers leave them; nothing here starts Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psutil
import pytest
from synthetic import hold, make_run

from tsalign import Session
from tsalign.common.errors import TsalignError
from tsalign.config import read_yaml
from tsalign.data.shards import Shard, write_shard
from tsalign.report.plots import plot_run
from tsalign.runs import outputs
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.progress import FILE, AtWork
from tsalign.session.handle import RunHandle

PROMPT = [{"role": "user", "content": "sort 2 1"}]
NASTY = "<script>alert(1)</script></table></td>\"'&amp; $x$ <img src=x onerror=y> <!--"


def run_in(storage: Path, name: str = "demo", **options: Any) -> RunHandle:
    make_run(storage, name, **options)
    return Session(storage=str(storage))[name]


def append(run: RunHandle, *entries: dict[str, Any]) -> None:
    with (run.dir / "ledger.jsonl").open("a") as file:
        file.writelines(json.dumps({"time": 2000, **entry}) + "\n" for entry in entries)


def made(run: RunHandle, stage: str, output: Dataset | Model) -> None:
    """The ledger's entry of a stage that made something."""
    done = {"stage": stage, "state": "done", "seconds": 1.0, "counts": {}, "measures": False}
    append(run, {**done, **outputs.kept(output, run.dir)})


def preferences(run: RunHandle, text: str = "1 2", flipped: bool = True) -> None:
    """Two shards of preferences, the first without rows, in iteration 1."""
    folder = run.dir / "iterations" / "1" / "preferences"
    row = {
        "prompt_id": "p1",
        "prompt": [{"role": "user", "content": text}],
        **{side: [{"role": "assistant", "content": f"{side} {text}"}] for side in ("chosen", "rejected")},
        "score.label": [2.5, -1.0],
        "score.student": [0.25, 0.5],
        "flipped": flipped,
    }
    write_shard(folder / "part-00000.parquet", Shard([], [{"prompt_id": "p0", "reason": "moody"}]))
    write_shard(folder / "part-00001.parquet", Shard([row], counts={"flipped": 1}))
    made(run, "1/preferences", Dataset(str(folder), "known"))


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ({"run": "done"}, "done"),
        ({"run": "stopped", "error": "SIGTERM"}, "stopped"),
        ({"run": "failed", "error": "TsalignError: no"}, "failed"),
        ({"run": "started"}, "stopped"),  # its driver was killed
    ],
)
def test_how_a_run_stands_is_read_from_its_folder(ending: dict[str, Any], status: str, tmp_path: Path) -> None:
    run = run_in(tmp_path, ending=ending)
    assert run.status == status
    assert run.state().done["1/candidates"] == 31.0
    assert "win rate T=1.0 69.0 %" in str(run)
    assert f"demo: {status}" in repr(run)


def test_of_a_long_run_the_last_stages_are_shown_by_name(tmp_path: Path) -> None:
    run = run_in(tmp_path, iterations=12)
    assert len(run.state().done) == 97
    lines = repr(run).splitlines()
    assert (len(lines), lines[1].split()[1:3]) == (23, ["stages", "before"])
    assert "12/policy" in repr(run)


def test_a_run_that_another_process_drives_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_in(tmp_path, ending={"run": "started"})
    hold(Path(str(run.dir)), psutil.Process(1))
    stage = AtWork("3/candidates", 1000.0, 650.0, 2600.0, "rows", "50 rows/s", 39.0)
    (run.dir / FILE).write_text(json.dumps({"stages": [asdict(stage)]}))
    assert (run.status, run.wait(timeout=0)) == ("running", "running")
    assert "✓ 1/candidates" in capsys.readouterr().out
    assert "3/candidates              650/2,600 rows  50 rows/s  0:00:39 left" in str(run)
    assert "width:25.0%" in run._repr_html_()
    with pytest.raises(TsalignError, match=r"demo is running; wait\(\) follows it, stop\(\) ends it"):
        run.resume()
    with pytest.raises(TsalignError, match=r"\(running; wait\(\) follows it\): 3/candidates is not done"):
        run.candidates(3)


def test_what_is_told_of_a_driver_that_has_ended_is_not_shown(tmp_path: Path) -> None:
    run = run_in(tmp_path, ending={"run": "started"})
    (run.dir / FILE).write_text(json.dumps({"stages": [asdict(AtWork("3/candidates", 1000.0))]}))
    assert run.state().at_work == []


def test_a_run_on_another_machine_is_not_stopped_from_here(tmp_path: Path) -> None:
    run = run_in(tmp_path, ending={"run": "started"})
    hold(Path(str(run.dir)), psutil.Process(1), host="gpu-7", renewed=4e9)
    assert run.status == "running"
    with pytest.raises(TsalignError, match="process 1 on gpu-7 drives it, which cannot be reached from here"):
        run.stop()


ASKING: dict[str, Callable[[RunHandle], Any]] = {
    "wait": lambda run: run.wait(),
    "policy": lambda run: run.policy(),
    "sample": lambda run: run.sample(["hello"]),
    "candidates": lambda run: run.candidates(),
    "preferences": lambda run: run.preferences(3),
    "pairs": lambda run: run.pairs(),
}


@pytest.mark.parametrize("asking", ASKING.values(), ids=ASKING)
def test_the_cell_that_asks_shows_why_a_run_failed(asking: Callable[[RunHandle], Any], tmp_path: Path) -> None:
    message = "TsalignError: judge: no such model"
    run = run_in(tmp_path, iterations=0, ending={"run": "failed", "error": message})
    with pytest.raises(TsalignError, match=r"^run demo failed: judge: no such model$") as caught:
        asking(run)
    assert caught.value._render_traceback_() == ["TsalignError: run demo failed: judge: no such model"]


def test_a_crash_is_told_without_the_colours_of_a_terminal(tmp_path: Path) -> None:
    error = "ActorDiedError: \x1b[36mray::Worker\x1b[39m (pid=7) died"
    run = run_in(tmp_path, ending={"run": "failed", "error": error})
    with pytest.raises(TsalignError, match=r"^run demo failed: ActorDiedError: ray::Worker \(pid=7\) died$"):
        run.wait()
    assert "\x1b" not in run._repr_html_()


def test_metrics_are_a_table_also_while_a_line_is_being_written(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    assert run.metrics.empty
    lines = [{"iteration": 1, "stage": "policy", "time": 5.0, "step": n, "loss": 1 / (n + 1)} for n in range(3)]
    (run.dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"iter')
    metrics = run.metrics
    assert list(metrics["loss"]) == [1.0, 0.5, 1 / 3]
    assert metrics["time"].dt.second.tolist() == [5, 5, 5]


class Seen(HTMLParser):
    """What a browser makes of markup: its elements, all closed, and its text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.elements.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


OURS = {"div", "span", "b", "small", "pre", "table", "thead", "tbody", "tr", "th", "td"}


def test_what_models_write_is_inert(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    preferences(run, NASTY)
    seen = Seen(run.pairs()._repr_html_())
    assert seen.elements <= OURS
    assert seen.attributes <= {"style", "class"}
    assert seen.text.count(NASTY) == 3
    assert "tex2jax_ignore" in run.pairs()._repr_html_()


def test_what_a_run_says_is_inert(tmp_path: Path) -> None:
    run = run_in(tmp_path, ending={"run": "failed", "error": f"ValueError: {NASTY}"})
    (tmp_path / "odd<b>").mkdir()
    (tmp_path / "odd<b>" / "ledger.jsonl").write_text("damaged\nfile\n")
    session = Session(storage=str(tmp_path))
    for shown in (run, session, run.report()):
        seen = Seen(shown._repr_html_())
        assert seen.elements <= OURS
        assert seen.attributes <= {"style", "class"}
    assert NASTY in Seen(run._repr_html_()).text
    assert "odd<b>" in Seen(session._repr_html_()).text


@pytest.mark.parametrize("flipped", [True, False])
def test_pairs_show_both_texts_with_scores_and_mark_flips(flipped: bool, tmp_path: Path) -> None:
    run = run_in(tmp_path)
    preferences(run, "sort 2 1", flipped)
    pairs = run.pairs(1, 5)
    assert [row["chosen"][0]["content"] for row in pairs] == ["chosen sort 2 1"]
    text = Seen(pairs._repr_html_()).text
    for part in ("chosen sort 2 1", "label 2.5 · student 0.25", "rejected sort 2 1", "label -1 · student 0.5"):
        assert part in text
    assert ("⇄" in text) == flipped


def test_the_policy_is_that_of_the_last_finished_iteration(models: dict[str, Model], tmp_path: Path) -> None:
    run = run_in(tmp_path, iterations=0, ending={"run": "stopped"})
    config = {**read_yaml(run.dir / "config.yaml"), "sampling": {"max_tokens": 4, "max_model_len": 64}}
    (run.dir / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(TsalignError, match=r"demo \(stopped\): policy is not done\. Done, of that kind: none yet"):
        run.policy()
    for iteration in (1, 2):
        made(run, f"{iteration}/policy", models["policy"])
    made(run, "3/student", models["student"])
    model, tokenizer = run.policy()
    assert model.config.vocab_size == len(tokenizer)
    texts = run.sample(["sort 2 1", PROMPT, "add 1 2"], seed=3)
    assert texts == run.sample(["sort 2 1", PROMPT, "add 1 2"], seed=3)
    assert len(texts) == 3
    assert run.sample(["sort 2 1"], temperature=0) == run.sample([PROMPT], temperature=0, seed=9)
    with pytest.raises(TsalignError, match=r"^prompt 1: prompt has \d+ tokens"):
        run.sample(["sort 2 1", "sort 2 1 " * 40])


def test_the_picture_is_that_of_the_terminal(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    assert run.plot()._repr_png_() == plot_run(run.dir).read_bytes()
    assert "win rate" in repr(run.report())
    assert run.summary()["status"] == "done"


def test_a_session_lists_its_runs_and_knows_the_nearest_names(tmp_path: Path) -> None:
    make_run(tmp_path, "one")
    session = Session(storage=str(tmp_path))
    assert "one" in repr(session)
    assert session["one"] is session.open("one")
    with pytest.raises(TsalignError, match="did you mean one"):
        session.open("onne")
    assert "none yet" in repr(Session(storage=str(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("runs", r"runs: expected the job server's, as http://HEAD:8265"),
        ("http://127.0.0.1:9", r"http://127\.0\.0\.1:9: no job server answers there"),
    ],
)
def test_a_wrong_address_of_a_cluster_is_told_at_once(address: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TsalignError, match=message):
        Session(address, storage=str(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tune__betta": 0.2}, r"tune\.betta: unknown key"),
        ({"policy__model": "/no/such/folder"}, r"/no/such/folder: no config\.json there"),
        ({"evaluation__judge": "tsalign.toy.oracle:nobody"}, "nobody"),
    ],
)
def test_an_error_of_the_config_comes_at_once(overrides: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "tsalign" / "recipes" / "ts_align" / "quickstart.yaml"
    with pytest.raises(TsalignError, match=message):
        Session(storage=str(tmp_path)).run(config, run="demo", **overrides)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_another_process_drives_is_not_started_again(tmp_path: Path) -> None:
    run = run_in(tmp_path, ending={"run": "started"})
    hold(Path(str(run.dir)), psutil.Process(1))
    config = Path(__file__).parents[2] / "tsalign" / "recipes" / "ts_align" / "quickstart.yaml"
    with pytest.raises(TsalignError, match=r"demo is running; wait\(\) follows it"):
        Session(storage=str(tmp_path)).run(config, run="demo")


def test_a_driver_that_does_not_come_far_is_told_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as kernels do
    run = run_in(tmp_path, ending={"run": "stopped"})
    (run.dir / "config.yaml").write_text("recipe: nothing\n")
    run.resume()
    with pytest.raises(TsalignError, match=r"^run demo did not start: .*recipe: 'nothing' is not one of") as caught:
        run.wait()
    assert "\x1b" not in str(caught.value)
    assert run.status == "failed"
    assert Session(storage=str(tmp_path))["demo"].status == "stopped"  # the ledger knows nothing of it


def test_a_driver_that_is_stopped_before_it_recorded_anything_leaves_a_run_to_start_again(tmp_path: Path) -> None:
    run = run_in(tmp_path, ending={"run": "done"})
    (run.dir / "config.yaml").write_text("recipe: nothing\n")
    assert run.resume().stop() == "stopped"  # not what the ledger says of the driver before
    assert run.resume().status == "running"
    with pytest.raises(TsalignError, match=r"^run demo did not start: "):
        run.wait()


def test_importing_the_package_stays_cheap() -> None:
    check = "import sys, tsalign; assert not {'ray', 'pydantic', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
