"""Models into memory, for inference and for training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerBase,
)

from tsalign.common.errors import TsalignError
from tsalign.common.storage import local_folder
from tsalign.data.chat import load_tokenizer
from tsalign.data.tensors import finite, padding_id
from tsalign.data.weights import check
from tsalign.runs.artifacts import Model

HEADS = {"causal": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}


def device() -> torch.device:
    """This process's GPU, or the CPU if it has none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(
    model: Model,
    head: Literal["causal", "reward"],
    dtype: torch.dtype,
    spread: bool = False,
    fresh_head: bool = False,
) -> tuple[Any, PreTrainedTokenizerBase]:
    """A model on the CPU in `dtype`, or with `spread` over the GPUs of this process, and its tokenizer.

    A reward model has one label.

    Args:
        fresh_head: a model without a head that scores gets one with random weights, to be trained.

    Raises:
        TsalignError: the folder is no whole model with that head (see `tsalign.data.weights`), or tensors that the
            model needs are missing or of another shape.
    """
    check(model, "any" if fresh_head else head)
    tokenizer = load_tokenizer(model)
    options: dict[str, Any] = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    placed = {"device_map": "auto"} if spread else {}
    with local_folder(model.path) as folder:
        config = AutoConfig.from_pretrained(folder, **options)
        if head == "reward":
            if "SequenceClassification" in str(config.architectures) and config.num_labels != 1:
                raise TsalignError(
                    f"{model.path}: expected a reward model with one label, got {config.num_labels} labels."
                )
            config.num_labels = 1
        # What is missing or does not fit would be made up at random: it is looked at instead.
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        loaded, info = HEADS[head].from_pretrained(folder, config=config, dtype=dtype, **told, **options, **placed)
    fresh = [name for name in info["missing_keys"] if fresh_head and _of_head(name, loaded.base_model_prefix)]
    check_loaded(model, set(info["missing_keys"]) - set(fresh), info["mismatched_keys"])
    loaded.config.pad_token_id = padding_id(tokenizer)
    return loaded, tokenizer


def _of_head(name: str, body: str) -> bool:
    """Whether a tensor is on top of the body; encoders have a pooler inside of it that only classifiers use."""
    return not name.startswith(f"{body}.") or ".pooler." in name


def check_loaded(model: Model, missing: Iterable[str], mismatched: Iterable[tuple[str, Any, Any]] = ()) -> None:
    """What Transformers tells of its loading: tensors that it found nowhere, or (name, found, wanted) of another shape.

    Raises:
        TsalignError: there are some.
    """
    again = "Save or download the whole model again."
    if absent := sorted(missing):
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise TsalignError(f"{model.path}: the weights have no {', '.join(absent[:3])}{more}. {again}")
    for name, given, wanted in mismatched:
        raise TsalignError(f"{model.path}: {name} is {list(given)}, but config.json says {list(wanted)}. {again}")


def load_for_inference(model: Model, head: Literal["causal", "reward"]) -> tuple[Any, PreTrainedTokenizerBase]:
    """A model in evaluation mode on this process's device, or its layers spread over several GPUs where it has them.

    `dtype: auto` is bfloat16 on a GPU, float32 on a CPU.

    Raises:
        TsalignError: as `load`; or a weight holds infinite or undefined numbers.
    """
    where, spread = device(), torch.cuda.device_count() > 1
    default = torch.bfloat16 if where.type == "cuda" else torch.float32
    dtype = default if model.dtype == "auto" else getattr(torch, model.dtype)
    loaded, tokenizer = load(model, head, dtype, spread)
    loaded = loaded.eval().requires_grad_(False)
    placed = loaded if spread else loaded.to(where)
    if broken := next((name for name, weight in placed.named_parameters() if not finite(weight)), None):
        raise TsalignError(
            f"{model.path}: {broken} has infinite or undefined numbers, and so would all that the model says; "
            "use a checkpoint from before its training went wrong."
        )
    return placed, tokenizer
