"""Chat templates: the one place where conversations become tokens, and tokens become replies."""

from __future__ import annotations

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tsalign.common.errors import TsalignError
from tsalign.common.storage import local_folder, text_or_file
from tsalign.data import control_tokens
from tsalign.data.sources import Message
from tsalign.runs.artifacts import Model


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """The model's tokenizer with a chat template and a pad token (the end token where it has none).

    Raises:
        TsalignError: no tokenizer there, no chat template, one that does not render, or no end token.
    """
    with local_folder(model.path) as folder:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, revision=model.revision, trust_remote_code=model.trust_remote_code
            )
        except (OSError, ValueError) as error:
            raise TsalignError(
                f"{model.path}: no tokenizer could be loaded: {_first_line(error)} "
                "Expected a folder with tokenizer.json and tokenizer_config.json, or a hub id such as org/name."
            ) from error
    if model.chat_template:
        tokenizer.chat_template = text_or_file(model.chat_template, "chat_template")
    if not tokenizer.chat_template:
        raise TsalignError(
            f"{model.path}: the tokenizer has no chat template; "
            "set its `chat_template` to Jinja text or the path of a file that holds it."
        )
    if tokenizer.eos_token_id is None:
        raise TsalignError(f"{model.path}: the tokenizer has no eos_token; set one in its tokenizer_config.json.")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    encode_prompt(tokenizer, [{"role": "user", "content": "Hello"}])
    return tokenizer


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Token ids of a conversation up to where the assistant's reply begins.

    Control tokens in what somebody wrote, such as an end token, are encoded as the text that they are.

    Raises:
        TsalignError: the template does not render these messages; some refuse a system message.
    """
    return _render(tokenizer, messages, add_generation_prompt=True)


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], completion: str, cut: bool = False
) -> tuple[list[int], list[int]]:
    """Token ids of a prompt, and of the reply that follows it, which ends with the end token.

    The completion is stripped, as `decode` does. What a template puts after the end token is left out; after one that
    was `cut` at its limit, everything is: it has no end. An empty one is always ended, as nothing else is left of it.

    Raises:
        TsalignError: the template writes the prompt differently once a reply follows.
    """
    prompt = encode_prompt(tokenizer, messages)
    reply = {"role": "assistant", "content": completion.strip()}
    whole = _render(tokenizer, [*messages, reply], add_generation_prompt=False)
    if whole[: len(prompt)] != prompt:
        raise TsalignError(_mismatch(tokenizer, prompt, whole))
    if cut and reply["content"]:
        return prompt, _cut(tokenizer, [*messages, reply])[len(prompt) :]
    return prompt, _ended(whole[len(prompt) :], tokenizer.eos_token_id)


def sampled_or_encoded(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    completion: str,
    prompt_ids: list[int] | None,
    token_ids: list[int] | None,
    cut: bool = False,
) -> tuple[list[int], list[int]]:
    """The sampled token ids of a prompt and its reply where both are known, otherwise those of `encode_pair`."""
    if prompt_ids and token_ids:
        return prompt_ids, token_ids
    return encode_pair(tokenizer, messages, completion, cut)


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of a completion, without special tokens and surrounding white space."""
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], add_generation_prompt: bool) -> list[int]:
    try:
        messages, written = control_tokens.hide(tokenizer, messages)
        # The template writes the special tokens itself, and tokenizes without adding any.
        rendered = tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=not written, return_dict=False
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise TsalignError(
            f"chat_template: cannot render a conversation of {roles}: {error}; "
            "fix the template, or give the model another `chat_template`."
        ) from error
    if written:
        return control_tokens.encode(tokenizer, str(rendered), written)
    return rendered  # type: ignore[return-value]


def _cut(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Token ids of a conversation up to the last character of its last message."""
    messages, written = control_tokens.hide(tokenizer, messages)
    *prompt, reply = messages
    begun, whole = (
        str(tokenizer.apply_chat_template(shown, add_generation_prompt=asks, tokenize=False))
        for shown, asks in ((prompt, True), (messages, False))
    )
    # A template that rewrites the reply leaves no other place to stop than before its own end.
    start = whole.find(reply["content"], len(begun))
    end = start + len(reply["content"]) if start >= 0 else whole.rindex(str(tokenizer.eos_token))
    return control_tokens.encode(tokenizer, whole[:end], written)


def _ended(response: list[int], eos: int) -> list[int]:
    if eos not in response:
        return [*response, eos]
    return response[: len(response) - response[::-1].index(eos)]


def _mismatch(tokenizer: PreTrainedTokenizerBase, prompt: list[int], whole: list[int]) -> str:
    start = next((i for i, pair in enumerate(zip(prompt, whole)) if pair[0] != pair[1]), len(whole))
    alone, followed = (str(tokenizer.decode(ids[max(0, start - 8) : start + 24])) for ids in (prompt, whole))
    return (
        "chat_template: the tokens of a prompt must stay the same once its reply follows, and here they do not. "
        f"Alone, the prompt ends in {alone!r}; with the reply it reads {followed!r}. "
        "Give the model a `chat_template` that renders the prompt the same way in both cases."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
