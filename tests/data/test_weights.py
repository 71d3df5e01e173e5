"""Model folders that cannot be used: each is refused, with the file and what to do, before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    ViTConfig,
    ViTModel,
)
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.data.loading import load, load_for_inference
from tsalign.data.weights import Needs, check
from tsalign.runs.artifacts import Model
from tsalign.toy.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer()
TOKENS = len(TOKENIZER)
LLAMA = LlamaConfig(
    vocab_size=TOKENS,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=2,
    pad_token_id=0,
    num_labels=1,
)
BERT = BertConfig(
    vocab_size=TOKENS, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_labels=1
)
GPT2 = GPT2Config(vocab_size=TOKENS, n_embd=16, n_layer=2, n_head=2)
VIT = ViTConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
KINDS: dict[str, Callable[[], Any]] = {
    "causal": lambda: LlamaForCausalLM(LLAMA),
    "tied": lambda: LlamaForCausalLM(replace_config(LLAMA, tie_word_embeddings=True)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2),
    "reward": lambda: LlamaForSequenceClassification(LLAMA),
    "bert_reward": lambda: BertForSequenceClassification(BERT),
    "bert": lambda: BertForMaskedLM(BERT),
    "body": lambda: LlamaModel(LLAMA),
    "three_labels": lambda: LlamaForSequenceClassification(replace_config(LLAMA, num_labels=3)),
    "per_token": lambda: LlamaForTokenClassification(LLAMA),
    "wide": lambda: LlamaForCausalLM(replace_config(LLAMA, vocab_size=TOKENS + 50)),
    "narrow": lambda: LlamaForCausalLM(replace_config(LLAMA, vocab_size=TOKENS - 1)),
    "images": lambda: ViTModel(VIT),
}


def replace_config(config: LlamaConfig, **changes: Any) -> LlamaConfig:
    return LlamaConfig.from_dict({**config.to_dict(), **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a kind of model, in several shards or one; made once."""
    made: dict[tuple[str, bool], Path] = {}

    def get(kind: str, sharded: bool = False) -> Path:
        if (kind, sharded) not in made:
            made[kind, sharded] = folder = tmp_path_factory.mktemp(kind)
            KINDS[kind]().save_pretrained(folder, **({"max_shard_size": "10KB"} if sharded else {}))
            TOKENIZER.save_pretrained(folder)
        return made[kind, sharded]

    return get


FITTING: list[tuple[str, Needs]] = [
    *((kind, "causal") for kind in ("causal", "tied", "gpt2", "wide")),
    *((kind, "reward") for kind in ("reward", "bert_reward")),
    *((kind, "any") for kind in ("causal", "reward", "bert", "body", "tied")),
]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(("kind", "needs"), FITTING)
def test_whole_models_of_the_right_kind_pass(
    whole: Callable[..., Path], kind: str, needs: Needs, sharded: bool
) -> None:
    folder = whole(kind, sharded)
    assert (folder / "model.safetensors.index.json").exists() == sharded
    check(Model(str(folder), "x"), needs)


WRONG: list[tuple[str, Needs, str]] = [
    ("reward", "causal", "LlamaForSequenceClassification, which cannot write; give a causal language model"),
    ("bert", "causal", "BertForMaskedLM, which cannot write"),
    ("per_token", "causal", "LlamaForTokenClassification, which cannot write"),
    ("body", "causal", r"no output head: embed_tokens\.weight is the only tensor.*tie_word_embeddings"),
    ("narrow", "causal", f"the tokenizer has {TOKENS} tokens, the model only {TOKENS - 1}.*resize_token_embeddings"),
    ("narrow", "any", f"the tokenizer has {TOKENS} tokens"),
    ("causal", "reward", "LlamaForCausalLM, which has no head that scores; give a reward model.*judge:<model>"),
    ("gpt2", "reward", "GPT2LMHeadModel, which has no head that scores"),
    ("bert", "reward", "BertForMaskedLM, which has no head that scores"),
    ("body", "reward", "LlamaModel, which has no head that scores"),
    ("per_token", "reward", "LlamaForTokenClassification, which has no head that scores"),
    ("three_labels", "reward", "expected a reward model with one label, got 3 labels"),
    ("images", "causal", "vit, which reads no text"),
]


@pytest.mark.parametrize(("kind", "needs", "message"), WRONG)
def test_models_of_another_kind_are_refused(whole: Callable[..., Path], kind: str, needs: Needs, message: str) -> None:
    with pytest.raises(TsalignError, match=message) as error:
        check(Model(str(whole(kind)), "x"), needs)
    assert str(whole(kind)) in str(error.value)


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    """Sets keys of a JSON file; those that are None are removed."""

    def edit(folder: Path) -> None:
        content = {**json.loads((folder / name).read_text()), **changes}
        (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return edit


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(name: str, to: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:to]) and None


