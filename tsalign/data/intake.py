"""Rows on their way in: counted, de-duplicated, tokenized; unusable ones are quarantined with a reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from typing import IO, Any

import numpy as np
from transformers import PreTrainedTokenizerBase
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import remove
from tsalign.config import DataConfig
from tsalign.data.chat import encode_prompt
from tsalign.data.sources import BadRow, Message, Record, read, to_messages

ROW_CHARACTERS = 500


@dataclass(frozen=True)
class Prompt:
    """A well-formed row. `prompt_id` is a hash of all messages, `content` one of all but the system message."""

    record: Record
    messages: list[Message]
    prompt_id: str
    content: str


class Intake(ExitStack):
    """Reads prompt files for one stage; `counts` and the quarantine record what happened to each row."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, data: DataConfig, quarantine: UPath) -> None:
        super().__init__()
        self.tokenizer, self.data, self.quarantine = tokenizer, data, quarantine
        self.counts = Counter(read=0, kept=0, duplicates=0, too_long=0, bad=0)
        self.examples: list[str] = []
        self._files: dict[str, IO[str]] = {}
        remove(quarantine)

    def prompts(self, locations: list[str]) -> Iterator[Prompt]:
        """The distinct well-formed prompts of some files."""
        seen: set[str] = set()
        for record in read(locations):
            self.counts["read"] += 1
            try:
                prompt = parse(record, self.data.system)
            except BadRow as error:
                self._reject("bad", record, str(error))
                continue
            if prompt.prompt_id in seen:
                self.counts["duplicates"] += 1
                continue
            seen.add(prompt.prompt_id)
            yield prompt

    def encode(self, prompt: Prompt, name: str) -> dict[str, Any] | None:
        """The row to keep, in the set `name`; None if it is too long or the chat template refuses it.

        Without a tokenizer it has no tokens; the model that answers it encodes it.
        """
        try:
            ids = encode_prompt(self.tokenizer, prompt.messages) if self.tokenizer else []
        except TsalignError as error:
            self._reject("bad", prompt.record, str(error))
            return None
        if len(ids) > self.data.max_prompt_tokens:
            reason = f"{len(ids)} tokens, more than data.max_prompt_tokens = {self.data.max_prompt_tokens}"
            self._reject("too_long", prompt.record, reason)
            return None
        return {
            "prompt_id": prompt.prompt_id,
            "set": name,
            "prompt": prompt.messages,
            "prompt_ids": np.asarray(ids, np.int32),  # a tenth of a list's memory, with a million prompts
        }

    def check(self) -> None:
        """Stop if too many rows were rejected.

        Raises:
            TsalignError: more than `data.max_bad_fraction`; it shows the first three.
        """
        rejected, total = self.counts["bad"] + self.counts["too_long"], self.counts["read"]
        if rejected > self.data.max_bad_fraction * total:
            raise TsalignError(
                f"{rejected} of {total} rows of the prompt files are bad or too long, "
                f"more than data.max_bad_fraction = {self.data.max_bad_fraction:g}. "
                f"All of them are in {self.quarantine}. The first are:\n  " + "\n  ".join(self.examples)
            )

    def _reject(self, count: str, record: Record, reason: str) -> None:
        self.counts[count] += 1
        if len(self.examples) < 3:
            self.examples.append(f"{record.file}:{record.line}: {reason}")
        row = record.row if isinstance(record.row, str) else json.dumps(record.row, ensure_ascii=False, default=str)
        entry = {"file": record.file, "line": record.line, "reason": reason, "row": row[:ROW_CHARACTERS]}
        self._file(record).write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _file(self, record: Record) -> IO[str]:
        name = UPath(record.file).name + ".jsonl"
        if name not in self._files:
            self.quarantine.mkdir(parents=True, exist_ok=True)
            # A lone surrogate, which UTF-8 cannot hold, is written as its JSON escape.
            file = (self.quarantine / name).open("w", encoding="utf-8", errors="backslashreplace")
            self._files[name] = self.enter_context(file)
        return self._files[name]


def parse(record: Record, system: str | None) -> Prompt:
    """A row as a prompt.

    Raises:
        BadRow: there is no prompt in it, or a malformed one.
    """
    messages = to_messages(record, system)
    turns = [message for message in messages if message["role"] != "system"]
    return Prompt(record, messages, _digest(messages), _digest(turns))


def _digest(messages: list[Message]) -> str:
    text = json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()
