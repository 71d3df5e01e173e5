"""A tokenizer made from the toy world's words, with single characters for any other Latin text."""

import string

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tsalign.toy.oracle import WRAPPERS
from tsalign.toy.world import EXCLAIM, MONTHS, TEMPLATES, WORDS, YEARS

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>", "<system>")
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<{{ message['role'] }}> {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def vocabulary() -> list[str]:
    """Every token in id order: special tokens, the world's words, then characters and their continuations."""
    phrases = [template for pair in TEMPLATES.values() for template in pair] + [*WRAPPERS, EXCLAIM]
    spoken = {word for phrase in phrases for word in phrase.split() if word.isalpha()}
    numbers = [str(number) for number in range(41)]
    characters = string.digits + string.ascii_letters + string.punctuation
    pieces = [f"##{character}" for character in string.digits + string.ascii_letters]
    shouted = [word.upper() for word in WORDS]
    words = [*sorted(spoken), *numbers, *YEARS, *MONTHS, *WORDS, *shouted]
    return list(dict.fromkeys([*SPECIAL, *words, *characters, *pieces]))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the toy models; a word has the same id in a prompt and in a reply."""
    ids = {token: index for index, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocab=ids, unk_token="<unk>", max_input_chars_per_word=10_000))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>", "<system>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
