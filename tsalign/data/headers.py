"""What the weights of a model folder hold, read from the headers of its safetensors files alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from upath import UPath

from tsalign.common.errors import TsalignError

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
LFS = b"version https://git-lfs"
AGAIN = "copy or download the model again."

Shapes = Mapping[str, tuple[int, ...]]  # by the tensor's name


def shapes(folder: UPath) -> Shapes:
    """The shape of every tensor of a folder's `model.safetensors`, or of the shards that its index names.

    Raises:
        TsalignError: no safetensors there, a shard that is missing or cut, or without a tensor that the index names.
    """
    if (folder / ONE).exists():
        return header(folder / ONE)
    if not (folder / INDEX).exists():
        raise TsalignError(f"{folder}: {_instead(folder)}")
    placed = read_object(folder / INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise TsalignError(f"{folder / INDEX}: no weight_map of tensors to files; {AGAIN}")
    found: dict[str, tuple[int, ...]] = {}
    for name, tensors in sorted(Counter(placed.values()).items()):
        if not (folder / name).exists():
            raise TsalignError(f"{folder / name}: no such file, but {INDEX} places {tensors} tensors in it; {AGAIN}")
        found |= header(folder / name)
    if absent := sorted(set(placed) - set(found)):
        where = folder / placed[absent[0]]
        raise TsalignError(f"{where}: no tensor {absent[0]}, which {INDEX} places there; {AGAIN}")
    return found


def header(file: UPath) -> Shapes:
    """The shape of every tensor of one safetensors file; of the file itself, only the header is read.

    The format (https://github.com/huggingface/safetensors): 8 bytes length, that much JSON, then the data.

    Raises:
        TsalignError: the file is not safetensors, or shorter or longer than its header says.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if start == LFS[:8]:
            raise TsalignError(f"{file}: a Git LFS pointer, not the weights; run `git lfs pull` in the folder.")
        length = int.from_bytes(start, "little")
        text = stream.read(length) if len(start) == 8 and 8 + length <= size else b""
    try:
        tensors = json.loads(text)
        tensors.pop("__metadata__", None)
        found = {name: tuple(tensor["shape"]) for name, tensor in tensors.items()}
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise TsalignError(f"{file}: not a whole safetensors file ({size:,} bytes, no header); {AGAIN}") from error
    if size != 8 + length + end:
        raise TsalignError(f"{file}: {size:,} bytes, but its header promises {8 + length + end:,}; {AGAIN}")
    return found


def read_object(file: UPath) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        TsalignError: no such file, not JSON, or not an object; with file and line.
    """
    if not file.exists():
        raise TsalignError(f"{file}: no such file; expected a Hugging Face model folder.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise TsalignError(f"{file}:{error.lineno}: not JSON: {error.msg}, column {error.colno}; {AGAIN}") from error
    except UnicodeDecodeError as error:
        raise TsalignError(f"{file}: not text; {AGAIN}") from error
    if not isinstance(content, dict):
        raise TsalignError(f"{file}: expected a JSON object, got {type(content).__name__}.")
    return content


def _instead(folder: UPath) -> str:
    """What a folder without safetensors has, and what to do about it."""
    if any((folder / name).exists() for name in PICKLED):
        return (
            f"the weights are pickled ({PICKLED[0]}), which can run code; convert them to {ONE}: load the model "
            "with Transformers where that is safe, and save it by `save_pretrained`."
        )
    if (folder / "adapter_config.json").exists():
        return "a LoRA adapter without its model; merge it by PEFT's `merge_and_unload`, and save the whole model."
    return f"no weights; expected {ONE}, or {INDEX} and its shards."
