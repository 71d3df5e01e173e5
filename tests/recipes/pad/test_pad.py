"""PAD: its objectives by hand, diversity, option probabilities, both engines' log-probs, and a small run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Vllm
from hypothesis import given
from hypothesis import strategies as st
from planned import check_against_plan
from upath import UPath

import tsalign
from tsalign.common.progress import Advance
from tsalign.config import EngineConfig
from tsalign.data.chat import encode_pair, load_tokenizer
from tsalign.data.loading import load
from tsalign.data.shards import read_rows
from tsalign.data.tensors import padding_id
from tsalign.engines import by_text, open_logprob_engine
from tsalign.recipes.pad import option_probability
from tsalign.recipes.pad.config import PADConfig, PADTrainConfig, TeacherScoreConfig
from tsalign.recipes.pad.diversity import DiversityWorker, farthest_first
from tsalign.recipes.pad.losses import PAD, concordance, decomposed
from tsalign.recipes.pad.option_probability import OptionProbability
from tsalign.recipes.pad.plackett_luce import (
    all_logps,
    jensen_shannon,
    ranking_nll,
    reversed_jensen_shannon,
    windows,
)
from tsalign.recipes.pad.rankings import PairWorker, RankWorker, best_worst_pair, teacher_scores
from tsalign.runs.artifacts import Model
from tsalign.scoring import Item
from tsalign.toy.world import tasks
from tsalign.training import objectives
from tsalign.training.examples import Example, collate
from tsalign.training.objectives.simpo import simpo_loss

VECTORS = [  # student, teacher, true divergence, released, NLL of the teacher's ranking
    ([0.0, -1.0], [0.0, -3.0], 0.050112, 0.060646, 0.313262),
    ([-9.0, -10.0, -11.0], [-2.0, -9.0, -5.0], 0.368894, 0.722269, 1.720868),
    ([-9.0, -8.0, -10.0, -9.5], [10 * math.log(p) for p in (0.8, 0.6, 0.4, 0.2)], 0.512899, 2.401138, 2.826439),
]
LOSSES = [jensen_shannon, reversed_jensen_shannon, ranking_nll]
SCORES = st.floats(-30, 30, width=32)
PAIRS = st.integers(2, 5).flatmap(
    lambda n: st.tuples(st.lists(SCORES, min_size=n, max_size=n), st.lists(SCORES, min_size=n, max_size=n))
)


def double(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("student", "teacher", "divergence", "released", "nll"), VECTORS)
def test_published_vectors(
    student: list[float], teacher: list[float], divergence: float, released: float, nll: float
) -> None:
    found = [loss(double(student), double(teacher)).item() for loss in LOSSES]
    assert found == pytest.approx([divergence, released, nll], abs=1e-6)


def test_two_responses_are_bradley_terry() -> None:
    assert all_logps(double([2.0, 0.5])).exp()[0].tolist() == pytest.approx(
        [1 / (1 + math.exp(-1.5)), 0.182426], abs=1e-6
    )


@pytest.mark.parametrize("n", [2, 4, 6])
def test_rankings_add_up_to_one(n: int) -> None:
    logps = all_logps(torch.linspace(-3, 2, n, dtype=torch.float64)[None])
    assert logps.shape == (1, math.factorial(n))
    assert logps.exp().sum().item() == pytest.approx(1)


@given(PAIRS)
def test_the_divergence_is_symmetric_bounded_and_zero_at_equality(pair: tuple[list[float], list[float]]) -> None:
    u, v = double(pair[0]), double(pair[1])
    found = jensen_shannon(u, v).item()
    assert found == pytest.approx(jensen_shannon(v, u).item(), abs=1e-12)
    assert -1e-12 <= found <= math.log(2) + 1e-12
    assert jensen_shannon(u, u).item() == 0
    assert reversed_jensen_shannon(u, u).item() == pytest.approx(0, abs=1e-12)


@given(PAIRS, st.randoms())
def test_the_order_of_the_responses_does_not_matter(pair: tuple[list[float], list[float]], rng: Any) -> None:
    order = list(range(len(pair[0])))
    rng.shuffle(order)
    u, v = double(pair[0]), double(pair[1])
    for loss in LOSSES[:2] if len(set(pair[1])) < len(pair[1]) else LOSSES:
        assert loss(u[:, order], v[:, order]).item() == pytest.approx(loss(u, v).item(), rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(*[SCORES] * 6), min_size=1, max_size=5))
def test_a_prompts_loss_does_not_depend_on_its_neighbours(rows: list[tuple[float, ...]]) -> None:
    both = double(*map(list, rows))
    student, teacher = both[:, :3], both[:, 3:]
    for loss in LOSSES:
        alone = [loss(student[i : i + 1], teacher[i : i + 1]).item() for i in range(len(rows))]
        assert loss(student, teacher).tolist() == pytest.approx(alone, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss: Callable[..., torch.Tensor]) -> None:
    student = double([0.3, -1.0, 0.8, -0.2], [2.0, 0.1, -1.5, 0.4]).requires_grad_()
    teacher = double([1.0, -2.0, 0.5, 0.1], [0.0, 3.0, 1.0, -1.0])
    assert torch.autograd.gradcheck(lambda u: loss(u, teacher), student)


def test_gradients_stay_finite_far_out() -> None:
    student = torch.tensor([[-900.0, 0.0, -300.0]], requires_grad=True)
    jensen_shannon(student, torch.tensor([[0.0, -800.0, -50.0]])).sum().backward()
    assert torch.isfinite(student.grad).all()


@given(st.integers(2, 9), st.integers(2, 6), st.randoms())
def test_windows_give_every_response_the_same_weight(n: int, size: int, rng: Any) -> None:
    scores = [float(i) for i in range(n)]
    rng.shuffle(scores)
    (groups,) = windows(double(scores), size).tolist()
    assert all(len(set(group)) == min(n, size) for group in groups)
    assert {sum(i in group for group in groups) for i in range(n)} == {size if n > size else 1}
    if n > size:  # best and worst meet
        best, worst = scores.index(n - 1), scores.index(0)
        assert any({best, worst} <= set(group) for group in groups)


def test_a_group_that_holds_all_is_the_whole_loss() -> None:
    u, v = double([0.1, 2.0, -1.0, 0.5]), double([1.0, 0.0, 3.0, 2.0])
    assert decomposed(jensen_shannon, u, v, 4).item() == pytest.approx(jensen_shannon(u, v).item())
    one_by_one = [jensen_shannon(u[:, g], v[:, g]).item() for g in windows(v, 3)[0].tolist()]
    assert decomposed(jensen_shannon, u, v, 3).item() == pytest.approx(sum(one_by_one) / 4)


def test_simpo_and_concordance_by_hand() -> None:
    # beta (-1 + 2) - gamma = 2 - 0.5; -log sigmoid(1.5) = 0.201413
    assert simpo_loss(torch.tensor([[-1.0, -2.0]]), 2.0, 0.5).item() == pytest.approx(0.2014133, abs=1e-6)
    assert concordance(double([3, 1, 2]), double([3, 2, 1])).item() == pytest.approx(2 / 3)
    assert concordance(double([3, 1]), double([1, 1])).item() == 0


def test_the_objective_is_the_loss_of_mean_logprobs(models: dict[str, Model]) -> None:
    """Prompts with different numbers of responses in one batch, against each alone."""
    model, tokenizer = load(models["policy"], "causal", torch.float32)
    objective = objectives.build("pad_ppd", PADTrainConfig(beta=3.0, nll=0.5))
    assert isinstance(objective, PAD)
    rows = [
        candidate_set(task, ["cat", "dog dog", task.response, "1 2"][:n])
        for task, n in zip(tasks("tune", 0, 3), (4, 2, 3))
    ]
    examples = [objective.encode(row, tokenizer) for row in rows]

    def loss(chosen: list[Example], weights: list[float]) -> float:
        nonlocal report
        batch = collate(chosen, weights, padding_id(tokenizer), torch.device("cpu"))
        total, report = objective.loss(model.eval(), batch)
        assert set(report) == {"divergence", "nll", "accuracy", "best_reward", "worst_reward"}
        return total.item()

    report: dict[str, torch.Tensor] = {}
    alone = [loss([example], [1.0]) for example in examples]
    assert loss(examples, [1.0, 1.0, 1.0]) == pytest.approx(sum(alone), abs=1e-5)
    assert loss(examples, [1.0, 0.0, 1.0]) == pytest.approx(alone[0] + alone[2], abs=1e-5)
    # by hand: the mean log-prob of each response from a plain forward pass
    means = []
    for sequence, length in zip(examples[2].sequences, examples[2].response_lengths):
        with torch.no_grad():
            logps = model(torch.tensor([sequence])).logits[0].double().log_softmax(-1)
        taken = [logps[i - 1, sequence[i]].item() for i in range(len(sequence) - length, len(sequence))]
        means.append(sum(taken) / length)
    expected = jensen_shannon(3 * double(means), double(examples[2].values)).item() - 0.5 * means[0]
    assert alone[2] == pytest.approx(expected, abs=1e-5)
    # and the student's scores of the responses that the teacher likes best and least, the first and the last
    loss([examples[2]], [1.0])
    assert report["best_reward"].item() == pytest.approx(3 * means[0], abs=1e-5)
    assert report["worst_reward"].item() == pytest.approx(3 * means[-1], abs=1e-5)


def candidate_set(task: Any, texts: list[str], **scores: list[float]) -> dict[str, Any]:
    """A candidate set whose teacher likes the first text best."""
    completions = [{"text": text, "token_ids": [], "finish": "stop", "seed": 0, "temperature": 1.0} for text in texts]
    row = {"prompt_id": task.prompt, "set": "s", "prompt": task.messages, "prompt_ids": [], "writer": "w"}
    teacher = {"score.teacher": [-float(place) for place in range(len(texts))]}
    return {**row, "sampling": "{}", "completions": completions, **teacher, **scores}


def test_the_farthest_text_comes_next() -> None:
    # distances to "aaaa": 1, 4, 2; then the nearest chosen one of "aaab" is 1 away, of "aabb" 2
    assert farthest_first(["aaaa", "aaab", "bbbb", "aabb"], 3) == [0, 2, 3]
    assert farthest_first(["x", "x"], 5) == [0, 1]


@given(st.lists(st.text("ab", max_size=4), min_size=1, max_size=7), st.integers(1, 5))
def test_a_diverse_set_has_no_equal_texts_unless_it_must(texts: list[str], keep: int) -> None:
    chosen = farthest_first(texts, keep)
    assert len(set(chosen)) == len(chosen) == min(keep, len(texts))
    assert len({texts[i] for i in chosen}) == min(keep, len(set(texts)))


def test_prompts_without_enough_different_responses_are_dropped_and_counted() -> None:
    one, two = tasks("tune", 0, 2)
    shard = DiversityWorker(3)([candidate_set(one, ["a", "b", "a", "ccc"]), candidate_set(two, ["a", "b", "a"])], "x")
    assert [[c["text"] for c in row["completions"]] for row in shard.rows] == [["a", "ccc", "b"]]
    assert shard.counts == {"too_similar": 1}


class Scripted:
    """Stands for an engine: half of the next token's mass names A, a tenth B; it cannot read of dates."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.asked: list[str] = []
        self.counts: Counter[str] = Counter()

    def next_token_logprobs(
        self, prompts: list[list[int]], top: int, done: Advance
    ) -> list[Mapping[str, float] | None]:
        assert top == 20
        done(len(prompts))
        texts = [self.tokenizer.decode(prompt) for prompt in prompts]
        self.asked += texts
        shown = {token: math.log(p) for token, p in {" A": 0.4, "A)": 0.1, "B": 0.1, "ABC": 0.2}.items()}
        return [None if "date" in text else shown for text in texts]