def longer(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"0000")


def without_tensors(*parts: str) -> Callable[[Path], None]:
    """Leaves tensors out of the one file, header and all."""

    def drop(folder: Path) -> None:
        file = folder / "model.safetensors"
        kept = {name: value for name, value in load_file(file).items() if not any(part in name for part in parts)}
        save_file(kept, file, {"format": "pt"})

    return drop


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def adapter(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "adapter_config.json").write_text("{}")


CODE = {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}
DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "config_not_json": (written("config.json", b'{\n"a": }'), r"config\.json:2: not JSON: .*column 6"),
    "config_binary": (written("config.json", b"\xff\xfe\x00"), r"config\.json: not text"),
    "config_list": (written("config.json", b"[1]"), r"config\.json: expected a JSON object, got list"),
    "config_missing": (without("config.json"), r"config\.json: no such file"),
    "unknown_type": (edited("config.json", model_type="llamo"), "model_type 'llamo', which this version of"),
    "no_type": (edited("config.json", model_type=None), r"config\.json: no model_type; expected one such as llama"),
    "bad_value": (edited("config.json", vocab_size="many"), "not a config of a llama: .*'vocab_size' expected int"),
    "bad_shape": (edited("config.json", num_attention_heads=5), r"not a config of a llama: .*not a multiple"),
    "custom_code": (
        edited("config.json", **CODE),
        r"Python code of its own; read it, then set trust_remote_code: true",
    ),
    "vocab_size": (edited("config.json", vocab_size=9999), "says vocab_size 9999, but no tensor has as many rows"),
    "more_layers": (edited("config.json", num_hidden_layers=8), r"3 layers have tensors, but .* num_hidden_layers 8"),
    "pickled": (pickled, r"the weights are pickled \(pytorch_model\.bin\).*convert.*save_pretrained"),
    "adapter": (adapter, "a LoRA adapter without its model; merge it"),
    "no_weights": (without("model.safetensors"), r"no weights; expected model\.safetensors"),
    "lfs": (written("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), "run `git lfs pull`"),
    "empty": (written("model.safetensors", b""), r"not a whole safetensors file \(0 bytes, no header\)"),
    "no_header": (cut("model.safetensors", 100), r"not a whole safetensors file \(100 bytes"),
    "noise": (written("model.safetensors", b"<html>404 not found</html>"), "not a whole safetensors file"),
    "cut": (cut("model.safetensors", 5000), r"5,000 bytes, but its header promises [\d,]+; copy or download"),
    "too_long": (longer, r"bytes, but its header promises"),
    "no_head": (without_tensors("lm_head"), r"no output head: model\.embed_tokens\.weight is the only"),
    "no_table": (without_tensors("lm_head", "embed_tokens"), "no tensor has as many rows; the most are 32"),
    "hole": (without_tensors("layers.1."), r"model\.layers\.1 has no tensors"),
    "last_layer": (without_tensors("layers.2."), "2 layers have tensors, but config.json says num_hidden_layers 3"),
    "no_tokenizer": (
        lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")] and None,
        r"no tokenizer; expected tokenizer\.json",
    ),
    "tokenizer_not_json": (cut("tokenizer.json", 500), r"tokenizer\.json:\d+: not JSON"),
    "tokenizer_empty": (written("tokenizer.json", b"{}"), r"tokenizer\.json: not a tokenizer: it has no vocabulary"),
    "tokenizer_wrong": (written("tokenizer.json", b'{"model": {"vocab": 3}}'), r"tokenizer\.json: not a tokenizer"),
}


@pytest.fixture
def damaged(whole: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[..., Model]]:
    """A copy of a whole model, damaged."""

    def make(damage: Callable[[Path], None], kind: str = "causal", sharded: bool = False) -> Model:
        folder = Path(shutil.copytree(whole(kind, sharded), tmp_path / "model"))
        damage(folder)
        return Model(str(folder), "x")

    return make


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_told_with_its_place(
    damaged: Callable[..., Model], damage: Callable[[Path], None], message: str
) -> None:
    model = damaged(damage)
    with pytest.raises(TsalignError, match=message) as error:
        check(model, "causal")
    assert str(error.value).startswith(model.path)
    assert "\n" not in str(error.value)


def shard(folder: Path, number: int) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[number - 1]


SHARDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda folder: shard(folder, 2).unlink(), r"model-00002-.*no such file, but .* places \d+ tensors in"),
    "cut": (lambda folder: cut(shard(folder, 2).name, -7)(folder), r"model-00002-.*bytes, but its header promises"),
    "doubled": (
        lambda folder: shutil.copy(shard(folder, 1), shard(folder, 2)) and None,
        r"model-00002-.*: no tensor .*, which model\.safetensors\.index\.json places there",
    ),
    "index_empty": (written("model.safetensors.index.json", b"{}"), "no weight_map of tensors to files"),
    "index_cut": (cut("model.safetensors.index.json", 200), r"index\.json:\d+: not JSON"),
}


