"""Rubrics: instructions are put into categories, and the teacher writes for each what a good answer to it has."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.cluster import KMeans
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.seeds import fraction
from tsalign.common.storage import append_line, drop_cut_line, read_lines, remove, resolve
from tsalign.config import WritingConfig
from tsalign.data.checks import check_rows
from tsalign.data.intake import parse
from tsalign.data.shards import Row, iterate, write_rows
from tsalign.data.sources import BadRow, Message, Record, absolute, contents, read
from tsalign.data.tasks import in_one_task
from tsalign.engines import Completion
from tsalign.prompts.parsers import part
from tsalign.prompts.templates import render
from tsalign.recipes.citing.config import RubricsConfig
from tsalign.recipes.citing.retrieval import Corpus, fit_encoder, instruction, load_encoder, save_encoder, unit
from tsalign.runs.artifacts import Dataset, Endpoint, Folder, Model, fingerprint
from tsalign.runs.dry_run import look_for
from tsalign.runs.plan import Plan, PlannedStage, at_most, expected
from tsalign.runs.reader import reader
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.writing import Written, needs_texts, write

CACHE = "rubric_cache.jsonl"
SHARD_SIZE = 512


@stage_function("citing/categories")
def categorise(stage: Stage, prompts: Dataset, config: RubricsConfig) -> Dataset:
    """One row a category: `category`, `size`, `vector` (its centre), `instructions` (examples), and `prompt_id`.

    Made from `config.sample` prompts; `encoder.json` beside the rows says what embedded them.

    Raises:
        TsalignError: a prompt has no category in the file that `config.categories` names.
    """
    return in_one_task(stage, _categorise, prompts, config, stage.seed, placement=stage.resources.score)


@categorise.reads
def _read_categories(prompts: Dataset, config: RubricsConfig) -> dict[str, str]:
    return {} if config.categories in ("set", "cluster") else contents([config.categories])


@categorise.expects
def _expect_categories(stage: PlannedStage, prompts: Dataset, config: RubricsConfig) -> Dataset:
    if config.categories not in ("set", "cluster"):
        check_rows(stage.plan, "rubrics.categories", [config.categories], _categorised)
    if config.encoder.model != "tfidf":
        look_for(stage.plan, config.encoder, "rubrics.encoder")
    found = expected(prompts)
    rows = at_most(found.rows, config.sample)
    # A file that names the categories is not read for a plan.
    categories = {"set": found.sets, "cluster": float(config.clusters)}.get(config.categories)
    stage.needs("", stage.resources.score, {"rows": rows}, f"encoder {config.encoder.model}")
    return stage.dataset(categories)


def _categorise(out: UPath, prompts: Dataset, config: RubricsConfig, seed: int) -> dict[str, int]:
    rows = heapq.nsmallest(
        config.sample,
        iterate([prompts], ["prompt_id", "set", "prompt"]),
        key=lambda row: (fraction(row["prompt_id"], "rubrics"), row["prompt_id"]),
    )
    texts = [instruction(row["prompt"]) for row in rows]
    encoder = fit_encoder(config.encoder, texts)
    vectors = encoder.load()(texts)
    members: dict[str, list[int]] = defaultdict(list)
    for index, category in enumerate(_categories(rows, vectors, config, seed)):
        members[category].append(index)
    made = [
        _category(name, [texts[i] for i in own], vectors[own], config.examples) for name, own in sorted(members.items())
    ]
    write_rows(out, made, shard_size=SHARD_SIZE)
    save_encoder(encoder, out)
    return {"categories": len(made), "embedded": len(rows)}


def _category(name: str, texts: Sequence[str], vectors: np.ndarray, examples: int) -> Row:
    shown = list(dict.fromkeys(texts))[:examples]
    centre = unit(vectors.mean(0)).tolist()
    return {"prompt_id": name, "category": name, "size": len(texts), "vector": centre, "instructions": shown}


def _categories(rows: Sequence[Row], vectors: np.ndarray, config: RubricsConfig, seed: int) -> list[str]:
    """The category of each row."""
    if config.categories == "set":
        return [row["set"] for row in rows]
    if config.categories == "cluster":
        means = KMeans(min(config.clusters, len(rows)), n_init=10, random_state=seed % 2**32)
        return [f"cluster-{label:03}" for label in means.fit_predict(vectors)]
    given = _given(config.categories)
    missing = [row for row in rows if instruction(row["prompt"]) not in given]
    if missing:
        raise TsalignError(
            f"rubrics.categories: {config.categories} has no category for {len(missing)} of {len(rows)} prompts, "
            f"for example {instruction(missing[0]['prompt'])[:80]!r}; give every prompt a category, or use cluster."
        )
    return [given[instruction(row["prompt"])] for row in rows]


def _given(location: str) -> dict[str, str]:
    """Instruction -> category, from a file of prompts with that column."""
    found = {}
    for record in read([absolute(location)]):
        try:
            asked, category = _categorised(record)
        except BadRow as error:
            raise TsalignError(f"{record.file}:{record.line}: {error}") from None
        found[asked] = category
    return found


def _categorised(record: Record) -> tuple[str, str]:
    prompt = parse(record, None)
    if not isinstance(category := record.row.get("category"), str):
        raise BadRow("category: expected text")
    return instruction(prompt.messages), category


@dataclass(frozen=True)
class RubricWriting:
    """Asks for a category's rubric, showing its example instructions."""

    template: str

    def prompts(self, row: Row) -> list[list[Message]]:
        """One question a category."""
        return [render(self.template, instructions=row["instructions"])]

    def read(self, row: Row, answers: Sequence[Completion]) -> Written:
        """The category with its `rubric`."""
        return Written([{"prompt_id": row["prompt_id"], "rubric": part(self.template, "rubric", answers[0].text)}])


