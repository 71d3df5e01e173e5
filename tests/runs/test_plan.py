"""Plans against hand computation, for every recipe and its controls; and what a plan may not touch."""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tsalign
from tsalign import api
from tsalign.config import TrainConfig
from tsalign.recipes import find
from tsalign.recipes.arte.tasks import UnreadTasks, count_in, read_tasks
from tsalign.recipes.citing.rubrics import rubrics_from
from tsalign.report.plan_table import totals
from tsalign.report.turns import enough, peak, turns
from tsalign.runs import dry_run
from tsalign.runs.machine import shortages
from tsalign.runs.plan import Amount, Plan, at_most, plus, times
from tsalign.runs.reader import Reader
from tsalign.runs.stage_function import StageFunction
from tsalign.training.schedule import total_steps

ROOT = Path(tsalign.__file__).parent
AMOUNTS = st.none() | st.integers(0, 1000)
Work = dict[str, dict[str, Amount]]


def planned(config: Any, **changes: Any) -> Plan:
    loaded = api.load(config, {key.replace("__", "."): value for key, value in changes.items()})
    return dry_run.plan(loaded, find(loaded.recipe).function)


def work(config: Any, **changes: Any) -> Work:
    """`stage` or `iteration/stage` -> `who unit` -> amount."""
    found: Work = {}
    for need in planned(config, **changes).needs:
        name = f"{need.iteration}/{need.stage}" if need.iteration else need.stage
        found.setdefault(name, {}).update({f"{need.who} {unit}".strip(): n for unit, n in need.work.items()})
    return found