@pytest.mark.parametrize(("damage", "message"), SHARDS.values(), ids=SHARDS)
def test_damaged_shards_are_named(damaged: Callable[..., Model], damage: Callable[[Path], None], message: str) -> None:
    with pytest.raises(TsalignError, match=message):
        check(damaged(damage, sharded=True), "causal")


def test_a_head_of_another_width_is_refused(damaged: Callable[..., Model]) -> None:
    def narrowed(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, "score.weight": torch.zeros(1, 8)}, folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(TsalignError, match=r"score\.weight is for a hidden_size of 8"):
        check(damaged(narrowed, "reward"), "reward")


def test_trusted_code_speaks_for_itself_and_hub_ids_are_taken_on_trust(damaged: Callable[..., Model]) -> None:
    model = damaged(edited("config.json", **CODE))
    check(replace(model, trust_remote_code=True), "causal")
    check(Model("org/name", "x"), "causal")


def test_a_bucket_is_read_by_headers_only(whole: Callable[..., Path]) -> None:
    folder = UPath("memory://models/policy")
    for file in whole("causal", sharded=True).iterdir():
        (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(file.read_bytes())
    check(Model(str(folder), "x"), "causal")
    with pytest.raises(TsalignError, match="memory://models/policy: a LlamaForCausalLM, which has no head"):
        check(Model(str(folder), "x"), "reward")


NOT_LOADED: list[tuple[str, Callable[[Path], None], str]] = [
    ("causal", without_tensors("layers.1.mlp.up_proj"), r"the weights have no model\.layers\.1\.mlp\.up_proj\.weight"),
    ("reward", without_tensors("input_layernorm"), r"no model\.layers\.0\.input_layernorm\.weight.*layers\.2"),
    ("gpt2", without_tensors("mlp.c_proj"), r"mlp\.c_proj\.\w+, .* and 1 more\. Save or download"),
    ("causal", edited("config.json", intermediate_size=48), r"is \[\d+, \d+\], but config.json says \[\d+, \d+\]"),
]


@pytest.mark.parametrize(("kind", "damage", "message"), NOT_LOADED)
def test_what_only_loading_shows_is_an_error_too(
    damaged: Callable[..., Model], kind: str, damage: Callable[[Path], None], message: str
) -> None:
    head = "reward" if kind == "reward" else "causal"
    with pytest.raises(TsalignError, match=message):
        load(damaged(damage, kind), head, torch.float32)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("kind", "head"), [("causal", "causal"), ("reward", "reward")])
def test_weights_that_are_no_numbers_score_nothing(
    damaged: Callable[..., Model], kind: str, head: Any, number: float
) -> None:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.1.mlp.down_proj.weight"][3, 3] = number
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    model = damaged(spoil, kind)
    check(model, head)
    with pytest.raises(TsalignError, match=r"model\.layers\.1\.mlp\.down_proj\.weight has infinite or undefined numb"):
        load_for_inference(model, head)


@pytest.mark.parametrize("kind", ["causal", "tied", "bert", "bert_reward", "body", "reward"])
def test_only_training_gives_a_model_a_fresh_head(whole: Callable[..., Path], kind: str) -> None:
    model = Model(str(whole(kind)), "x")
    loaded, _ = load(model, "reward", torch.float32, fresh_head=True)
    assert loaded.config.num_labels == 1
    if "reward" not in kind:
        with pytest.raises(TsalignError, match="has no head that scores"):
            load_for_inference(model, "reward")


def test_a_fresh_head_stands_on_a_whole_body(damaged: Callable[..., Model]) -> None:
    model = damaged(without_tensors("layers.1.mlp.up_proj"))
    with pytest.raises(TsalignError, match=r"the weights have no (model\.)?layers\.1\.mlp\.up_proj\.weight\. Save"):
        load(model, "reward", torch.float32, fresh_head=True)
