"""What is written of a training's first batch."""

import math

import torch

from tsalign.config import DPOTrainConfig, MarginRankingTrainConfig
from tsalign.data.chat import encode_pair, load_tokenizer
from tsalign.data.tensors import padding_id
from tsalign.runs.artifacts import Model
from tsalign.toy.world import tasks
from tsalign.training import objectives
from tsalign.training.examples import collate
from tsalign.training.first_batch import EXAMPLES, describe


def test_sides_masks_and_values_are_told_apart(models: dict[str, Model]) -> None:
    tokenizer = load_tokenizer(models["policy"])
    objective = objectives.build("dpo", DPOTrainConfig(reference="previous"))
    task = next(iter(tasks("train", 0, 1)))
    row = {
        "prompt": task.messages,
        "chosen": [{"role": "assistant", "content": task.response}],
        "rejected": [{"role": "assistant", "content": "the cat the dog the cat the dog"}],
        "score.reference": [-1.5, -math.pi],
    }
    example = objective.encode(row, tokenizer)
    assert example is not None
    batch = collate([example, example], [1.0, 0.0], padding_id(tokenizer), torch.device("cpu"))
    text = describe(batch, objective, tokenizer)
    (prompt, chosen), (_, rejected) = (
        encode_pair(tokenizer, task.messages, row[side][0]["content"]) for side in ("chosen", "rejected")
    )
    lines = text.splitlines()
    longest = len(prompt) + len(rejected)
    assert lines[0] == f"2 examples, 4 sequences padded to {longest} tokens on the left"
    assert lines[2] == "example 1, weight 1"
    assert lines[3] == "  chosen; reference log-prob -1.5"
    kinds = [line.split()[:2] for line in lines[4:7]]
    assert kinds == [
        ["padding", str(len(rejected) - len(chosen))],
        ["prompt", str(len(prompt))],
        ["response", str(len(chosen))],
    ]
    assert task.response in lines[6]
    assert task.response not in lines[5]
    assert tokenizer.eos_token in lines[6]
    assert lines[7] == "  rejected; reference log-prob -3.14159"
    assert [line.split()[0] for line in lines[8:10]] == ["prompt", "response"]  # the longest has no padding
    assert "the cat the dog" in lines[9]
    assert lines[11] == "example 2, weight 0"


def test_a_large_batch_is_cut_short_and_unnamed_sides_are_numbered(models: dict[str, Model]) -> None:
    tokenizer = load_tokenizer(models["student"])
    objective = objectives.build("margin_ranking", MarginRankingTrainConfig())
    rows = [
        {"prompt": task.messages, "texts": ["cat", task.response, "dog"], "scores": [0.0, 2.0, 1.0]}
        for task in tasks("train", 0, EXAMPLES + 3)
    ]
    examples = [example for row in rows if (example := objective.encode(row, tokenizer))]
    batch = collate(examples, [1.0] * len(examples), padding_id(tokenizer), torch.device("cpu"))
    lines = describe(batch, objective, tokenizer).splitlines()
    assert [line for line in lines if line.startswith("  response")][:3] == [
        "  response 1; target 0",
        "  response 2; target 2",
        "  response 3; target 1",
    ]
    assert sum(line.startswith("example") for line in lines) == EXAMPLES
    assert lines[-1] == "and 3 more examples"