TEMPLATE = "( {{ a }} ) {{ b }} ="


@pytest.fixture
def scripted(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def make(**settings: Any) -> tuple[Any, Scripted]:
        engine = Scripted(load_tokenizer(models["policy"]))
        monkeypatch.setattr(option_probability, "open_logprob_engine", lambda *given: engine)
        return OptionProbability(models["policy"], TEMPLATE, **settings).load(), engine

    return make


def items(*texts: str, group: int = 0) -> list[Item]:
    return [Item([{"role": "user", "content": "q"}], text, group=group) for text in texts]


def test_option_tokens_are_short_and_contain_the_letter() -> None:
    shown = {token: math.log(p) for token, p in {"A": 0.4, " A": 0.1, "A)": 0.05, "An answer": 0.2, "B": 0.1}.items()}
    assert option_probability.option_probability(shown, "A") == pytest.approx(0.55)
    assert option_probability.option_probability(shown, "B") == pytest.approx(0.1)


def test_both_orders_are_averaged(scripted: Callable[..., Any]) -> None:
    score, engine = scripted()
    first, second = score(items("dog", "box"))  # .5 for A, .1 for B in either order
    assert (first, second) == pytest.approx((math.log(0.3), math.log(0.3)))
    assert len(engine.asked) == 2
    assert score.counts is engine.counts
    assert score.counts["unclear_mass"] == pytest.approx(2 * 0.4)


def test_without_swapping_the_earlier_one_is_always_a(scripted: Callable[..., Any]) -> None:
    score, engine = scripted(swap_options=False)
    assert score(items("dog", "box")) == pytest.approx([math.log(0.5), math.log(0.1)])
    assert len(engine.asked) == 1


def test_wins_are_averaged_over_rivals_within_the_group(scripted: Callable[..., Any]) -> None:
    score, engine = scripted(swap_options=False)
    scores = score(items("dog", "box", "hat") + items("owl", "cup", group=7) + items("alone", group=8))
    # dog wins .5 + .5 of 2, box .1 + .5, hat .1 + .1
    assert scores[:5] == pytest.approx([math.log(p) for p in (0.5, 0.3, 0.1, 0.5, 0.1)])
    assert scores[5] is None
    assert len(engine.asked) == 4


def test_a_question_that_the_engine_cannot_take_loses_its_items(scripted: Callable[..., Any]) -> None:
    score, _ = scripted(swap_options=False)
    assert score(items("dog", "date") + items("owl", "cup", group=1))[:2] == [None, None]


def test_long_options_are_cut(scripted: Callable[..., Any]) -> None:
    score, engine = scripted(max_option_tokens=2)
    score(items("dog box hat fig", "owl"))
    assert "dog box" in engine.asked[0]
    assert "hat" not in engine.asked[0]


def test_ids_with_the_same_text_add_up() -> None:
    tokenizer = SimpleNamespace(decode=lambda ids: {1: "A", 2: "B", 3: "A"}[ids[0]])
    shown = by_text(tokenizer, [(1, math.log(0.25)), (2, math.log(0.5)), (3, math.log(0.125))])  # type: ignore[arg-type]
    assert shown == pytest.approx({"A": math.log(0.375), "B": math.log(0.5)})


def test_hf_and_vllm_show_the_same_log_probs(models: dict[str, Model], vllm: Vllm) -> None:
    tokenizer = load_tokenizer(models["policy"])
    pairs = [encode_pair(tokenizer, task.messages, task.response) for task in tasks("tune", 0, 20)]
    prompts = [prompt for prompt, _ in pairs]
    too_long = ([1] * 100, [2] * 40)
    hf = open_logprob_engine(models["policy"], EngineConfig(engine="hf", batch_tokens=200))
    finished: list[float] = []
    expected, read = hf.logprobs(pairs, done=finished.append), vllm("logprobs", [*pairs, too_long])
    assert read.answers[-1] is None
    assert sum(finished) == 20
    assert len(finished) > 1, "after each batch"
    assert read.finished == [1] * 21, "each as it is finished"
    tokens = sum(len(prompt) + len(response) for prompt, response in pairs)
    assert read.counts == hf.counts == {"calls": 20, "tokens": tokens}
    for one, two, (_, response) in zip(expected, read.answers[:-1], pairs):
        assert len(one) == len(response)
        assert one == pytest.approx(two, abs=1e-3)
    hf.counts.clear()
    shown, other = hf.next_token_logprobs(prompts, 20), vllm("next_token_logprobs", prompts, 20)
    assert other.finished == [0, *[1] * 20]
    assert other.counts == hf.counts == {"calls": 20, "tokens": sum(map(len, prompts))}
    for one, two in zip(shown, other.answers):
        common = set(one) & set(two)  # the last of twenty may differ by rounding
        assert len(common) >= 19
        assert [one[token] for token in common] == pytest.approx([two[token] for token in common], abs=1e-3)


def test_scores_are_combined_and_filtered() -> None:
    task = tasks("tune", 0, 1)[0]
    scores = {"score.logprob": [-1.0, -2.0], "score.choice": [math.log(0.8), math.log(0.1)]}
    row = candidate_set(task, ["a", "b"], **scores)
    released = TeacherScoreConfig()
    assert teacher_scores(row, released) == pytest.approx([10 * math.log(0.8), 10 * math.log(0.1)])
    mixed = TeacherScoreConfig(alpha=0.25, beta=4.0)
    assert teacher_scores(row, mixed) == pytest.approx([-1 + 3 * math.log(0.8), -2 + 3 * math.log(0.1)])
    undecided = row | {"score.choice": [math.log(0.4), math.log(0.1)]}
    shard = RankWorker(TeacherScoreConfig(keep_decided=True))([row, undecided], "x")
    assert (len(shard.rows), shard.counts) == (1, {"undecided": 1})


def test_baselines_take_the_best_and_the_worst() -> None:
    task = tasks("tune", 0, 1)[0]
    row = candidate_set(task, ["a", "b", "c"], **{"score.teacher": [-2.0, -1.0, -3.0]})
    made = best_worst_pair(row)
    assert made is not None
    assert (made["chosen"][0]["content"], made["rejected"][0]["content"]) == ("b", "c")
    tied = row | {"score.teacher": [1.0, 1.0, 1.0]}
    shard = PairWorker()([row, tied], "x")
    assert (len(shard.rows), shard.counts) == (1, {"tied": 1})


CONFIG: dict[str, Any] = {
    "recipe": "pad",
    "policy": {"model": "toy:policy"},
    "teacher": {"model": "toy:policy"},
    "data": {"prompts": "toy:train", "prompts_per_iteration": 64, "shard_size": 32},
    "sampling": {"engine": "hf", "k": 4, "max_tokens": 16, "max_model_len": 128},
    "keep": 3,
    "templates": {"pad_choice": "{{ prompt[-1].content }} ( {{ a }} ) {{ b }}"},
    "scoring": {"alpha": 0.5, "engine": "hf"},
    "tune": {"batch_size": 16, "learning_rate": 1e-4, "precision": "fp32", "zero_stage": 0},
    "evaluation": {"sets": {"toy": "toy:tune"}, "judge": "tsalign.toy.oracle:grade", "prompts_per_set": 3},
}


def test_more_cannot_be_kept_than_sampled() -> None:
    with pytest.raises(ValueError, match=r"keep: cannot keep 6 of 4 responses"):
        PADConfig(**{**CONFIG, "keep": 6})
    with pytest.raises(ValueError, match="keep_decided needs selection probabilities"):
        TeacherScoreConfig(alpha=1, keep_decided=True)


def test_a_small_run_and_dpo_on_the_same_scores(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = tsalign.run({**CONFIG, "run": "small"}, tune__beta=1.0)
    assert summary["status"] == "done"
    assert 0 <= summary["results"]["win rate T=1.0"] <= 1
    stages = [json.loads(line) for line in (tmp_path / "runs/small/ledger.jsonl").read_text().splitlines()]
    done = {entry["stage"]: entry["counts"] for entry in stages if entry.get("state") == "done"}
    kept = done["1/diverse"]["rows"]
    assert kept + done["1/diverse"]["too_similar"] == 64
    # Of each prompt's three responses: six questions about the pairs, in both orders, and three log-probs.
    assert done["1/scores"]["calls.teacher"] == kept * (6 + 3)
    read = sum(
        len(row["prompt_ids"]) + len(made["token_ids"])
        for shard in (tmp_path / "runs/small/iterations/1/diverse").glob("*.parquet")
        for row in read_rows(UPath(shard))
        for made in row["completions"]
    )
    assert done["1/scores"]["tokens.teacher"] - read > read > 0
    check_against_plan(tmp_path / "runs/small")

    # The same run with another objective goes on from the teacher's scores.
    tsalign.run({**CONFIG, "run": "small"}, tune__objective="dpo", tune__reference="previous", tune__beta=1.0)
    again = [json.loads(line) for line in (tmp_path / "runs/small/ledger.jsonl").read_text().splitlines()]
    begun = {entry["stage"] for entry in again[len(stages) :] if entry.get("state") == "started"}
    assert {"1/pairs", "1/reference", "1/policy", "1/evaluation"} <= begun
    assert begun.isdisjoint({"prompts", "base_answers", "1/candidates", "1/diverse", "1/scores", "1/rankings"})
    check_against_plan(tmp_path / "runs/small")
    metrics = [json.loads(line) for line in (tmp_path / "runs/small/metrics.jsonl").read_text().splitlines()]
    losses = [m for m in metrics if m["stage"] == "policy" and "loss" in m]
    assert 0 < losses[0]["divergence"] < math.log(2)
    first = next(m for m in losses if "dpo" in m)
    assert first["dpo"] == pytest.approx(math.log(2), abs=1e-4)