@stage_function("citing/rubrics")
def write_rubrics(
    stage: Stage,
    teacher: Model | Endpoint,
    categories: Dataset,
    template: str,
    config: RubricsConfig,
    writing: WritingConfig,
) -> Folder:
    """The corpus of rubrics, all of them written by `teacher`.

    A rubric that was once written in this run, for the same example instructions, is not asked for again, even
    where other categories changed.

    Raises:
        TsalignError: the rubric of a category does not parse.
    """
    rows = list(iterate([categories]))
    cache = stage.out.parent / CACHE
    known = {entry["key"]: entry["rubric"] for entry in read_lines(cache)}
    keys = [fingerprint(teacher, template, writing, row["instructions"]) for row in rows]
    asked = {row["prompt_id"]: key for row, key in zip(rows, keys) if key not in known}
    if asked:
        if not (stage.work / "asked").exists():
            write_rows(stage.work / "asked", (row for row in rows if row["prompt_id"] in asked), shard_size=SHARD_SIZE)
        drop_cut_line(cache)
        within = replace(stage, out=stage.work / "written", max_failed_fraction=0.0)
        questions = Dataset(str(stage.work / "asked"), stage.fingerprint)
        for row in iterate([write(within, teacher, questions, RubricWriting(template), writing)]):
            known[asked[row["prompt_id"]]] = row["rubric"]
            append_line(cache, {"key": asked[row["prompt_id"]], "rubric": row["rubric"]})
        remove(stage.work)
    stage.log({"rubrics": len(rows), "asked": len(asked)})
    Corpus(
        rubrics={row["category"]: known[key] for row, key in zip(rows, keys)},
        vectors=np.array([row["vector"] for row in rows], np.float32),
        encoder=load_encoder(UPath(categories.path)),
        min_similarity=config.min_similarity,
        fallback=config.fallback,
    ).save(stage.out)
    return Folder(str(stage.out), stage.fingerprint)


@write_rubrics.expects
def _expect_rubrics(
    stage: PlannedStage,
    teacher: Model | Endpoint,
    categories: Dataset,
    template: str,
    config: RubricsConfig,
    writing: WritingConfig,
) -> Folder:
    needs_texts(stage, teacher, writing, {"rubrics": expected(categories).rows})
    return stage.folder()


@reader
def rubrics_from(location: str) -> Folder:
    """A corpus that a run wrote, for example `runs/<run>/rubrics`.

    Raises:
        TsalignError: there are no rubrics in the folder.
    """
    folder = resolve(location)
    if not (folder / "rubrics.json").exists():
        raise TsalignError(f"{location}: no rubrics.json found; expected the folder `rubrics` of a citing run.")
    content = [(folder / name).read_text() for name in ("rubrics.json", "encoder.json")]
    return Folder(str(folder), fingerprint(*content))


@rubrics_from.expects
def _expect_corpus(plan: Plan, location: str) -> Folder:
    return rubrics_from(location) if plan.ready else Folder(location, location)
