"""Text to tokens and back: the prefix property, end tokens, and what is said when a template is no good."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tsalign.common.errors import TsalignError
from tsalign.data.chat import decode, encode_pair, encode_prompt, load_tokenizer, sampled_or_encoded
from tsalign.runs.artifacts import Model
from tsalign.toy.tokenizer import build_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
USER = [{"role": "user", "content": "add 1 and 2"}]


def byte_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Byte-level, no merges, ChatML specials, no pad token, and a BOS that only a caller could add."""
    specials = ["<|im_start|>", "<|im_end|>", "<|bos|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=template,
    )


TOY, BYTES = build_tokenizer(), byte_tokenizer()


def saved(tokenizer: PreTrainedTokenizerBase, folder: Path) -> Model:
    """The tokenizer as a model folder."""
    tokenizer.save_pretrained(folder)
    return Model(str(folder), "x")


def test_toy_prompt_and_reply_share_word_ids() -> None:
    prompt, response = encode_pair(TOY, [{"role": "user", "content": "reverse cat dog pig"}], "pig dog cat")
    assert TOY.decode(prompt) == "<bos> <user> reverse cat dog pig <assistant>"
    assert response == [*prompt[-2:-5:-1], TOY.eos_token_id]


@pytest.mark.parametrize("tokenizer", [TOY, BYTES], ids=["toy", "chatml"])
@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.text("abz 1!\n", min_size=1, max_size=12), min_size=1, max_size=3),
    system=st.booleans(),
    reply=st.text("abz 1!\n", max_size=12),
)
def test_prefix_property(tokenizer: PreTrainedTokenizerBase, turns: list[str], system: bool, reply: str) -> None:
    roles = ["user", "assistant", "user"] if len(turns) == 3 else ["user"]
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns)]
    messages = [{"role": "system", "content": "be kind"}] * system + messages
    prompt, response = encode_pair(tokenizer, messages, reply)
    assert prompt == encode_prompt(tokenizer, messages)
    assert response[-1] == tokenizer.eos_token_id
    assert response.count(tokenizer.eos_token_id) == 1
    if tokenizer is BYTES:
        assert decode(tokenizer, response) == reply.strip()


GEMMA = (  # its end of a turn is not the tokenizer's end token
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<turn_end>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("tokenizer", [TOY, BYTES, byte_tokenizer(GEMMA)], ids=["toy", "chatml", "gemma"])
@pytest.mark.parametrize("reply", ["1", "cat dog", "im_end", " add 1 and 2", "assistant\n"])
def test_a_reply_that_was_cut_ends_with_its_last_character(tokenizer: PreTrainedTokenizerBase, reply: str) -> None:
    prompt, ended = encode_pair(tokenizer, USER, reply)
    same, cut = encode_pair(tokenizer, USER, reply, cut=True)
    assert (same, cut) == (prompt, ended[: len(cut)])
    assert decode(tokenizer, cut).replace(" ", "") == reply.strip().replace(" ", "")
    assert sampled_or_encoded(tokenizer, USER, reply, None, None, cut=True) == (prompt, cut)
    assert sampled_or_encoded(tokenizer, USER, reply, [1], [2, 3], cut=True) == ([1], [2, 3])


def test_a_cut_reply_of_nothing_is_its_end() -> None:
    assert encode_pair(BYTES, USER, " ", cut=True) == encode_pair(BYTES, USER, "")


def test_a_template_that_rewrites_a_reply_stops_before_its_end_token() -> None:
    shouting = byte_tokenizer(CHATML.replace("m.content", "m.content | upper"))
    assert decode(shouting, encode_pair(shouting, USER, "pig", cut=True)[1]) == "PIG"


def test_what_follows_the_end_token_is_left_out() -> None:
    _, response = encode_pair(BYTES, USER, " three \n")
    assert BYTES.decode(response) == "three<|im_end|>"


def test_bos_comes_from_the_template_alone() -> None:
    assert encode_prompt(TOY, USER).count(TOY.bos_token_id) == 1
    assert BYTES.bos_token_id not in encode_prompt(BYTES, USER)


def test_end_token_is_appended_where_the_template_has_none() -> None:
    plain = byte_tokenizer("{% for m in messages %}{{ m.content }}|{% endfor %}")
    prompt, response = encode_pair(plain, USER, "3")
    assert plain.decode(prompt) == "add 1 and 2|"
    assert plain.decode(response) == "3|<|im_end|>"


def test_unequal_prefix_is_explained() -> None:
    forgetful = byte_tokenizer(
        "{% for m in messages %}{% if loop.last %}{{ m.content }}{% else %}(cut){% endif %}{% endfor %}"
    )
    with pytest.raises(TsalignError, match=r"must stay the same.*'add 1 and 2'.*'\(cut\)3'.*chat_template"):
        encode_pair(forgetful, USER, "3")


def test_refused_role_is_explained() -> None:
    strict = byte_tokenizer("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x")
    with pytest.raises(TsalignError, match="conversation of system, user: no system"):
        encode_prompt(strict, [{"role": "system", "content": "be kind"}, *USER])


def test_load_fills_in_the_pad_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(BYTES, tmp_path))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert encode_prompt(tokenizer, USER) == encode_prompt(BYTES, USER)
    assert load_tokenizer(saved(TOY, tmp_path / "toy")).pad_token == "<pad>"


def test_sampled_tokens_go_before_the_text_where_both_are_known() -> None:
    assert sampled_or_encoded(TOY, USER, "3", [1, 2], [3]) == ([1, 2], [3])
    for known in ((None, [3]), ([1, 2], None), ([1, 2], []), ([], [3])):
        assert sampled_or_encoded(TOY, USER, "3", *known) == encode_pair(TOY, USER, "3")


def test_template_from_text_or_file(tmp_path: Path) -> None:
    model = saved(BYTES, tmp_path)
    (tmp_path / "mine.jinja").write_text("[{{ messages[0].content }}]")
    for template in ("[{{ messages[0].content }}]", str(tmp_path / "mine.jinja")):
        tokenizer = load_tokenizer(dataclasses.replace(model, chat_template=template))
        assert tokenizer.decode(encode_prompt(tokenizer, USER)) == "[add 1 and 2]"


def test_load_errors(tmp_path: Path) -> None:
    with pytest.raises(TsalignError, match=r"no chat template; set its `chat_template`"):
        load_tokenizer(saved(byte_tokenizer(None), tmp_path / "none"))
    good = saved(BYTES, tmp_path / "good")
    with pytest.raises(TsalignError, match=r"/nowhere\.jinja: no such file"):
        load_tokenizer(dataclasses.replace(good, chat_template="/nowhere.jinja"))
    with pytest.raises(TsalignError, match="cannot render a conversation of user"):
        load_tokenizer(dataclasses.replace(good, chat_template="{% for %}"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TsalignError, match=r"empty: no tokenizer could be loaded.*tokenizer\.json"):
        load_tokenizer(Model(str(tmp_path / "empty"), "x"))
    endless = byte_tokenizer()
    endless.eos_token = None
    with pytest.raises(TsalignError, match="no eos_token"):
        load_tokenizer(saved(endless, tmp_path / "endless"))
