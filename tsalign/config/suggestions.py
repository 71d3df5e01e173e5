"""What an unknown key may have meant: a similar one, the same in another block, or the one that others call so."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from pydantic import BaseModel

from tsalign.config.blocks import blocks

MOST = 3
# What other tools call our keys.
ALIASES = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "batch": "batch_size",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "warmup_ratio": "warmup",
    "max_grad_norm": "clip",
    "max_seq_length": "max_length",
    "max_new_tokens": "max_tokens",
    "max_prompt_length": "max_prompt_tokens",
    "temp": "temperature",
    "n": "k",
    "num_return_sequences": "k",
    "num_gpus": "gpus",
    "num_cpus": "cpus",
    "num_workers": "replicas",
    "tensor_parallel_size": "tensor_parallel",
    "gpu_memory_utilization": "gpu_memory",
    "torch_dtype": "dtype",
    "model_name_or_path": "model",
    "base_url": "url",
    "output_dir": "storage",
}


def suggestion(path: str, schema: type[BaseModel], block: type[BaseModel]) -> str:
    """What the key at `path`, which `block` does not have, may have meant; else the keys that it has."""
    parent, _, given = path.rpartition(".")
    plain = given.lower().replace("-", "_")
    name = ALIASES.get(plain, plain)
    everywhere = [key for key in dict.fromkeys(_keys(schema)) if key != path]
    here = {f"{parent}.{key}".strip("."): key for key in block.model_fields}
    near = (
        [key for key, last in here.items() if last == name]
        or [
            *(key for key in everywhere if key.rpartition(".")[2] == name),
            *(key for key, last in here.items() if last in difflib.get_close_matches(name, here.values(), 1)),
        ]
        or [key for key in everywhere if difflib.get_close_matches(name, [key.rpartition(".")[2]], 1, 0.8)]
    )
    if not near:
        return f"valid here: {', '.join(block.model_fields)}"
    return f"did you mean {' or '.join(dict.fromkeys(near[:MOST]))}?"


def _keys(schema: type[BaseModel]) -> Iterator[str]:
    """All dotted keys, those of the upper blocks first."""
    yield from schema.model_fields
    for name, field in schema.model_fields.items():
        for block in blocks(field.annotation).values():
            yield from (f"{name}.{key}" for key in _keys(block))