def quickstart(recipe: str) -> Path:
    path = find(recipe).quickstart
    assert path is not None
    return path


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A TS-Align config over 100 JSONL prompts and two small evaluation sets, of which 5 and 20 prompts are used."""
    (tmp_path / "train.jsonl").write_text('{"prompt": "hello"}\n' * 100)
    (tmp_path / "easy.json").write_text(json.dumps([{"prompt": "hi"}] * 5))
    pq.write_table(pa.table({"prompt": ["hi"] * 50}), tmp_path / "hard.parquet")
    return {
        "recipe": "ts-align",
        "storage": str(tmp_path / "runs"),
        "iterations": 2,
        "policy": {"model": "org/policy"},
        "student": {"model": "org/student"},
        "teacher": {"model": "org/teacher", "max_replicas": 2, "cpus": 2},
        "data": {"prompts": str(tmp_path / "train.jsonl")},
        "sampling": {"k": 8, "max_tokens": 100},
        "evaluation": {
            "judge": "tsalign.toy.oracle:grade",
            "sets": {"easy": str(tmp_path / "easy.json"), "hard": str(tmp_path / "hard.parquet")},
            "temperatures": [1.0, 0.0],
            "prompts_per_set": 20,
        },
        "distill": {"batch_size": 32, "replay": 0.5},
        "tune": {"reference": "initial", "batch_size": 32, "epochs": 2},
    }


@given(st.lists(AMOUNTS, max_size=5))
def test_what_is_unknown_makes_products_and_sums_unknown(amounts: list[Amount]) -> None:
    known = [amount for amount in amounts if amount is not None]
    assert times(*amounts) == (math.prod(known) if len(known) == len(amounts) else None)
    assert plus(*amounts) == (sum(known) if len(known) == len(amounts) else None)
    assert times(*reversed(amounts)) == times(*amounts)


@given(st.lists(AMOUNTS), st.lists(AMOUNTS))
def test_a_bound_holds_whatever_the_unknown_is(some: list[Amount], others: list[Amount]) -> None:
    bound = at_most(*some, *others)
    assert bound == at_most(at_most(*some), at_most(*others))
    assert (bound is None) == all(amount is None for amount in some + others)
    assert bound is None or all(amount is None or bound <= amount for amount in some + others)


def test_ts_align_by_hand(config: dict[str, Any]) -> None:
    found = work(config)
    assert found["prompts"] == {"prompts": 100}
    assert found["held_out"] == {"prompts": 25}
    assert found["base_answers"] == {"policy completions": 25 * 2 * 2, "policy new tokens": 10_000}
    assert (found["base_scores"], found["base_scores_asked"]) == ({"scores": 100}, {"teacher calls": 100})
    for iteration in (1, 2):
        assert found[f"{iteration}/candidates"] == {"policy completions": 800, "policy new tokens": 80_000}
        assert found[f"{iteration}/scores"] == {"student scores": 800}
        assert found[f"{iteration}/preferences"] == {"teacher calls": 200}
        assert found[f"{iteration}/reference_0"] == {"policy log-probs": 200}
        assert found[f"{iteration}/policy"] == {"policy training examples": 100, "policy optimiser steps": 2 * 4}
        assert found[f"{iteration}/answers"] == {"policy completions": 100, "policy new tokens": 10_000}
        assert found[f"{iteration}/evaluation"] == {"scores": 100}
        assert found[f"{iteration}/newest_pairs"] == {"teacher calls": 50}
        assert found[f"{iteration}/agreement"] == {"student scores": 4 * 50}
    # In the second iteration the first one's 100 preferences are there to be mixed in.
    assert found["1/student"] == {"student training examples": 100, "student optimiser steps": 4}
    assert found["2/student"] == {"student training examples": 150, "student optimiser steps": 5}


def test_totals_keep_measuring_apart(config: dict[str, Any]) -> None:
    found = totals(planned(config))
    assert found["policy completions"] == [0, 800, 800]
    assert found["policy completions, measuring"] == [100, 100, 100]
    assert found["teacher calls"] == [0, 200, 200]
    assert found["teacher calls, measuring"] == [100, 50, 50]
    assert found["student optimiser steps"] == [0, 4, 5]
    assert list(found) == sorted(found, key=lambda name: name.endswith("measuring"))


def test_ts_align_mining_strategies_by_hand(config: dict[str, Any]) -> None:
    every = work(config, mining__strategy="teacher-all")
    assert every["1/preferences"] == {"teacher calls": 800}
    assert "1/scores" not in every
    alone = work(config, mining__strategy="student-only")
    assert (alone["1/preferences"], alone["1/scores"]) == ({"rows": 100}, {"student scores": 800})
    assert "1/student" not in alone
    assert work(config, mining__strategy="random")["1/preferences"] == {"teacher calls": 200}
    off_policy = work(config, mining__strategy="off-policy")
    assert off_policy["1/preferences"] == {"teacher calls": 200}
    assert off_policy["1/scores"] == {"student scores": 800}


def test_refresh_asks_the_teacher_as_often(config: dict[str, Any]) -> None:
    found = work(config, mining__refresh=0.5)
    assert found["1/fresh_preferences"] == found["1/preferences"] == {"teacher calls": 100}
    assert found["1/scores"] == {"student scores": 400}
    assert found["1/student"]["student training examples"] == 50
    assert found["1/policy"]["policy training examples"] == 100


def test_portions_and_held_out_prompts(config: dict[str, Any]) -> None:
    assert work(config, data__prompts_per_iteration=30)["1/candidates"]["policy completions"] == 240
    held_out = work(config, data__eval_fraction=0.1)
    assert held_out["1/candidates"]["policy completions"] == 90 * 8
    assert held_out["1/answers"]["policy completions"] == (25 + 10) * 2 * 2
    toy = work(config, data__prompts="toy:train", evaluation__sets={"toy": "toy:test"})
    assert toy["prompts"] == {"prompts": 8000}
    assert toy["1/candidates"]["policy completions"] == 8000 * 8
    assert toy["1/answers"]["policy completions"] == 7 * 20 * 2 * 2


def test_a_judge_that_compares_is_asked_in_both_orders(config: dict[str, Any]) -> None:
    found = work(config, evaluation__judge="judge:org/judge")
    assert found["base_scores_asked"] == {"teacher calls": 100}
    assert found["1/evaluation"] == {"judge questions": 100 * 2, "judge new tokens": 100 * 2 * 64}


def test_the_peak_counts_the_service_that_a_stage_asks(config: dict[str, Any]) -> None:
    assert peak(planned(config)) == (1 + 2 * 2, 0)
    assert peak(planned(config, resources__sample={"replicas": 4, "cpus": 2, "gpus": 1})) == (8, 4)
    split = {"replicas": 2, "cpus": 1, "gpus": 1, "tensor_parallel": 4}
    assert peak(planned(config, resources__sample=split)) == (5, 8)
    assert peak(planned(config, resources__mine={"replicas": 3})) == (3 + 4, 0)
    running = planned(config, teacher__url="http://host")
    assert (running.services, peak(running)) == ([], (1, 0))


def test_one_gpu_is_enough_where_stages_take_turns(config: dict[str, Any]) -> None:
    one = {"gpus": 1}
    config["teacher"] = {**config["teacher"], **one}
    whole = {f"resources__{stage}": one for stage in ("sample", "score", "train_policy", "train_student")}
    made = planned(config, **whole)
    assert enough(made) == (1 + 2, 1)  # a worker that asks, and the teacher with its two CPUs
    assert peak(made)[1] == 2  # the teacher's replicas
    assert not any(turn.asks and turn.gpus[1] for turn in turns(made))  # who waits for the teacher holds no GPU
    resources = api.load(config, {key.replace("__", "."): value for key, value in whole.items()}).resources
    assert list(shortages(made, resources, {"CPU": 3, "GPU": 1})) == []
    assert next(line[:7] for line in shortages(made, resources, {"CPU": 3, "GPU": 0.5})) == "teacher"


def test_stages_that_are_streamed_need_room_for_all(config: dict[str, Any]) -> None:
    changes = {"resources__sample": {"replicas": 3, "gpus": 1}, "resources__score": {"gpus": 1}}
    config["teacher"] = {**config["teacher"], "gpus": 1}
    # Candidates, scores and preferences, and the teacher's two replicas of two CPUs, or one.
    made = planned(config, pipeline="streaming", **changes)
    assert peak(made) == (3 + 1 + 1 + 2 * 2, 3 + 1 + 2)
    assert enough(made) == (3 + 1 + 1 + 2, 3 + 1 + 1)
    assert enough(planned(config, **changes)) == (3, 3)
    streamed = [turn.stage for turn in turns(made) if turn.pipeline and turn.iteration == 2]
    assert streamed == ["candidates", "scores", "preferences"]


def test_turns_say_what_may_overlap(config: dict[str, Any]) -> None:
    ranged = {"replicas": {"min": 1, "max": 8}, "cpus": 2, "gpus": 1}
    found = {turn.stage: turn for turn in turns(planned(config, resources__sample=ranged)) if turn.iteration in (0, 2)}
    assert (found["candidates"].cpus, found["candidates"].gpus) == ((2, 16), (1, 8))
    assert [one.who for one in found["preferences"].asks] == ["teacher"]
    beside = {name for name, turn in found.items() if turn.beside}
    measured = {"answers", "likelihood", "evaluation", "newest_pairs", "agreement"}
    assert beside == {"base_answers", "base_likelihood", "base_scores", "base_scores_asked", "student", *measured}


def test_pad_by_hand() -> None:
    found = work(quickstart("pad"))
    assert found["held_out"] == {"prompts": 7 * 150}
    assert found["1/candidates"] == {"policy completions": 2600 * 5, "policy new tokens": 2600 * 5 * 16}
    assert found["1/diverse"] == {"rows": 2600}
    assert found["1/scores"] == {"teacher log-probs": 2600 * 4, "teacher questions": 2600 * 6 * 2}
    assert found["1/policy"] == {"policy training examples": 2600, "policy optimiser steps": 4 * 41}
    assert found["1/answers"]["policy completions"] == found["base_answers"]["policy completions"] == 1050 * 2 * 3
    assert set(found).isdisjoint({"1/pairs", "1/reference"})


def test_pad_scores_and_controls_by_hand() -> None:
    one_order = work(quickstart("pad"), scoring__alpha=0.0, scoring__swap_options=False)
    assert one_order["1/scores"] == {"teacher questions": 2600 * 6}
    assert work(quickstart("pad"), scoring__alpha=1.0)["1/scores"] == {"teacher log-probs": 2600 * 4}
    variants = {name: work(quickstart("pad"), **changes) for name, changes in find("pad").controls.items()}
    for name, found in variants.items():
        paired = {"dpo": {"1/pairs", "1/reference"}, "dpo-no-nll": {"1/pairs", "1/reference"}, "simpo": {"1/pairs"}}
        assert found.keys() & {"1/pairs", "1/reference"} == paired.get(name, set())
        assert found["1/policy"]["policy optimiser steps"] == 4 * 41
    assert variants["dpo"]["1/reference"] == {"policy log-probs": 2 * 2600}


def test_arte_by_hand() -> None:
    found = work(quickstart("arte"))
    assert found["test"] == {"rows": 8 * 60}
    assert found["baseline"] == found["exact_match"] == {"student answers": 960, "student new tokens": 9600}
    assert found["drafts"] == {"teacher questions": 8 * 48, "teacher new tokens": 8 * 6 * 10 * 64}
    assert found["rationales"] == {"teacher rationales": 8 * 48 * 4, "teacher new tokens": 8 * 48 * 4 * 64}
    assert found["scores"] == {"student answers": 8 * 48 * 4 * 12, "student new tokens": 8 * 48 * 4 * 12 * 10}
    assert (found["question_pairs"], found["rationale_pairs"]) == ({"rows": 8 * 40}, {"rows": 8 * 48})
    assert found["reference_0"] == {"teacher log-probs": 2 * 8 * 40}
    assert found["reference_1"] == {"teacher log-probs": 2 * 8 * 48}
    assert found["teacher"] == {"teacher training examples": 8 * 88, "teacher optimiser steps": 3 * 22}
    assert found["tailored"]["teacher rationales"] == 8 * 48
    assert found["sft_rows"] == {"rows": 8 * 8}
    assert found["student"] == {"student training examples": 64, "student optimiser steps": 30 * 4}
    assert work(quickstart("arte"), pairs__rationales=5)["rationale_pairs"] == {"rows": 8 * 5}


def test_what_each_ablation_of_arte_asks_for() -> None:
    amounts = {name: work(quickstart("arte"), **changes) for name, changes in find("arte").controls.items()}
    whole = work(quickstart("arte"))
    assert {found["sft_rows"]["rows"] for found in amounts.values()} == {8 * 8}
    assert "tailored" not in amounts["original-teacher"]
    assert amounts["original-teacher"]["scores"] == whole["scores"]
    assert "scores" not in amounts["random-rationale"]
    assert "tailored" not in amounts["random-rationale"]
    assert amounts["question-only"].keys() & {"question_pairs", "rationale_pairs"} == {"question_pairs"}
    assert amounts["rationale-only"].keys() & {"question_pairs", "rationale_pairs"} == {"rationale_pairs"}
    assert amounts["question-only"]["tailored"] == whole["tailored"]


def test_selected_items_are_what_the_student_is_asked() -> None:
    items = {"models": [{"model": "org/a"}, {"model": "org/b"}], "shots": [0, 1, 2], "keep": 5}
    found = work(quickstart("arte"), select_items=items)
    assert found["items"] == {"rows": 8 * 12}
    assert found["items_0"]["select_items answers"] == found["items_1"]["select_items answers"] == 8 * 12 * 3
    assert found["scores"]["student answers"] == 8 * 48 * 4 * 5
    whole = work(quickstart("arte"), select_items={**items, "keep": 100})
    assert whole["scores"]["student answers"] == 8 * 48 * 4 * 12


def test_citing_by_hand() -> None:
    found = work(quickstart("citing"))
    assert found["categories"] == {"rows": 2000}
    assert found["rubrics"] == {"teacher rubrics": 7, "teacher new tokens": 7 * 16}
    assert found["2/candidates"] == {"policy completions": 2600, "policy new tokens": 2600 * 16}
    assert found["2/revisions"] == {"teacher revisions": 2600, "teacher new tokens": 2600 * 16}
    assert found["2/policy"] == {"policy training examples": 2600, "policy optimiser steps": 4 * 41}
    for step in ("answers_draft", "answers_rewrite_1", "answers_rewrite_2"):
        assert found[f"2/{step}"]["policy completions"] == 1050 * 2 * 3
    for step in ("evaluation_draft", "evaluation_rewrite_1", "evaluation"):
        assert found[f"2/{step}"] == {"scores": 1050 * 2 * 3}
    assert work(quickstart("citing"), rubrics__categories="cluster")["rubrics"]["teacher rubrics"] == 16


def test_citing_methods_by_hand() -> None:
    methods = {name: work(quickstart("citing"), **changes) for name, changes in find("citing").controls.items()}
    for name, found in methods.items():
        assert ("1/revisions" in found) == (name == "revision-sft")
        assert ("1/demonstrations" in found) == (name != "revision-sft")
        assert ("1/answers_guided" in found) == (name == "rubric-sft")
        assert "1/answers_rewrite_1" not in found
        assert found["1/policy"]["policy optimiser steps"] == 4 * 41
    assert methods["sft"]["1/demonstrations"] == {"rows": 2600}
    assert methods["rubric-sft"]["1/answers_guided"]["policy completions"] == 1050 * 2 * 3
    preferring = work(
        quickstart("citing"), sampling__k=2, preference={"reference": "previous", "batch_size": 100, "epochs": 3}
    )
    assert preferring["1/revisions"]["teacher revisions"] == 2 * 2600
    assert preferring["1/reference"] == {"policy log-probs": 2 * 2 * 2600}
    assert preferring["1/preferring"]["policy optimiser steps"] == 3 * 52


def test_a_teacher_behind_an_api_is_asked_from_the_actors_that_only_wait(tmp_path: Path) -> None:
    endpoint = {"url": "https://host/v1", "model": "big", "max_spent_tokens": 5000}
    made = planned(quickstart("citing"), teacher=endpoint, resources__mine={"replicas": 3, "cpus": 0.5})
    (revisions, _) = (need for need in made.needs if need.stage == "revisions")
    assert (revisions.placement.replicas, revisions.placement.cpus) == (3, 0.5)
    (teacher,) = (role for role in made.roles if role.who == "teacher")
    assert (teacher.model, teacher.runs_as) == ("big", "endpoint at https://host/v1, at most 5,000 tokens an actor")


@pytest.mark.parametrize(
    ("procedure", "completions"),
    [
        ({"name": "direct"}, 1),
        ({"name": "guided", "rubrics": "r"}, 1),
        ({"name": "rewrite", "rubrics": "r", "passes": 3}, 4),
    ],
)
def test_evaluate_by_hand(procedure: dict[str, Any], completions: int) -> None:
    config = {
        "recipe": "evaluate",
        "model": {"model": "org/new"},
        "against": {"model": "org/old"},
        "procedure": procedure,
        "evaluation": {"judge": "judge_axes:org/judge", "sets": {"toy": "toy:test"}, "prompts_per_set": 10},
    }
    found = totals(planned(config))
    assert sum(found["model completions, measuring"]) == completions * 70 * 2
    assert sum(found["against completions, measuring"]) == 70 * 2
    assert sum(found["judge questions, measuring"]) == 70 * 2 * (1 + completions)


def test_the_toy_world_is_planned() -> None:
    from tsalign.toy.build import build_config

    found = work(build_config(Path("assets")).model_dump())
    assert found["policy_clean"] == {"policy training examples": 32_000, "policy optimiser steps": 2000}
    assert found["samples_1"]["policy completions"] == 8000 * 3
    assert found["citing_teacher"]["student optimiser steps"] == 2000


@pytest.mark.parametrize(
    ("examples", "epochs", "batch", "steps"), [(100, 1, 32, 4), (96, 1, 32, 3), (100, 2, 32, 8), (100, 0.5, 32, 2)]
)
def test_steps_by_hand(examples: int, epochs: float, batch: int, steps: int) -> None:
    assert total_steps(examples, TrainConfig(objective="sft", epochs=epochs, batch_size=batch)) == steps


def test_what_is_elsewhere_is_unknown_and_so_is_what_follows(config: dict[str, Any]) -> None:
    made = planned(config, data__prompts="s3://bucket/prompts.jsonl", evaluation__sets={"away": "gs://bucket/test"})
    assert set(made.uncounted) == {"s3://bucket/prompts.jsonl", "gs://bucket/test"}
    found = totals(made)
    assert found["policy completions"] == [0, None, None]
    assert found["policy optimiser steps"] == [0, None, None]
    # Of a set there are never more prompts than `prompts_per_set`.
    assert found["policy completions, measuring"] == [80, 80, 80]
    bounded = work(config, data__prompts="s3://bucket/prompts.jsonl", data__prompts_per_iteration=30)
    assert bounded["prompts"] == {"prompts": None}
    assert bounded["1/candidates"]["policy completions"] == 240


def test_tasks_that_are_not_here_are_unknown_in_a_plan(tmp_path: Path) -> None:
    plan = Plan()
    away = ["s3://bucket/tasks", str(tmp_path / "none")]
    tasks = read_tasks.expect(plan, ["toy:arte", *away])
    assert [type(task) for task in tasks[-2:]] == [UnreadTasks, UnreadTasks]
    assert plan.uncounted == {away[0]: "not on this machine", away[1]: "nothing there"}
    assert count_in(tasks) is None
    assert count_in(tasks[:-2]) == 8
    found = work(quickstart("arte"), tasks=away)
    assert {amount for name, units in found.items() for amount in units.values()} == {None}
    assert found.keys() == work(quickstart("arte")).keys()


def test_rubrics_that_are_not_here_are_taken_for_granted() -> None:
    assert rubrics_from.expect(Plan(), "s3://bucket/rubrics").path == "s3://bucket/rubrics"


def test_every_stage_function_and_reader_says_what_a_plan_takes_of_it() -> None:
    sources = [
        path for path in ROOT.rglob("*.py") if "@stage_function" in (text := path.read_text()) or "@reader" in text
    ]
    modules = [import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts)) for path in sources]
    found = {part for module in modules for part in vars(module).values() if isinstance(part, StageFunction | Reader)}
    written = sum(
        path.read_text().count("\n@stage_function(") + path.read_text().count("\n@reader\n") for path in sources
    )
    assert len(found) == written > 30
    assert [part for part in found if part._expect is None] == []
