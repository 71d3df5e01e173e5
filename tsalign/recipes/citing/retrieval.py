"""Which rubric is for an instruction: the category whose centre is nearest to the instruction's embedding."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoModel, AutoTokenizer
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import local_folder, write_json
from tsalign.config import ModelConfig
from tsalign.data.batching import by_tokens
from tsalign.data.loading import check_loaded, device
from tsalign.data.shards import Row, Shard
from tsalign.data.sources import Message
from tsalign.data.weights import check
from tsalign.data.workers import map_shards
from tsalign.runs.artifacts import Dataset, Folder, Model, model_from
from tsalign.runs.plan import PlannedStage, expected
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

MAX_TERMS = 4096
MAX_LENGTH = 512
BATCH_TOKENS = 16384
Encode = Callable[[Sequence[str]], np.ndarray]  # texts -> float32 [N, D], rows of length 1, or 0 where nothing is known


@dataclass(frozen=True)
class TfIdf:
    """Words weighted by how rare they are in the prompts that it was fitted to."""

    terms: tuple[str, ...]
    idf: tuple[float, ...]

    @classmethod
    def fit(cls, texts: Sequence[str]) -> TfIdf:
        """The commonest terms of `texts`, at most `MAX_TERMS`."""
        vectorizer = TfidfVectorizer(sublinear_tf=True, max_features=MAX_TERMS).fit(texts)
        return cls(tuple(map(str, vectorizer.get_feature_names_out())), tuple(map(float, vectorizer.idf_)))

    def load(self) -> Encode:
        """The encoding function."""
        vectorizer = TfidfVectorizer(sublinear_tf=True, vocabulary=self.terms)
        vectorizer.idf_ = np.array(self.idf)
        return lambda texts: vectorizer.transform(texts).toarray().astype(np.float32)


@dataclass(frozen=True)
class MeanPooling:
    """The mean of a Transformers model's last hidden states over the tokens of a text."""

    model: Model

    def load(self) -> Encode:
        """The encoding function, with the model on this process's device.

        Raises:
            TsalignError: the folder is no whole model. When called: a vector is not finite.
        """
        check(self.model, "any")
        options: dict[str, Any] = {
            "revision": self.model.revision,
            "trust_remote_code": self.model.trust_remote_code,
        }
        with local_folder(self.model.path) as folder:
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            loaded, info = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **options)
        # The pooler, which encoders have for classifiers, is not used.
        check_loaded(self.model, [name for name in info["missing_keys"] if not name.startswith("pooler.")])
        model = loaded.eval().to(device())
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

        @torch.inference_mode()
        def encode(texts: Sequence[str]) -> np.ndarray:
            tokens = tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH)["input_ids"]
            vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
            for batch in by_tokens([len(ids) for ids in tokens], BATCH_TOKENS):
                padded = tokenizer.pad({"input_ids": [tokens[i] for i in batch]}, return_tensors="pt").to(device())
                hidden = model(**padded).last_hidden_state  # [B, T, D]
                mask = padded["attention_mask"][..., None].to(hidden.dtype)
                vectors[batch] = ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu().numpy()
            if not np.isfinite(vectors).all():
                raise TsalignError(
                    f"rubrics.encoder: {self.model.path}: its vectors are not finite; use another model."
                )
            return unit(vectors)

        return encode


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def instruction(prompt: Sequence[Message]) -> str:
    """What a conversation asks: its last message."""
    return prompt[-1]["content"]


class Match(NamedTuple):
    """The rubric for an instruction. `category` is None where the fallback is used."""

    category: str | None
    rubric: str
    similarity: float


@dataclass(frozen=True)
class Corpus:
    """Rubrics by category, with the categories' centres.

    Attributes:
        rubrics: category -> rubric.
        vectors: float32 [categories, D], rows of length 1, in the order of `rubrics`.
        fallback: rubric where no centre's cosine reaches `min_similarity`.
    """

    rubrics: dict[str, str]
    vectors: np.ndarray
    encoder: TfIdf | MeanPooling
    min_similarity: float
    fallback: str

    def finder(self) -> Callable[[Sequence[str]], list[Match]]:
        """A function from instructions to their rubrics, with the encoder loaded."""
        encode = self.encoder.load()
        known = list(self.rubrics.items())

        def find(instructions: Sequence[str]) -> list[Match]:
            cosine = encode(instructions) @ self.vectors.T  # [N, categories]
            return [self._match(known, row) for row in cosine]

        return find

    def _match(self, known: list[tuple[str, str]], cosine: np.ndarray) -> Match:
        nearest = int(cosine.argmax())
        similarity = float(cosine[nearest])
        if similarity < self.min_similarity:
            return Match(None, self.fallback, similarity)
        return Match(*known[nearest], similarity)

    def save(self, folder: UPath) -> None:
        """Write `rubrics.json`, `encoder.json` and `vectors.npy`: all that retrieval needs, without a teacher."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "vectors.npy").open("wb") as file:
            np.save(file, self.vectors)
        save_encoder(self.encoder, folder)
        kept = {"min_similarity": self.min_similarity, "fallback": self.fallback, "rubrics": self.rubrics}
        write_json(folder / "rubrics.json", kept)

    @classmethod
    def load(cls, rubrics: Folder) -> Corpus:
        """What `save` wrote."""
        folder = UPath(rubrics.path)
        kept = json.loads((folder / "rubrics.json").read_text())
        with (folder / "vectors.npy").open("rb") as file:
            return cls(vectors=np.load(file, allow_pickle=False), encoder=load_encoder(folder), **kept)


def save_encoder(encoder: TfIdf | MeanPooling, folder: UPath) -> None:
    """Write `encoder.json`."""
    write_json(folder / "encoder.json", vars(encoder if isinstance(encoder, TfIdf) else encoder.model))


def load_encoder(folder: UPath) -> TfIdf | MeanPooling:
    """What `save_encoder` wrote."""
    kept = json.loads((folder / "encoder.json").read_text())
    if "terms" in kept:
        return TfIdf(tuple(kept["terms"]), tuple(kept["idf"]))
    return MeanPooling(Model(**kept))


def fit_encoder(encoder: ModelConfig, texts: Sequence[str]) -> TfIdf | MeanPooling:
    """The encoder that a config names; `tfidf` is fitted to `texts`."""
    return TfIdf.fit(texts) if encoder.model == "tfidf" else MeanPooling(model_from(encoder, "rubrics.encoder"))


@stage_function("citing/match")
def match(stage: Stage, prompts: Dataset, rubrics: Folder) -> Dataset:
    """Add to every prompt `category` (null for the fallback), `rubric` and `similarity`, the cosine of the nearest."""
    return map_shards(stage, prompts, MatchWorker, {"rubrics": rubrics}, stage.resources.score)


@match.expects
def _expect_matches(stage: PlannedStage, prompts: Dataset, rubrics: Folder) -> Dataset:
    stage.needs("", stage.resources.score, {"rows": expected(prompts).rows})
    return stage.derived(prompts)


class MatchWorker:
    """Loads the corpus once and finds a rubric for every row."""

    def __init__(self, rubrics: Folder) -> None:
        self.find = Corpus.load(rubrics).finder()

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        found = self.find([instruction(row["prompt"]) for row in rows])
        fallback = sum(match.category is None for match in found)
        return Shard([{**row, **match._asdict()} for row, match in zip(rows, found)], counts={"fallback": fallback})
