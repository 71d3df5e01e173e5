"""Both engines: every request from its own seed, greedy decoding alike, and what `generate` makes of the edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Vllm
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import EngineConfig, SamplingConfig
from tsalign.data.chat import encode_prompt, load_tokenizer
from tsalign.data.shards import Shard, read_counts, read_rows, write_shard
from tsalign.engines import Completion, Failed, Request, open_engine, prompts_that_fit, request_from
from tsalign.engines.hf import SeededSampling
from tsalign.runs.artifacts import Dataset, Model
from tsalign.stages.generation import GenerationWorker
from tsalign.stages.sampling import Candidates, sample
from tsalign.toy.world import tasks

SAMPLING = SamplingConfig(engine="hf", k=3, max_tokens=8, max_model_len=64)


def requests(model: Model, temperature: float, count: int = 12) -> list[Request]:
    tokenizer = load_tokenizer(model)
    return [
        request_from(SAMPLING, task.messages, seed, temperature, encode_prompt(tokenizer, task.messages))
        for seed, task in enumerate(tasks("tune", 0, count))
    ]


def drawing(seed: int, temperature: float, top_p: float = 1.0) -> Request:
    return Request([], seed, temperature, max_tokens=8, top_p=top_p, prompt_ids=[0])


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
    asked = [drawing(seed, 0.5) for seed in range(count)]
    drawn = SeededSampling(asked, torch.device("cpu"))(torch.zeros(0), logits.repeat(count, 1)).argmax(1)
    expected = (logits[0] / 0.5).softmax(0)
    seen = torch.bincount(drawn, minlength=4) / count
    assert seen.tolist() == pytest.approx(expected.tolist(), abs=0.025)


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, {0}), (0.88, {0, 1}), (1.0, {0, 1, 2, 3})])
def test_top_p_keeps_the_smallest_nucleus(top_p: float, kept: set[int]) -> None:
    # probabilities .644, .237, .087, .032
    asked = [drawing(seed, 1.0, top_p) for seed in range(800)] + [drawing(seed, 1.0, 0.01) for seed in range(200)]
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(1000, 1)
    drawn = SeededSampling(asked, torch.device("cpu"))(torch.zeros(0), logits).argmax(1)
    assert set(drawn[:800].tolist()) == kept
    assert set(drawn[800:].tolist()) == {0}, "each request has its own top_p"


def test_hf_and_vllm_agree_on_greedy_decoding(models: dict[str, Model], vllm: Vllm) -> None:
    asked = requests(models["policy"], 0.0)
    assert vllm("generate", asked).answers == open_engine(models["policy"], SAMPLING).generate(asked)


def test_vllm_takes_more_prompts_than_one_step_holds(models: dict[str, Model], vllm: Vllm) -> None:
    asked = [
        request._replace(prompt_ids=request.prompt_ids * 5) for request in requests(models["policy"], 1.0, count=400)
    ]
    assert len(vllm("generate", asked).answers) == 400


def test_stop_strings_end_a_completion(models: dict[str, Model]) -> None:
    asked = requests(models["policy"], 1.0)
    engine = open_engine(models["policy"], SAMPLING)
    free = engine.generate(asked)
    stop = free[0].text.split()[1]
    stopped = engine.generate([request._replace(stop=(stop,)) for request in asked])
    assert stopped[0].text == free[0].text.partition(f" {stop}")[0]
    assert stopped[0].finish == "stop"


def test_requests_with_other_parameters_share_an_engine(models: dict[str, Model]) -> None:
    engine = open_engine(models["policy"], SAMPLING)
    asked = requests(models["policy"], 1.0)
    stop = engine.generate(asked)[0].text.split()[1]
    changes: list[dict[str, Any]] = [{}, {"max_tokens": 2}, {"top_p": 0.1}, {"stop": (stop,)}, {"temperature": 0.0}]
    mixed = [request._replace(**change) for request in asked for change in changes]
    together = engine.generate(mixed)
    assert [engine.generate([request])[0] for request in mixed] == together
    assert {len(made.token_ids) for made in together[1::5]} == {2}
    assert max(len(made.token_ids) for made in together) == SAMPLING.max_tokens


def test_engines_say_how_far_they_are_and_count_what_they_read_and_write(models: dict[str, Model], vllm: Vllm) -> None:
    """The same of both engines: of nine requests one is too long; each prompt is read for each of its requests."""
    asked = [*requests(models["policy"], 0.0, count=4) * 2, Request([], 0, 0.0, 8, prompt_ids=[5] * 60)]
    engine = open_engine(models["policy"], EngineConfig(engine="hf", max_model_len=64, batch_tokens=64))
    finished: list[float] = []
    made = engine.generate(asked, done=finished.append)
    assert sum(finished) == 9
    assert finished[0] == 1
    assert len(finished) > 3, "after each batch"
    assert isinstance(made[8], Failed)
    read = sum(len(request.prompt_ids or []) for request in asked[:8])
    written = sum(len(one.token_ids) for one in made if isinstance(one, Completion))
    assert engine.counts == {"calls": 8, "tokens": read + written}
    other = vllm("generate", [*asked[:8], asked[8]._replace(max_tokens=80)])  # it has room for 128
    assert other.answers[:8] == made[:8]
    assert isinstance(other.answers[8], Failed)
    assert other.finished == [1] * 9, "each as it is finished"
    assert other.counts == engine.counts


def test_prompts_fit_that_leave_room_for_their_own_completion(models: dict[str, Model]) -> None:
    tokenizer = load_tokenizer(models["policy"])
    words = [{"role": "user", "content": "apple pear"}]
    ids = encode_prompt(tokenizer, words)
    asked = [Request([], 0, 1.0, 4, prompt_ids=[1] * 6), Request([], 0, 1.0, 5, prompt_ids=[1] * 6)]
    fitting, failed = prompts_that_fit([*asked, Request(words, 0, 1.0, 10 - len(ids))], tokenizer, max_model_len=10)
    assert fitting == {0: [1] * 6, 2: ids}
    assert failed == {1: Failed("prompt has 6 tokens; max_model_len - max_tokens leaves 5")}


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
    asking = Candidates(SAMPLING.model_copy(update={"k": 2}), (1.0, 0.0), seed=5, writer="w")
    worker = GenerationWorker(models["policy"], asking, SAMPLING, tensor_parallel=1)
    (row,) = worker(prompt_rows(models["policy"], 1), "part-00000.parquet").rows
    assert [completion["temperature"] for completion in row["completions"]] == [1.0, 1.0, 0.0, 0.0]
    assert row["completions"][2]["text"] == row["completions"][3]["text"]
