"""One score for one text, wherever it is computed; log-probs against a plain forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import SamplingConfig
from tsalign.data.chat import encode_pair, load_tokenizer
from tsalign.data.loading import load
from tsalign.data.shards import Shard, read_rows, write_shard
from tsalign.data.tensors import padding_id, rewards
from tsalign.runs.artifacts import Dataset, Model
from tsalign.scoring import Item, scorer_from_name
from tsalign.scoring.function import PythonFunction
from tsalign.scoring.logprob import LogProb
from tsalign.scoring.reward_model import RewardModel
from tsalign.scoring.stage import ScoreWorker, score
from tsalign.toy.world import tasks
from tsalign.training.examples import collate
from tsalign.training.objectives.ranking import PairwiseRanking, margin_ranking


def items(count: int = 30) -> list[Item]:
    made = []
    for index, task in enumerate(tasks("tune", 0, count)):
        made.append(Item(task.messages, task.response + " cat" * (index % 5)))
    return made


def test_training_student_and_plain_transformers_score_alike(models: dict[str, Model]) -> None:
    asked = items()
    scores = RewardModel(models["student"]).load()(asked)
    tokenizer = load_tokenizer(models["student"])
    # one text at a time, without padding, by Transformers alone
    plain_model = AutoModelForSequenceClassification.from_pretrained(models["student"].path).eval()
    with torch.no_grad():
        plain = [
            plain_model(
                torch.tensor([[t for part in encode_pair(tokenizer, i.prompt, i.completion) for t in part]])
            ).logits.item()
            for i in asked
        ]
    assert scores == pytest.approx(plain, abs=1e-5)
    # as the training loop sees them: collated pairs
    model, tokenizer = load(models["student"], "reward", torch.float32)
    rows = [
        {
            "prompt": one.prompt,
            "chosen": [{"role": "assistant", "content": one.completion}],
            "rejected": [{"role": "assistant", "content": "the cat"}],
        }
        for one in asked
    ]
    objective = PairwiseRanking(margin_ranking, 1.0)
    examples = [objective.encode(row, tokenizer) for row in rows]
    batch = collate(examples, [1.0] * len(examples), padding_id(tokenizer), torch.device("cpu"))
    with torch.no_grad():
        trained = rewards(model.eval(), batch.padded)[::2].tolist()
    assert trained == pytest.approx(plain, abs=1e-5)


def test_scores_do_not_depend_on_the_batch(models: dict[str, Model]) -> None:
    asked = items()
    assert RewardModel(models["student"], batch_tokens=10).load()(asked) == pytest.approx(
        RewardModel(models["student"]).load()(asked), abs=1e-5
    )


def test_logprobs_against_a_plain_forward_pass(models: dict[str, Model]) -> None:
    asked = items(12)
    sums = LogProb(models["policy"]).load()(asked)
    means = LogProb(models["policy"], "mean", inference=SamplingConfig(engine="hf", batch_tokens=20)).load()(asked)
    model = AutoModelForCausalLM.from_pretrained(models["policy"].path).eval()
    tokenizer = load_tokenizer(models["policy"])
    for item, total, mean in zip(asked, sums, means):
        prompt, response = encode_pair(tokenizer, item.prompt, item.completion)
        with torch.no_grad():
            logps = model(torch.tensor([prompt + response])).logits[0].double().log_softmax(-1)
        expected = sum(logps[len(prompt) - 1 + i, token].item() for i, token in enumerate(response))
        assert total == pytest.approx(expected, abs=1e-4)
        assert mean == pytest.approx(expected / len(response), abs=1e-5)


def test_sampled_tokens_are_scored_as_they_were_sampled(models: dict[str, Model]) -> None:
    tokenizer = load_tokenizer(models["policy"])
    (item,) = items(1)
    prompt, response = encode_pair(tokenizer, item.prompt, item.completion)
    cut = item._replace(prompt_ids=prompt, token_ids=response[:-1])  # stopped by length: no end token
    scorer = LogProb(models["policy"]).load()
    whole, without_end = scorer([item, cut])
    assert without_end > whole
    assert LogProb(models["policy"], sampled_tokens=False).load()([cut]) == pytest.approx([whole], abs=1e-5)


def preference_rows() -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": task.prompt,
            "set": task.family,
            "prompt": task.messages,
            "chosen": [{"role": "assistant", "content": task.response}],
            "rejected": [{"role": "assistant", "content": "cat"}],
        }
        for task in tasks("tune", 1, 20)
    ]


GRADE = "tsalign.toy.oracle:grade"


def half_a_judge(prompt: list[dict[str, str]], completion: str) -> float:
    return float("nan") if completion == "cat" else 1.0


def test_the_stage_adds_columns_and_keeps_to_its_share(
    models: dict[str, Model], make_stage: Callable[..., Any], ray_session: None
) -> None:
    source = Dataset(str(make_stage("rows")[0].out), "rows")
    for number in range(2):
        write_shard(UPath(source.path) / f"part-0000{number}.parquet", Shard(preference_rows()[number::2]))
    scorers = {"student": RewardModel(models["student"]), "oracle": scorer_from_name(GRADE)}
    seen = []
    for name, share in (("low", (0.0, 0.5)), ("high", (0.5, 1.0))):
        stage, log = make_stage(name, workers=2)
        scored = score(stage, source, scorers, share=share)
        rows = [row for shard in scored.shards() for row in read_rows(shard)]
        assert all(row["score.oracle"] == [1.0, pytest.approx(row["score.oracle"][1])] for row in rows)
        assert all(len(row["score.student"]) == 2 for row in rows)
        assert log["scored"] == 2 * len(rows)
        seen += [row["prompt_id"] for row in rows]
    assert sorted(seen) == sorted(row["prompt_id"] for row in preference_rows())


def test_scorers_of_one_role_count_together_and_share_the_progress(models: dict[str, Model]) -> None:
    student = replace(models["student"], role="student")
    scorers = {
        "all": RewardModel(student),
        "few": RewardModel(student, batch_tokens=50),
        "oracle": PythonFunction(GRADE),
    }
    worker = ScoreWorker(scorers, (0.0, 1.0))
    shares: list[float] = []
    worker.report = shares.append
    shard = worker(preference_rows(), "part-00000.parquet")
    pairs = [
        encode_pair(load_tokenizer(student), row["prompt"], row[side][0]["content"])
        for row in preference_rows()
        for side in ("chosen", "rejected")
    ]
    tokens = sum(len(prompt) + len(response) for prompt, response in pairs)
    assert shard.counts == {"scored": 40, "calls.student": 80, "tokens.student": 2 * tokens}
    assert sum(shares) == pytest.approx(2 / 3), "who asks no model is done at once"
    assert len(shares) > 5


@pytest.mark.parametrize("name", ["no_such_module:judge", "tsalign.toy.oracle:nothing", "tsalign.toy.oracle"])
def test_a_judge_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(TsalignError, match=f"judge '{name}'.*expected module:function"):
        scorer_from_name(name).load()


def test_a_classifier_with_many_labels_is_no_reward_model(models: dict[str, Model], tmp_path: Any) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        models["student"].path, num_labels=3, ignore_mismatched_sizes=True
    )
    model.save_pretrained(tmp_path)
    load_tokenizer(models["student"]).save_pretrained(tmp_path)
    with pytest.raises(TsalignError, match="expected a reward model with one label, got 3 labels"):
        RewardModel(Model(str(tmp_path), "x")).load()
