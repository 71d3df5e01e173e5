"""Both engines: every request from its own seed, greedy decoding alike, and what `generate` makes of the edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ray
import torch
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import SamplingConfig
from tsalign.data.chat import encode_prompt, load_tokenizer
from tsalign.data.shards import Shard, read_counts, read_rows, write_shard
from tsalign.engines import Completion, Request, open_engine
from tsalign.engines.hf import SeededSampling
from tsalign.runs.artifacts import Dataset, Model
from tsalign.stages.sampling import SampleWorker, sample
from tsalign.toy.world import tasks

SAMPLING = SamplingConfig(engine="hf", k=3, max_tokens=8, max_model_len=64)


def requests(model: Model, temperature: float, count: int = 12) -> list[Request]:
    tokenizer = load_tokenizer(model)
    return [
        Request(task.messages, seed, temperature, encode_prompt(tokenizer, task.messages))
        for seed, task in enumerate(tasks("tune", 0, count))
    ]


def test_hf_completions_depend_on_their_request_alone(models: dict[str, Model]) -> None:
    engine = open_engine(models["policy"], SAMPLING)
    asked = requests(models["policy"], 1.0)
    together = engine.generate(asked)
    assert [engine.generate([request])[0] for request in asked] == together
    assert len({completion.text for completion in together}) > 6
    other_seed = engine.generate([request._replace(seed=request.seed + 100) for request in asked])
    assert other_seed != together


def test_seeded_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    count = 4000
    asked = [Request([], seed, 0.5, [0]) for seed in range(count)]
    drawn = SeededSampling(asked, SAMPLING, torch.device("cpu"))(torch.zeros(0), logits.repeat(count, 1)).argmax(1)
    expected = (logits[0] / 0.5).softmax(0)
    seen = torch.bincount(drawn, minlength=4) / count
    assert seen.tolist() == pytest.approx(expected.tolist(), abs=0.025)


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, {0}), (0.88, {0, 1}), (1.0, {0, 1, 2, 3})])
def test_top_p_keeps_the_smallest_nucleus(top_p: float, kept: set[int]) -> None:
    # probabilities .644, .237, .087, .032
    sampling = SAMPLING.model_copy(update={"top_p": top_p})
    asked = [Request([], seed, 1.0, [0]) for seed in range(800)]
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(800, 1)
    drawn = SeededSampling(asked, sampling, torch.device("cpu"))(torch.zeros(0), logits).argmax(1)
    assert set(drawn.tolist()) == kept


def test_hf_and_vllm_agree_on_greedy_decoding(models: dict[str, Model], ray_session: None) -> None:
    asked = requests(models["policy"], 0.0)
    hf = open_engine(models["policy"], SAMPLING).generate(asked)
    vllm = ray.get(_generate.remote(models["policy"], SAMPLING.model_copy(update={"engine": "vllm"}), asked))
    assert vllm == [tuple(completion) for completion in hf]


@ray.remote
def _generate(model: Model, sampling: SamplingConfig, asked: list[Request]) -> list[Completion]:
    return [tuple(completion) for completion in open_engine(model, sampling).generate(asked)]  # type: ignore[misc]


def test_vllm_takes_more_prompts_than_one_step_holds(models: dict[str, Model], ray_session: None) -> None:
    asked = [
        request._replace(prompt_ids=request.prompt_ids * 5) for request in requests(models["policy"], 1.0, count=400)
    ]
    vllm = SAMPLING.model_copy(update={"engine": "vllm", "max_model_len": 128})
    assert len(ray.get(_generate.remote(models["policy"], vllm, asked))) == 400


def test_stop_strings_end_a_completion(models: dict[str, Model]) -> None:
    asked = requests(models["policy"], 1.0)
    free = open_engine(models["policy"], SAMPLING).generate(asked)
    stop = free[0].text.split()[1]
    stopped = open_engine(models["policy"], SAMPLING.model_copy(update={"stop": (stop,)})).generate(asked)
    assert stopped[0].text == free[0].text.partition(f" {stop}")[0]
    assert stopped[0].finish == "stop"


def test_an_unknown_engine_is_named(models: dict[str, Model]) -> None:
    with pytest.raises(TsalignError, match=r"sampling.engine: 'nope' is not one of hf, vllm"):
        open_engine(models["policy"], SAMPLING.model_copy(update={"engine": "nope"}))


def prompt_rows(model: Model, count: int) -> list[dict[str, Any]]:
    tokenizer = load_tokenizer(model)
    return [
        {
            "prompt_id": f"id-{task.prompt}",
            "set": task.family,
            "prompt": task.messages,
            "prompt_ids": encode_prompt(tokenizer, task.messages),
        }
        for task in tasks("train", 0, count)
    ]


@pytest.mark.parametrize("engine", ["hf", "vllm"])
def test_sampling_over_actors(
    engine: str, models: dict[str, Model], make_stage: Callable[..., Any], released: Callable[[], None]
) -> None:
    stage, _ = make_stage("candidates")
    rows = prompt_rows(models["policy"], 20)
    rows[3]["prompt_ids"] = rows[3]["prompt_ids"] * 20
    prompts = stage.out.parent / "prompts"
    for number in range(2):
        write_shard(prompts / f"part-0000{number}.parquet", Shard(rows[number::2]))
    source = Dataset(str(prompts), "prompts")
    sampling = SAMPLING.model_copy(update={"engine": engine})
    with pytest.raises(TsalignError, match="1 of 20 rows failed") as error:
        sample(stage, models["policy"], source, sampling)
    assert "max_model_len" in str(error.value)
    # The long prompt became a failed row; all other candidates are there, each from its own seed.
    candidates = Dataset(str(stage.out), "x")
    made = [row for shard in candidates.shards() for row in read_rows(shard)]
    assert len(made) == 19
    seeds = [completion["seed"] for row in made for completion in row["completions"]]
    assert len(set(seeds)) == len(seeds) == 57
    counts = read_counts(candidates)
    assert (counts["completions"], counts["failed"]) == (57, 1)
    assert 0 <= counts["duplicates"] < 30
    assert (stage.quarantine / "part-00001.jsonl").exists()
    released()


def test_committed_shards_are_not_sampled_again(
    models: dict[str, Model], make_stage: Callable[..., Any], ray_session: None
) -> None:
    stage, log = make_stage("candidates")
    rows = prompt_rows(models["policy"], 12)
    prompts = UPath(stage.out.parent) / "prompts"
    for number in range(3):
        write_shard(prompts / f"part-0000{number}.parquet", Shard(rows[number::3]))
    source = Dataset(str(prompts), "prompts")
    sample(stage, models["policy"], source, SAMPLING)
    assert log["duplicate_rate"] == log["duplicates"] / 36
    assert 1 <= log["mean_completion_tokens"] <= SAMPLING.max_tokens
    shards = Dataset(str(stage.out), "x").shards()
    expected = [read_rows(shard) for shard in shards]
    first_written = shards[0].stat().st_mtime_ns
    shards[1].unlink()
    sample(stage, models["policy"], source, SAMPLING)
    assert shards[0].stat().st_mtime_ns == first_written
    assert [read_rows(shard) for shard in shards] == expected


def test_several_temperatures_in_one_pass(models: dict[str, Model]) -> None:
    worker = SampleWorker(models["policy"], SAMPLING.model_copy(update={"k": 2}), (1.0, 0.0), 5, 1)
    (row,) = worker(prompt_rows(models["policy"], 1), "part-00000.parquet").rows
    assert [completion["temperature"] for completion in row["completions"]] == [1.0, 1.0, 0.0, 0.0]
    assert row["completions"][2]["text"] == row["completions"][3]["text"]
