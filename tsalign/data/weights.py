"""Whether a model folder can be what a config wants of it, told by its JSON files and the headers of its weights.

It takes milliseconds on a model of any size, and in a bucket only headers are read. Ids of the hub are taken on trust;
what is loaded is checked again by `tsalign.data.loading`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import resolve
from tsalign.data.headers import Shapes, read_object, shapes
from tsalign.runs.artifacts import Model

# What is asked of a model: to write, to score, or only to be there whole, because training gives it a head of its own.
Needs = Literal["causal", "reward", "any"]

SCORING = re.compile(r"(^|\.)(score|classifier|classification_head)\.")
LAYER = re.compile(r"^(\D*?)\.(\d+)\.")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json")


def check(model: Model, needs: Needs) -> None:
    """Nothing, where the folder is a whole model of the kind that is needed, or `model` is an id of the hub.

    Raises:
        TsalignError: files are missing, cut or malformed, the model is of another kind, its code is not trusted, or
            its tokenizer has more tokens than the model.
    """
    folder = resolve(model.path)
    if not folder.exists():
        return
    content = read_object(folder / "config.json")
    custom = bool(content.get("auto_map")) and model.trust_remote_code
    known = None if custom else _known(folder, content)
    tensors = shapes(folder)
    tokens = _tokens(folder)
    if known is None:  # code of its own says what it is
        return
    vocabulary = getattr(known.get_text_config(), "vocab_size", 0)
    if not vocabulary:
        raise TsalignError(f"{folder}: a {known.model_type}, which reads no text; give a language model.")
    _check_layers(folder, known, tensors)
    if needs == "causal":
        _check_writes(folder, known, tensors)
    elif needs == "reward":
        _check_scores(folder, known, tensors)
    if tokens > vocabulary:
        raise TsalignError(
            f"{folder}: the tokenizer has {tokens} tokens, the model only {vocabulary} (vocab_size); "
            "use the tokenizer that the model was trained with, or call `resize_token_embeddings` and save it again."
        )


def has_head(model: Model) -> bool:
    """Whether a model calls itself a sequence classifier; one that does not gets a head when it is first trained."""
    folder = resolve(model.path)
    if folder.exists():
        called = read_object(folder / "config.json").get("architectures")
    else:
        options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
        called = AutoConfig.from_pretrained(model.path, **options).architectures
    return "CausalLM" not in str(called) and "Classification" in str(called)


def _known(folder: UPath, content: dict[str, Any]) -> PretrainedConfig:
    """The config, of an architecture that Transformers has itself."""
    kind = str(content.get("model_type", ""))
    if kind in CONFIG_MAPPING:
        try:
            made: PretrainedConfig = CONFIG_MAPPING[kind].from_dict(content)
        except (StrictDataclassError, ValueError, TypeError) as error:
            raise TsalignError(
                f"{folder / 'config.json'}: not a config of a {kind}: {' '.join(str(error).split())}"
            ) from error
        return made
    if content.get("auto_map"):
        raise TsalignError(
            f"{folder}: {kind}: the model comes with Python code of its own; read it, then set trust_remote_code: true."
        )
    told = "no model_type" if not kind else f"model_type {kind!r}, which this version of Transformers does not know"
    raise TsalignError(f"{folder / 'config.json'}: {told}; expected one such as llama, qwen2 or mistral.")


def _check_layers(folder: UPath, config: PretrainedConfig, tensors: Shapes) -> None:
    """No layer is missing among those that are numbered."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in tensors:
        if numbered := LAYER.match(name):
            numbers[numbered[1]].add(int(numbered[2]))
    for stem, present in numbers.items():
        if absent := set(range(max(present))) - present:
            raise TsalignError(f"{folder}: {stem}.{min(absent)} has no tensors; save or download the model again.")
    longest = max(map(len, numbers.values()), default=0)
    expected = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if 1 < longest < expected:
        raise TsalignError(
            f"{folder}: {longest} layers have tensors, but config.json says num_hidden_layers {expected}."
        )


def _check_writes(folder: UPath, config: PretrainedConfig, tensors: Shapes) -> None:
    """A causal language model: it is called none else, and has the tables of token embeddings that it needs."""
    if other := [name for name in config.architectures or () if re.search("Classification|Masked|Answering", name)]:
        raise TsalignError(
            f"{folder}: a {other[0]}, which cannot write; give a causal language model, such as a LlamaForCausalLM."
        )
    rows, tied = config.get_text_config().vocab_size, config.get_text_config().tie_word_embeddings
    tables = [name for name, shape in tensors.items() if len(shape) == 2 and shape[0] == rows]
    if not tables:
        largest = max((shape[0] for shape in tensors.values() if len(shape) == 2), default=0)
        raise TsalignError(
            f"{folder}: config.json says vocab_size {rows}, but no tensor has as many rows; the most are {largest}."
        )
    if len(tables) == 1 and not tied:
        raise TsalignError(
            f"{folder}: no output head: {tables[0]} is the only tensor with vocab_size {rows} rows, and config.json "
            "does not tie it (tie_word_embeddings); save the model with its head, as a causal language model."
        )


def _check_scores(folder: UPath, config: PretrainedConfig, tensors: Shapes) -> None:
    """A sequence classifier with one label, and the head's tensors with it."""
    called = (config.architectures or ["a model without a name"])[0]
    heads = [name for name in tensors if SCORING.search(name)]
    if not heads or "TokenClassification" in called or "CausalLM" in called:
        raise TsalignError(
            f"{folder}: a {called}, which has no head that scores; give a reward model (a sequence classifier with "
            "one label), or let the model judge in words: `judge:<model>`, or kind: judge for a teacher."
        )
    labels, *width = tensors.get("score.weight", (config.num_labels,))
    if width and width != [config.get_text_config().hidden_size]:
        raise TsalignError(
            f"{folder}: score.weight is for a hidden_size of {width[0]}, but config.json says otherwise."
        )
    if labels != 1:
        raise TsalignError(f"{folder}: expected a reward model with one label, got {labels} labels.")


def _tokens(folder: UPath) -> int:
    """The highest token id of `tokenizer.json`, and one; 0 where the tokenizer is in an older form."""
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise TsalignError(f"{folder}: no tokenizer; expected tokenizer.json and tokenizer_config.json.")
    if not (folder / "tokenizer.json").exists():
        return 0
    file = folder / "tokenizer.json"
    content = read_object(file)
    try:
        vocabulary = content["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return max((*ids, *(added["id"] for added in content["added_tokens"]))) + 1
    except (KeyError, TypeError, ValueError) as error:
        raise TsalignError(
            f"{file}: not a tokenizer: it has no vocabulary; copy or download the model again."
        ) from error
