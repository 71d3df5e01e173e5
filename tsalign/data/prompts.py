"""Prompts for training and for evaluation, from files to shards; no conversation is ever in both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from itertools import batched
from math import ceil
from typing import TYPE_CHECKING, Any

from upath import UPath

from tsalign.config import DataConfig, EvaluationConfig
from tsalign.data.chat import load_tokenizer
from tsalign.data.intake import Intake, parse
from tsalign.data.shards import Shard, write_shard
from tsalign.data.sources import BadRow, expand, read
from tsalign.errors import TsalignError
from tsalign.runs.artifacts import Dataset, Model, fingerprint
from tsalign.storage import remove

if TYPE_CHECKING:
    from tsalign.runs.stage import Stage
