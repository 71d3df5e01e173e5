"""The first batch of a training as text: the tokens that the model is shown, and which of them are the response."""

from __future__ import annotations

import json

from transformers import PreTrainedTokenizerBase

from tsalign.training.examples import Batch
from tsalign.training.objectives import Objective

EXAMPLES = 8


def describe(batch: Batch, objective: Objective, tokenizer: PreTrainedTokenizerBase) -> str:
    """The first examples of a micro-batch, decoded from its tensors with special tokens, a block a sequence."""
    sequences, width = batch.padded.input_ids.shape
    per_sequence = len(batch.values) // sequences
    lines = [f"{len(batch.weight)} examples, {sequences} sequences padded to {width} tokens on the left"]
    seen: dict[int, int] = {}
    for index, example in enumerate(batch.group.tolist()):
        if example == EXAMPLES:
            lines.append(f"\nand {len(batch.weight) - EXAMPLES} more examples")
            break
        if example not in seen:
            lines.append(f"\nexample {example + 1}, weight {batch.weight[example].item():g}")
        seen[example] = number = seen.get(example, 0) + 1
        name = objective.sides[number - 1] if objective.sides else f"response {number}"
        values = batch.values[index * per_sequence : (index + 1) * per_sequence].tolist()
        noted = f"; {objective.values} {', '.join(f'{value:.6g}' for value in values)}" if objective.values else ""
        lines += [f"  {name}{noted}", *_parts(batch, index, tokenizer)]
    return "\n".join(lines) + "\n"


def _parts(batch: Batch, index: int, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    ids, response = batch.padded.input_ids[index].tolist(), int(batch.response_lengths[index])
    padding = int((batch.padded.attention_mask[index] == 0).sum())
    parts = {"padding": ids[:padding], "prompt": ids[padding:-response], "response": ids[-response:]}
    return [
        f"    {name:<8} {len(part):>5} tokens  {json.dumps(tokenizer.decode(part), ensure_ascii=False)}"
        for name, part in parts.items()
        if part
    ]
